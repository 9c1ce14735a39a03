//! Hearing who claims addresses on a link: ARP and neighbour advertisements, before the kernel decides what to make of them.

use std::fmt;
use std::io;
use std::net::IpAddr;

use socket2::{Domain, SockFilter, Socket, Type};
use vip_common::packet::arp::{self, Arp};
use vip_common::packet::ethernet::{self, Mac};
use vip_common::packet::{icmpv6, ipv6};

use super::{Interface, OpenError, link_address};
use crate::types::{Family, MacAddr};

/// An ARP message, or a neighbour advertisement with its options, in an Ethernet frame.
const LONGEST: usize = ethernet::HEADER + ipv6::HEADER + icmpv6::LONGEST;

/// Receives the claims of one interface and family, non-blocking.
pub struct ClaimReceiver {
    socket: Socket,
    family: Family,
}

/// A station says that it has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// The station.
    pub mac: MacAddr,
}

impl ClaimReceiver {
    /// Opens the socket; from here on claims queue up.
    ///
    /// # Errors
    /// No CAP_NET_RAW, or no such interface.
    pub fn open(interface: &Interface, family: Family) -> Result<Self, OpenError> {
        let open = || {
            // Protocol 0 receives nothing, so the filter is in place before the first frame can queue up.
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            socket.set_nonblocking(true)?;
            match family {
                Family::V4 => socket.attach_filter(&arp_filter(interface.index))?,
                Family::V6 => socket.attach_filter(&advertisement_filter(interface.index))?,
            }
            let ethertype = match family {
                Family::V4 => ethernet::ARP,
                Family::V6 => ethernet::IPV6,
            };
            socket.bind(&link_address(interface, ethertype)?)?;
            io::Result::Ok(socket)
        };
        let socket = open().map_err(OpenError::new("open the packet socket that hears claims", interface))?;
        Ok(Self { socket, family })
    }

    /// The next claim that waits; `None` if there is none.
    ///
    /// # Errors
    /// The interface is down, or gone.
    pub fn receive(&self) -> io::Result<Option<Claim>> {
        let mut frame = [0; LONGEST];
        loop {
            match rustix::net::recv(&self.socket, &mut frame, rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    let frame = frame.get(..length).unwrap_or(&frame);
                    if let Some(claim) = Claim::read(frame, self.family) {
                        return Ok(Some(claim));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl fmt::Debug for ClaimReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimReceiver").field("family", &self.family).finish_non_exhaustive()
    }
}

impl Claim {
    /// Reads a frame. The sender of any ARP message has its address, unless that is none (RFC 5227, 2.1.1: others may be
    /// looking for it at the same time); of neighbour discovery only advertisements claim.
    fn read(frame: &[u8], family: Family) -> Option<Self> {
        const AT: usize = ethernet::HEADER;
        match family {
            Family::V4 => {
                let message = Arp::read(frame, AT)?;
                let sound = message.hardware_type == arp::ETHERNET && message.sender != [0; 4];
                sound.then(|| Self { address: message.sender.into(), mac: mac(message.sender_mac) })
            }
            Family::V6 => {
                let (kind, _) = icmpv6::kind(frame, AT)?;
                let options = icmpv6::validate(frame, AT)?;
                let address = icmpv6::target(frame, AT)?.bytes().into();
                let station = options.target.or_else(|| ethernet::source(frame))?;
                (kind == icmpv6::NEIGHBOR_ADVERTISEMENT).then(|| Self { address, mac: mac(station) })
            }
        }
    }
}

fn mac(mac: Mac) -> MacAddr {
    MacAddr(mac.bytes())
}

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;

/// Classic BPF: what was received on that very interface, not on its VLAN sub-interfaces.
fn arp_filter(ifindex: u32) -> [SockFilter; 4] {
    [
        SockFilter::new(LOAD_WORD, 0, 0, INTERFACE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, ifindex),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The same, and ICMPv6 of the type of an advertisement.
fn advertisement_filter(ifindex: u32) -> [SockFilter; 8] {
    const NETWORK: u32 = libc::SKF_NET_OFF as u32;
    [
        SockFilter::new(LOAD_WORD, 0, 0, INTERFACE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 5, ifindex),
        SockFilter::new(LOAD_BYTE, 0, 0, NETWORK + 6),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, icmpv6::NEXT_HEADER as u32),
        SockFilter::new(LOAD_BYTE, 0, 0, NETWORK + ipv6::HEADER as u32),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, icmpv6::NEIGHBOR_ADVERTISEMENT as u32),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn arp(operation: u8, sender: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(STATION.0);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(STATION.0);
        frame.extend(sender);
        frame.extend([0; 6]);
        frame.extend([10, 0, 0, 50]);
        frame
    }

    #[test]
    fn whoever_speaks_arp_has_its_address_and_a_probe_has_none() {
        let claim = Claim { address: [10, 0, 0, 50].into(), mac: STATION };
        for operation in [1, 2] {
            assert_eq!(Claim::read(&arp(operation, [10, 0, 0, 50]), Family::V4), Some(claim));
        }
        assert_eq!(Claim::read(&arp(1, [0; 4]), Family::V4), None);
    }

    #[test]
    fn what_ends_early_is_no_claim() {
        let whole = arp(2, [10, 0, 0, 50]);
        for length in 0..whole.len() {
            assert_eq!(Claim::read(&whole[..length], Family::V4), None, "{length} bytes");
        }
        assert_eq!(Claim::read(&[0; 86], Family::V6), None);
    }
}
