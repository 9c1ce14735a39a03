//! Receiving adverts: AF_PACKET, so that no host firewall hides them, with a filter that lets nothing else wake us.

use std::array;
use std::fmt;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt as option;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::arrival::{ArrivalClock, nanos};
use super::{Interface, OpenError, link_address, receive_nothing};
use crate::types::{Family, MonotonicTime};
use crate::vrrp::codec::{self, GROUP_V4, GROUP_V6};
use crate::vrrp::trailer;

/// Frames that one call takes at most: bounds the work of a wake-up and the memory.
const BATCH: usize = 16;

/// Ethernet, the longest IPv4 header, the longest advert with a trailer; an IPv6 header is shorter.
const LONGEST_FRAME: usize = 14 + 60 + codec::MAX_LEN + trailer::LEN;

/// Receives the adverts of one interface and family, non-blocking. Poll it through [`AsFd`].
///
/// What it yields are frames to this host or to a group, on this very interface: no outgoing or looped-back ones, none
/// of a VLAN sub-interface, none to other hosts (promiscuous mode).
pub struct PacketReceiver {
    socket: Socket,
    interface: Interface,
    family: Family,
    group: Option<Socket>,
    clock: ArrivalClock,
    buffers: Box<[[u8; LONGEST_FRAME]]>,
}

/// A frame from its destination MAC on; the VLAN tag has been taken off by the kernel.
#[derive(Clone, Copy)]
pub struct CapturedFrame<'a> {
    /// The frame, padding included.
    pub bytes: &'a [u8],
    /// When the kernel received it.
    pub arrival: MonotonicTime,
    /// It was longer than any advert, and `bytes` is not all of it: discard it
    /// ([`Discard::Truncated`](crate::vrrp::discard::Discard::Truncated)).
    pub truncated: bool,
}

/// Without what was received: adverts of version 2 may hold a password.
impl fmt::Debug for PacketReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { socket, interface, family, .. } = self;
        let mut shown = f.debug_struct("PacketReceiver");
        shown.field("socket", socket).field("interface", interface).field("family", family);
        shown.finish_non_exhaustive()
    }
}

/// Without the bytes, for the same reason.
impl fmt::Debug for CapturedFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, arrival, truncated } = self;
        let mut shown = f.debug_struct("CapturedFrame");
        shown.field("len", &bytes.len()).field("arrival", arrival).field("truncated", truncated).finish()
    }
}

impl PacketReceiver {
    /// Opens the socket; from here on adverts queue up.
    ///
    /// # Errors
    /// No CAP_NET_RAW, or no such interface.
    pub fn open(interface: &Interface, family: Family) -> Result<Self, OpenError> {
        let socket = packet_socket(interface, family)
            .map_err(OpenError::new("open the packet socket that receives adverts", interface))?;
        Ok(Self {
            socket,
            interface: interface.clone(),
            family,
            group: None,
            clock: ArrivalClock::start(),
            buffers: vec![[0; LONGEST_FRAME]; BATCH].into_boxed_slice(),
        })
    }

    /// Joins the advert group, so that the NIC's filter and snooping switches let it through: for interfaces with a
    /// multicast instance. The membership ends with the receiver; joining again changes nothing.
    ///
    /// # Errors
    /// The interface does not do that IP version, or is gone.
    pub fn join_group(&mut self) -> Result<(), OpenError> {
        if self.group.is_none() {
            let joined = join(&self.interface, self.family);
            self.group =
                Some(joined.map_err(OpenError::new("join the VRRP multicast group", &self.interface))?);
        }
        Ok(())
    }

    /// The interface that it listens on.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The family that it receives.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Takes what has queued up: at most 16 frames, in order of arrival. None means that the queue is empty.
    ///
    /// # Errors
    /// ENETDOWN once each time that the interface goes down; it receives again when the interface is up, unless the
    /// interface was deleted: one that comes back under its name has another index and needs another receiver.
    pub fn receive(&mut self) -> io::Result<impl ExactSizeIterator<Item = CapturedFrame<'_>> + use<'_>> {
        let captured = receive_batch(&self.socket, &mut self.buffers)?;
        if captured.count > 0 {
            self.clock.refresh();
        }
        let clock = self.clock;
        Ok(self.buffers.iter().zip(captured.messages).take(captured.count).map(move |(buffer, message)| {
            CapturedFrame {
                bytes: &buffer[..message.length.min(buffer.len())],
                arrival: clock.monotonic(message.stamp),
                truncated: message.truncated,
            }
        }))
    }
}

impl AsFd for PacketReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Protocol 0 receives nothing, so the filter is in place before the first frame can queue up.
fn packet_socket(interface: &Interface, family: Family) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&advert_filter(interface.index, family))?;
    setsockopt(&socket.as_fd(), sockopt::ReceiveTimestampns, &true)?;
    let ethertype = match family {
        Family::V4 => libc::ETH_P_IP,
        Family::V6 => libc::ETH_P_IPV6,
    };
    socket.bind(&link_address(interface, ethertype as u16)?)?;
    Ok(socket)
}

/// Classic BPF: adverts of the family that were received on that very interface.
fn advert_filter(ifindex: u32, family: Family) -> [SockFilter; 8] {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    let interface = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
    let protocol = libc::SKF_NET_OFF as u32
        + match family {
            Family::V4 => 9,
            Family::V6 => 6,
        };
    [
        // PACKET_HOST, _BROADCAST, _MULTICAST are 0-2; what is above is not for us, or from us.
        SockFilter::new(LOAD_WORD, 0, 0, packet_type),
        SockFilter::new(JUMP_IF_GREATER, 5, 0, libc::PACKET_MULTICAST.into()),
        // A socket bound to a NIC also sees what its VLAN sub-interfaces receive, with the tag already taken off.
        SockFilter::new(LOAD_WORD, 0, 0, interface),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, ifindex),
        SockFilter::new(LOAD_BYTE, 0, 0, protocol),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, codec::PROTOCOL.into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// An ordinary socket that only holds the membership.
fn join(interface: &Interface, family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    receive_nothing(&socket)?;
    match family {
        Family::V4 => {
            option::set_ip_add_membership_with_ifindex(
                &socket,
                &GROUP_V4,
                &Ipv4Addr::UNSPECIFIED,
                interface.index,
            )?;
        }
        Family::V6 => socket.join_multicast_v6(&GROUP_V6, interface.index)?,
    }
    Ok(socket)
}

#[derive(Clone, Copy, Default)]
struct Message {
    length: usize,
    truncated: bool,
    /// CLOCK_REALTIME in nanoseconds.
    stamp: Option<i64>,
}

struct Captured {
    messages: [Message; BATCH],
    count: usize,
}

/// Space for one SCM_TIMESTAMPNS, in words for its alignment.
type Control = [u64; 8];

/// recvmmsg(2) into `buffers`. All that the kernel wants beside them lives on this stack.
fn receive_batch(socket: &Socket, buffers: &mut [[u8; LONGEST_FRAME]]) -> io::Result<Captured> {
    let mut controls: [Control; BATCH] = [[0; 8]; BATCH];
    let mut slices: [libc::iovec; BATCH] =
        array::from_fn(|_| libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });
    // SAFETY: all zero is a valid mmsghdr: null pointers with zero lengths.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let parts = headers.iter_mut().zip(&mut slices).zip(&mut controls).zip(buffers.iter_mut());
    let vlen = parts.len();
    for (((header, slice), control), buffer) in parts {
        *slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = control.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = size_of::<Control>() as _;
    }
    let count = loop {
        // SAFETY: the first `vlen` headers point to slices, controls and buffers that outlive this call and that
        // nothing else refers to; their lengths are right.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                vlen as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        match Errno::result(received) {
            Ok(count) => break usize::try_from(count).unwrap_or(0),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break 0,
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut messages = [Message::default(); BATCH];
    for (message, header) in messages.iter_mut().zip(&headers[..count]) {
        *message = Message {
            length: header.msg_len as usize,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            stamp: kernel_stamp(&header.msg_hdr),
        };
    }
    Ok(Captured { messages, count })
}

/// The SCM_TIMESTAMPNS of a message that the kernel has filled in.
fn kernel_stamp(header: &libc::msghdr) -> Option<i64> {
    // SAFETY: `msg_control` and `msg_controllen` describe the kernel's control messages in a buffer that is still alive
    // and aligned for cmsghdr.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() };
    while let Some(message) = control {
        if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_TIMESTAMPNS {
            // SAFETY: a message of this type holds one timespec; read_unaligned asks for no alignment.
            let stamp = unsafe { libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned() };
            return Some(nanos(stamp.tv_sec, stamp.tv_nsec));
        }
        // SAFETY: as for CMSG_FIRSTHDR; `message` lies in that buffer.
        control = unsafe { libc::CMSG_NXTHDR(header, message).as_ref() };
    }
    None
}
