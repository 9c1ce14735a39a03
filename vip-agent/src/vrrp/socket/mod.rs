//! The kernel boundary: what receives adverts, what sends them, what announces VIPs.
//!
//! Everything is opened when the configuration is applied; afterwards nothing here allocates or blocks.

mod advert;
mod announce;
mod arrival;
mod claims;
mod groups;
mod heartbeat;
mod packet;
mod unicast_filter;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockAddr, SockFilter, Socket};

pub use self::advert::{AdvertSender, SendError};
pub use self::announce::AnnounceSender;
pub use self::claims::{Claim, ClaimReceiver};
pub use self::groups::MulticastGroups;
pub(crate) use self::groups::solicited_node;
pub use self::heartbeat::HeartbeatSocket;
pub use self::packet::{CapturedFrame, PacketReceiver};
pub use self::unicast_filter::UnicastFilter;
use crate::types::MacAddr;

/// An interface of this network namespace. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interface {
    /// Its index: names it for good, while names can change.
    pub index: u32,
    /// Its name, for messages and SO_BINDTODEVICE.
    pub name: Arc<str>,
}

impl Interface {
    /// Looks the index up.
    ///
    /// # Errors
    /// No such interface in this network namespace.
    pub fn named(name: &str) -> Result<Self, OpenError> {
        match nix::net::if_::if_nametoindex(name) {
            Ok(index) => Ok(Self { index, name: name.into() }),
            Err(errno) => {
                let interface = Self { index: 0, name: name.into() };
                Err(OpenError::new("look up the index", &interface)(errno.into()))
            }
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// A socket that cannot be opened as it must be.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} on {interface}: {source}{}", remedy(source))]
pub struct OpenError {
    action: &'static str,
    interface: Arc<str>,
    source: io::Error,
}

impl OpenError {
    fn new(action: &'static str, interface: &Interface) -> impl Fn(io::Error) -> Self + use<> {
        let interface = Arc::clone(&interface.name);
        move |source| Self { action, interface: Arc::clone(&interface), source }
    }

    /// What the kernel said.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => "; it needs CAP_NET_RAW: run as root, or grant the capability",
        Some(Errno::ENODEV | Errno::ENXIO) => "; the interface does not exist (any more)",
        Some(Errno::EADDRNOTAVAIL) => {
            "; the source address is not configured on this host, or still tentative"
        }
        Some(Errno::EAFNOSUPPORT) => "; this host runs without that IP version",
        Some(Errno::ENOMEM | Errno::ENOBUFS) => "; raise the sysctl net.core.optmem_max",
        Some(Errno::EMFILE | Errno::ENFILE) => "; raise the limit of open files",
        _ => "",
    }
}

/// TC_PRIO_CONTROL: the first band of pfifo_fast and its like, so that adverts do not wait behind bulk traffic.
const PRIORITY_CONTROL: i32 = 7;

/// Lets routing traffic overtake on this host's own queues; set after the TOS, which sets it too.
fn set_control_priority(socket: &Socket) -> io::Result<()> {
    Ok(setsockopt(&socket.as_fd(), sockopt::Priority, &PRIORITY_CONTROL)?)
}

/// An empty receive queue for ever: for sockets that only send or only hold memberships.
fn receive_nothing(socket: &Socket) -> io::Result<()> {
    const RETURN: u16 = 0x06;
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
}

/// Lets the NIC's filter pass frames to a MAC, a group's or one more of its own, for as long as the packet socket is open.
/// Takes the routing lock.
fn pass_frames_to(mac: MacAddr, socket: &Socket, interface: &Interface) -> io::Result<()> {
    let [a, b, c, d, e, f] = mac.0;
    let kind = if mac.is_unicast() { libc::PACKET_MR_UNICAST } else { libc::PACKET_MR_MULTICAST };
    let membership = libc::packet_mreq {
        mr_ifindex: i32::try_from(interface.index).map_err(|_| Errno::ENODEV)?,
        mr_type: kind as _,
        mr_alen: mac.0.len() as _,
        mr_address: [a, b, c, d, e, f, 0, 0],
    };
    // SAFETY: the pointer is to a whole packet_mreq that outlives the call, and the length is its own.
    let added = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const membership).cast(),
            size_of_val(&membership) as libc::socklen_t,
        )
    };
    Errno::result(added)?;
    Ok(())
}

/// An address as system calls take it.
pub(crate) fn address_bytes(address: &SockAddr) -> &[u8] {
    // SAFETY: `as_ptr` points to a sockaddr_storage, borrowed as long as the result, of which `len` bytes are the address.
    unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), address.len() as usize) }
}

/// Address of an AF_PACKET socket.
fn link_address(interface: &Interface, ethertype: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(interface.index).map_err(|_| Errno::ENODEV)?;
    let init = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: socket2 hands out a zeroed sockaddr_storage, which is larger than sockaddr_ll and aligned for every
        // kind of address, and a length that is ours to write.
        let (address, length) = unsafe { (&mut *storage.cast::<libc::sockaddr_ll>(), &mut *length) };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = index;
        *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        Ok(())
    };
    // SAFETY: `init` writes a valid sockaddr_ll and its length.
    let ((), address) = unsafe { SockAddr::try_init(init)? };
    Ok(address)
}
