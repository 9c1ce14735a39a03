//! Frames of fast detection: out, and in what the XDP program passes up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, SockFilter, Socket, Type};
use vip_common::heartbeat::CLAIMS_LENGTH;
use vip_common::packet::ethernet::{HEADER, HEARTBEAT};

use super::{Interface, OpenError, link_address, pass_frames_to, set_control_priority};
use crate::types::MacAddr;

/// The group of IPv4 adverts, 224.0.0.18: what snooping switches never withhold from anybody (RFC 4541, 2.1.2).
const GROUP: MacAddr = MacAddr([0x01, 0x00, 0x5e, 0, 0, 0x12]);

/// The least that Ethernet carries, without its check sequence.
const SHORTEST: usize = 60;

/// The longest frame of ours.
const LONGEST: usize = HEADER + CLAIMS_LENGTH;

/// Sends to everybody on one interface, and receives what the program there does not keep.
#[derive(Debug)]
pub struct HeartbeatSocket {
    socket: Socket,
    interface: Interface,
    frame: [u8; LONGEST],
}

impl HeartbeatSocket {
    /// Opens the socket and joins the group. `own` is the interface's MAC.
    ///
    /// # Errors
    /// No CAP_NET_RAW, or no such interface.
    pub fn open(interface: &Interface, own: MacAddr) -> Result<Self, OpenError> {
        let socket =
            open(interface).map_err(OpenError::new("open the packet socket of fast detection", interface))?;
        let mut frame = [0; LONGEST];
        frame[..6].copy_from_slice(&GROUP.0);
        frame[6..12].copy_from_slice(&own.0);
        frame[12..HEADER].copy_from_slice(&HEARTBEAT.to_be_bytes());
        Ok(Self { socket, interface: interface.clone(), frame })
    }

    /// The interface.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Sends one payload, not longer than claims. What cannot be sent is not: others take our silence for what it is.
    pub fn send(&mut self, payload: &[u8]) {
        let Some(room) = self.frame.get_mut(HEADER..HEADER + payload.len()) else { return };
        room.copy_from_slice(payload);
        let end = HEADER + payload.len();
        self.frame[end..].fill(0);
        let _ = self.socket.send(&self.frame[..end.max(SHORTEST)]);
    }

    /// The payload of the next frame that has come up; `None` if there is none.
    pub fn receive<'a>(&self, buffer: &'a mut [u8; LONGEST]) -> Option<&'a [u8]> {
        let length =
            rustix::net::recv(&self.socket, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT).ok()?.1;
        Some(buffer.get(HEADER..length).unwrap_or_default())
    }

    /// Room for [`Self::receive`].
    pub const fn buffer() -> [u8; LONGEST] {
        [0; LONGEST]
    }
}

impl AsFd for HeartbeatSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(interface: &Interface) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&filter(interface.index))?;
    set_control_priority(&socket)?;
    pass_frames_to(GROUP, &socket, interface)?;
    // From here on it receives.
    socket.bind(&link_address(interface, HEARTBEAT)?)?;
    Ok(socket)
}

/// Classic BPF: what was received on that very interface, not what we or its VLAN sub-interfaces sent or received.
fn filter(ifindex: u32) -> [SockFilter; 6] {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    let interface = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
    [
        SockFilter::new(LOAD_WORD, 0, 0, packet_type),
        SockFilter::new(JUMP_IF_GREATER, 3, 0, libc::PACKET_MULTICAST.into()),
        SockFilter::new(LOAD_WORD, 0, 0, interface),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, ifindex),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
