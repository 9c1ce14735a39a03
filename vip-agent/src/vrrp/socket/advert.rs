//! Sending adverts: a raw IP socket, so that every local obstacle (firewall, full queue, downed link) is an error; or, for
//! adverts from a virtual MAC, a packet socket, which takes whole frames and goes past the IP stack and its firewall.
//!
//! The lease is renewed only by an advert that was accepted for sending, so it matters whose error fails a send:
//!
//! - What this host refuses does: EPERM (firewall), ENOBUFS (queue, traffic control, no carrier), ENETDOWN, ENETUNREACH,
//!   EADDRNOTAVAIL, EMSGSIZE and so on. IP_RECVERR is set because without it the kernel hides ENOBUFS.
//! - What the network reports by ICMP (a peer's neighbour entry is dead, a peer runs no VRRP) does not, or a dead peer
//!   would cost us ownership. IP_RECVERR queues these reports, but raw sockets that do not write IP headers themselves
//!   send without a look at them, in both families.
//!
//! Multicast over IPv4 can be rehearsed: what is sent with a TTL of 0 goes through IP's output and is dropped before the
//! interface (RFC 1112, 6.1), but only by a member of the group (ip_mc_output). IPv6 has no such rule.
//!
//! The kernel resolves neighbours later and says nothing of it: a dead peer's adverts are taken and dropped.
//!
//! Frames fail for the same obstacles (ENETDOWN, ENOBUFS, EMSGSIZE, ENXIO), but a firewall's output chain does not see
//! them, and a source address that is gone is not missed: follow the addresses by netlink.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg, sockopt as option};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Interface, OpenError, address_bytes, link_address, receive_nothing, set_control_priority};
use crate::vrrp::codec::{self, HOP_LIMIT};
use crate::vrrp::prepared::PreparedAdverts;

/// Internetwork control (RFC 9568 does not say; every implementation sends it).
const TRAFFIC_CLASS: u32 = 0xc0;

/// Adverts per system call: its cost is spread thin, and the headers (8 KiB) fit the stack. The kernel takes 1024.
const BATCH: usize = 32;

/// Sends the adverts of instances that have interface, family and source address in common.
#[derive(Debug)]
pub struct AdvertSender {
    socket: Socket,
    interface: Interface,
    takes: Takes,
}

/// What a sender is given.
#[derive(Debug)]
enum Takes {
    /// IP payloads.
    Payloads {
        /// What it sends leads nowhere.
        rehearsal: Option<Socket>,
    },
    /// Ethernet frames.
    Frames {
        /// The interface, for somebody who sends in our stead.
        link: SockAddr,
    },
}

/// One advert of a batch.
#[derive(Clone, Copy)]
struct Message<'a> {
    /// Whose, by its place in the list.
    of: usize,
    destination: IpAddr,
    advert: &'a [u8],
}

/// This host did not accept an advert for sending: nothing was renewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot send an advert to {destination} on {interface}: {errno}{}", remedy(*.errno))]
pub struct SendError {
    /// What the kernel said.
    pub errno: Errno,
    /// Where it should have gone.
    pub destination: IpAddr,
    /// On which interface.
    pub interface: Interface,
}

fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => "; a firewall of this host drops protocol 112 in its output chain: allow it",
        Errno::ENOBUFS => {
            "; the interface has no carrier, its queue is full, or traffic control drops protocol 112"
        }
        Errno::EAGAIN => "; the socket's send buffer is full: the interface does not send",
        Errno::ENETDOWN => "; the interface is down",
        Errno::ENETUNREACH => "; the interface is down, or the source address is gone from this host",
        Errno::EINVAL | Errno::EADDRNOTAVAIL => "; the source address is gone from this host",
        Errno::EHOSTUNREACH => "; a route of this host declares the peer unreachable",
        Errno::EMSGSIZE => "; it exceeds the MTU: fewer VIPs per instance, or a greater MTU",
        Errno::ENODEV | Errno::ENXIO => "; the interface is gone",
        _ => "",
    }
}

impl AdvertSender {
    /// Opens the socket, for multicast and unicast alike: the adverts know where they go.
    ///
    /// `source` is an address of this host; for multicast over IPv6 the interface's link-local one.
    ///
    /// # Errors
    /// No CAP_NET_RAW, no such interface, or a source that is not ours or still tentative.
    pub fn open(interface: &Interface, source: IpAddr) -> Result<Self, OpenError> {
        let open = || match source {
            IpAddr::V4(source) => {
                let rehearsal = rehearsal_socket4(interface, source)?;
                io::Result::Ok((socket4(interface, source, HOP_LIMIT)?, Some(rehearsal)))
            }
            IpAddr::V6(_) => Ok((socket6(interface, source)?, None)),
        };
        let (socket, rehearsal) =
            open().map_err(OpenError::new("open the raw socket that sends adverts", interface))?;
        Ok(Self { socket, interface: interface.clone(), takes: Takes::Payloads { rehearsal } })
    }

    /// Opens a socket for adverts that are whole frames ([`PreparedAdverts::build_frame`]).
    ///
    /// # Errors
    /// No CAP_NET_RAW, or no such interface.
    pub fn open_for_frames(interface: &Interface) -> Result<Self, OpenError> {
        let open = || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            socket.set_nonblocking(true)?;
            set_control_priority(&socket)?;
            // Protocol 0: nothing is ever queued to it. The kernel reads each frame's own from its header (5.1).
            let link = link_address(interface, 0)?;
            socket.bind(&link)?;
            io::Result::Ok((socket, link))
        };
        let (socket, link) =
            open().map_err(OpenError::new("open the packet socket that sends adverts", interface))?;
        Ok(Self { socket, interface: interface.clone(), takes: Takes::Frames { link } })
    }

    /// Sends to every destination, whatever becomes of the others. Peers of unicast over IPv4 are taken to be on the
    /// link, or behind a gateway on it: the socket is bound to the interface.
    ///
    /// A success means that the kernel took all of them. It may go on to do so for up to a second after the carrier was
    /// lost: follow that by netlink.
    ///
    /// # Errors
    /// The first of this host's own errors. See the module on what the network reports.
    pub fn send(&self, adverts: &PreparedAdverts) -> Result<(), SendError> {
        let mut result = Ok(());
        for (destination, advert) in adverts.iter() {
            if let Err(errno) = self.send_one(&self.socket, destination, advert) {
                let interface = self.interface.clone();
                result = result.and(Err(SendError { errno, destination, interface }));
            }
        }
        result
    }

    /// Sends the adverts of several instances, each to every destination, in as few system calls as possible. Tells for
    /// each refusal whose advert it was, by its place in the list; what is not refused was accepted, as by [`Self::send`].
    pub fn send_each(&self, adverts: &[&PreparedAdverts], mut refused: impl FnMut(usize, SendError)) {
        let mut messages = adverts.iter().enumerate().flat_map(|(of, adverts)| {
            adverts.iter().map(move |(destination, advert)| Message { of, destination, advert })
        });
        loop {
            let batch: ArrayVec<Message<'_>, BATCH> = messages.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return;
            }
            self.send_batch(&batch, &mut refused);
        }
    }

    /// The kernel stops at the first refusal, and says why only if it is that of the first message.
    fn send_batch(&self, batch: &[Message<'_>], mut refused: impl FnMut(usize, SendError)) {
        let mut rest = batch;
        while let Some(&Message { of, destination, .. }) = rest.first() {
            match self.send_some(rest) {
                Ok(accepted @ 1..) => rest = rest.get(accepted..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                refusal => {
                    let errno =
                        refusal.err().map_or(Errno::EAGAIN, |errno| Errno::from_raw(errno.raw_os_error()));
                    refused(of, SendError { errno, destination, interface: self.interface.clone() });
                    rest = &rest[1..];
                }
            }
        }
    }

    /// One sendmmsg(2): how many were accepted before the first refusal, or the refusal if it was the first.
    fn send_some(&self, messages: &[Message<'_>]) -> rustix::io::Result<usize> {
        let addresses: ArrayVec<SocketAddrAny, BATCH> =
            messages.iter().map(|to| socket_address(&self.interface, to.destination).as_any()).collect();
        let slices: ArrayVec<[IoSlice<'_>; 1], BATCH> =
            messages.iter().map(|message| [IoSlice::new(message.advert)]).collect();
        let mut controls: ArrayVec<SendAncillaryBuffer<'_, '_, '_>, BATCH> =
            messages.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let parts = addresses.iter().zip(&slices).zip(&mut controls);
        let mut headers: ArrayVec<MMsgHdr<'_>, BATCH> = parts
            .map(|((address, slice), control)| match self.takes {
                Takes::Payloads { .. } => MMsgHdr::new_with_addr(address, slice, control),
                // Where a frame goes is written in it.
                Takes::Frames { .. } => MMsgHdr::new(slice, control),
            })
            .collect();
        sendmmsg(&self.socket, &mut headers, SendFlags::DONTWAIT)
    }

    /// Does all that sending does in this host, where that can be done without sending. Whether there was anything that
    /// could be rehearsed.
    ///
    /// # Errors
    /// What sending would have been refused with: a firewall of this host, for one.
    pub fn rehearse(&self, adverts: &PreparedAdverts) -> Result<bool, SendError> {
        let Takes::Payloads { rehearsal: Some(socket) } = &self.takes else { return Ok(false) };
        let mut result = Ok(false);
        for (destination, advert) in adverts.iter().filter(|(destination, _)| destination.is_multicast()) {
            let refused = |errno| SendError { errno, destination, interface: self.interface.clone() };
            let sent = self.send_one(socket, destination, advert).map(|()| true).map_err(refused);
            result = result.and(sent);
        }
        result
    }

    /// What [`Self::send`] hands to the kernel, for somebody who sends it in our stead by this socket ([`AsFd`]): each
    /// destination as a sockaddr, with the payload, or the frame, for it.
    pub fn prepare<'a>(&'a self, adverts: &'a PreparedAdverts) -> impl Iterator<Item = (Vec<u8>, &'a [u8])> {
        adverts.iter().map(|(destination, advert)| {
            let address = match &self.takes {
                Takes::Payloads { .. } => SockAddr::from(socket_address(&self.interface, destination)),
                Takes::Frames { link } => link.clone(),
            };
            (address_bytes(&address).to_vec(), advert)
        })
    }

    fn send_one(&self, socket: &Socket, destination: IpAddr, advert: &[u8]) -> Result<(), Errno> {
        let sent = match self.takes {
            Takes::Payloads { .. } => {
                let address = socket_address(&self.interface, destination);
                rustix::net::sendto(socket, advert, SendFlags::DONTWAIT, &address)
            }
            Takes::Frames { .. } => rustix::net::send(socket, advert, SendFlags::DONTWAIT),
        };
        sent.map(drop).map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    }
}

impl AsFd for AdvertSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket4(interface: &Interface, source: Ipv4Addr, multicast_ttl: u8) -> io::Result<Socket> {
    let socket = raw_socket(interface, Domain::IPV4)?;
    option::set_ip_multicast_if_with_ifindex(&socket, &Ipv4Addr::UNSPECIFIED, &source, interface.index)?;
    socket.set_multicast_ttl_v4(multicast_ttl.into())?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_ttl_v4(HOP_LIMIT.into())?;
    socket.set_tos_v4(TRAFFIC_CLASS)?;
    option::set_ip_mtu_discover(&socket, option::Ipv4PathMtuDiscovery::DO)?;
    setsockopt(&socket.as_fd(), sockopt::Ipv4RecvErr, &true)?;
    set_control_priority(&socket)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    Ok(socket)
}

fn rehearsal_socket4(interface: &Interface, source: Ipv4Addr) -> io::Result<Socket> {
    let socket = socket4(interface, source, 0)?;
    option::set_ip_add_membership_with_ifindex(
        &socket,
        &codec::GROUP_V4,
        &Ipv4Addr::UNSPECIFIED,
        interface.index,
    )?;
    Ok(socket)
}

fn socket6(interface: &Interface, source: IpAddr) -> io::Result<Socket> {
    let socket = raw_socket(interface, Domain::IPV6)?;
    socket.set_multicast_if_v6(interface.index)?;
    socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
    socket.set_tclass_v6(TRAFFIC_CLASS)?;
    // IPV6_DONTFRAG is for UDP and ICMPv6 only.
    option::set_ipv6_mtu_discover(&socket, option::Ipv6PathMtuDiscovery::DO)?;
    setsockopt(&socket.as_fd(), sockopt::Ipv6RecvErr, &true)?;
    set_control_priority(&socket)?;
    socket.bind(&socket_address(interface, source).into())?;
    Ok(socket)
}

/// It receives nothing, but that it exists keeps the kernel from answering unicast adverts with "protocol unreachable".
fn raw_socket(interface: &Interface, domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(codec::PROTOCOL))))?;
    receive_nothing(&socket)?;
    // ICMP reports queue up here and nobody reads them: the kernel raises 0 to its minimum, and drops what exceeds it.
    socket.set_recv_buffer_size(0)?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    Ok(socket)
}

/// A link-local address or group is one of this interface.
fn socket_address(interface: &Interface, address: IpAddr) -> SocketAddr {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() || address.is_multicast() => {
            SocketAddrV6::new(address, 0, 0, interface.index).into()
        }
        _ => SocketAddr::new(address, 0),
    }
}
