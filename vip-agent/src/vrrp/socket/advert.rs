//! Sending adverts: a raw IP socket, so that every local obstacle (firewall, full queue, downed link) is an error.
//!
//! The lease is renewed only by an advert that was accepted for sending, so it matters which errors are our own:
//!
//! - What this host refuses (EPERM, ENOBUFS, ENETDOWN, ENETUNREACH, EADDRNOTAVAIL, ...) fails the send.
//! - What the network reports later by ICMP (a peer's neighbour entry is dead, a peer runs no VRRP) must not cost us
//!   ownership. IP_RECVERR, without which the kernel hides ENOBUFS, makes such a report fail a *later* send: so a send
//!   that fails is tried once more, with the report taken off. What fails then is this host's own.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{SendFlags, sockopt as option};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Interface, OpenError, receive_nothing, set_control_priority};
use crate::vrrp::codec::{self, HOP_LIMIT};
use crate::vrrp::prepared::PreparedAdverts;

/// Internetwork control (RFC 9568 does not say; every implementation sends it).
const TRAFFIC_CLASS: u32 = 0xc0;

/// ICMP reports that one failed send takes off the queue: bounded work under a flood of them.
const REPORTS_PER_SEND: usize = 64;

/// Sends the adverts of one instance and family.
#[derive(Debug)]
pub struct AdvertSender {
    socket: Socket,
    interface: Interface,
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
        Errno::ENOBUFS => "; the interface's queue is full, or a traffic-control filter drops protocol 112",
        Errno::EAGAIN => "; the socket's send buffer is full: the interface does not send",
        Errno::ENETDOWN => "; the interface is down",
        Errno::ENETUNREACH => "; the interface is down, or no route leads to the peer",
        Errno::EHOSTUNREACH => "; a route of this host declares the peer unreachable",
        Errno::EINVAL | Errno::EADDRNOTAVAIL => "; the source address is gone from this host",
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
        let socket = match source {
            IpAddr::V4(source) => socket4(interface, source),
            IpAddr::V6(_) => socket6(interface, source),
        };
        let socket = socket.map_err(OpenError::new("open the raw socket that sends adverts", interface))?;
        Ok(Self { socket, interface: interface.clone() })
    }

    /// Sends to every destination, whatever becomes of the others.
    ///
    /// A success means that the kernel took all of them. An interface that is up without carrier takes and drops them
    /// without an error: carrier must be followed by netlink.
    ///
    /// # Errors
    /// The first of this host's own errors. See the module on what the network reports.
    pub fn send(&self, adverts: &PreparedAdverts) -> Result<(), SendError> {
        let mut result = Ok(());
        for (destination, advert) in adverts.iter() {
            if let Err(errno) = self.send_one(destination, advert) {
                let interface = self.interface.clone();
                result = result.and(Err(SendError { errno, destination, interface }));
            }
        }
        result
    }

    fn send_one(&self, destination: IpAddr, advert: &[u8]) -> Result<(), Errno> {
        let address = socket_address(&self.interface, destination);
        let try_once = || {
            rustix::net::sendto(&self.socket, advert, SendFlags::DONTWAIT, &address)
                .map(drop)
                .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
        };
        try_once().or_else(|_| {
            self.forget_reports();
            try_once()
        })
    }

    /// Takes ICMP reports off the socket: some from their queue, which the kernel bounds by the receive buffer, and the
    /// pending error itself.
    fn forget_reports(&self) {
        let mut discarded = [MaybeUninit::uninit(); 1];
        for _ in 0..REPORTS_PER_SEND {
            let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
            if self.socket.recv_with_flags(&mut discarded, flags).is_err() {
                break;
            }
        }
        // Reading it clears it; what it says is of no interest.
        let _ = self.socket.take_error();
    }
}

fn socket4(interface: &Interface, source: Ipv4Addr) -> io::Result<Socket> {
    let socket = raw_socket(interface, Domain::IPV4)?;
    option::set_ip_multicast_if_with_ifindex(&socket, &Ipv4Addr::UNSPECIFIED, &source, interface.index)?;
    socket.set_multicast_ttl_v4(HOP_LIMIT.into())?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_ttl_v4(HOP_LIMIT.into())?;
    socket.set_tos_v4(TRAFFIC_CLASS)?;
    option::set_ip_mtu_discover(&socket, option::Ipv4PathMtuDiscovery::DO)?;
    setsockopt(&socket.as_fd(), sockopt::Ipv4RecvErr, &true)?;
    set_control_priority(&socket)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    Ok(socket)
}

fn socket6(interface: &Interface, source: IpAddr) -> io::Result<Socket> {
    let socket = raw_socket(interface, Domain::IPV6)?;
    socket.set_multicast_if_v6(interface.index)?;
    socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
    socket.set_tclass_v6(TRAFFIC_CLASS)?;
    setsockopt(&socket.as_fd(), sockopt::Ipv6DontFrag, &true)?;
    setsockopt(&socket.as_fd(), sockopt::Ipv6RecvErr, &true)?;
    set_control_priority(&socket)?;
    socket.bind(&socket_address(interface, source).into())?;
    Ok(socket)
}

/// It receives nothing, but that it exists keeps the kernel from answering unicast adverts with "protocol unreachable".
fn raw_socket(interface: &Interface, domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(codec::PROTOCOL))))?;
    receive_nothing(&socket)?;
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
