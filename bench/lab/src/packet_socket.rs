//! AF_PACKET sockets: bound, filtered, with the kernel's receive stamps.

use std::io::{self, IoSliceMut};
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use socket2::{SockFilter, SockRef};

use crate::Stamp;

/// Room for a burst of a second; the kernel charges about a KiB per small frame.
const RECEIVE_BUFFER: usize = 64 << 20;
/// No frame of the lab is longer.
const LONGEST_FRAME: usize = 2048;

/// A raw AF_PACKET socket of the namespace it was opened in.
pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

/// A frame as received.
pub(crate) struct Received<'a> {
    pub(crate) at: Stamp,
    pub(crate) interface: u32,
    /// Sent out by the interface, rather than arrived at it.
    pub(crate) outgoing: bool,
    pub(crate) bytes: &'a [u8],
}

/// Reads frames one by one, without allocating.
pub(crate) struct Reader {
    socket: PacketSocket,
    frame: Box<[u8; LONGEST_FRAME]>,
    control: Vec<u8>,
}

// === impl PacketSocket ===

impl PacketSocket {
    /// Sees what passes `filter` on all interfaces. The filter is in place before the first frame is.
    pub(crate) fn open(filter: &[SockFilter]) -> Result<Self> {
        // Protocol 0 at first: nothing arrives until the filter holds.
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .context("open an AF_PACKET socket (root is needed)")?;
        SockRef::from(&fd).attach_filter(filter).context("attach a filter to an AF_PACKET socket")?;
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("enlarge the receive buffer")?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true).context("ask for receive stamps")?;
        Ok(Self { fd })
    }

    /// Starts to receive: from one interface (which frames are sent to, then), or from all (0).
    pub(crate) fn bind(&self, interface: u32) -> Result<()> {
        let every_protocol = SockProtocol::EthAll as libc::c_int;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            // ETH_P_ALL, which nix keeps in network byte order already.
            sll_protocol: every_protocol as u16,
            sll_ifindex: i32::try_from(interface).context("an interface's index is positive")?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the pointer is to a whole sockaddr_ll that outlives the call, and the length is its own.
        let bound = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        Errno::result(bound)
            .map(drop)
            .with_context(|| format!("bind an AF_PACKET socket to interface {interface}"))
    }

    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(nix::unistd::write(&self.fd, frame).map(drop)?)
    }

    /// Frames lost for want of room since the last call.
    pub(crate) fn dropped(&self) -> Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, which is the size of what the pointer is to.
        let read = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        Errno::result(read).context("read an AF_PACKET socket's statistics")?;
        Ok(statistics.tp_drops)
    }
}

// === impl Reader ===

impl Reader {
    pub(crate) fn new(socket: PacketSocket) -> Self {
        Self {
            socket,
            frame: Box::new([0; LONGEST_FRAME]),
            control: nix::cmsg_space!(nix::sys::time::TimeSpec),
        }
    }

    pub(crate) fn socket(&self) -> &PacketSocket {
        &self.socket
    }

    /// Waits for frames at most `timeout` (whole milliseconds); whether there are some.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<bool> {
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.socket.fd.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error).context("wait for frames"),
        }
    }

    /// The next frame, if one is there.
    pub(crate) fn next(&mut self) -> Result<Option<Received<'_>>> {
        let mut slices = [IoSliceMut::new(&mut self.frame[..])];
        let fd = self.socket.fd.as_raw_fd();
        let message = match recvmsg::<LinkAddr>(fd, &mut slices, Some(&mut self.control), MsgFlags::empty()) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(error) => return Err(error).context("receive a frame"),
        };
        let stamp = message.cmsgs().ok().into_iter().flatten().find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(at) => Some(at),
            _ => None,
        });
        let at = stamp.map_or_else(Stamp::now, |at| {
            Stamp::from_nanos(at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64)
        });
        let (interface, outgoing) = message.address.map_or((0, false), |address| {
            (address.ifindex() as u32, address.pkttype() == libc::PACKET_OUTGOING)
        });
        let length = message.bytes;
        Ok(Some(Received { at, interface, outgoing, bytes: &self.frame[..length] }))
    }
}
