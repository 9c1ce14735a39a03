//! Path MTUs of tunnels: has the kernel learn them from routers' errors, and tells when there was one.
//!
//! Tunnelled packets are the XDP program's, and the kernel believes "too big" only of what a socket of its own may have sent
//! (raw(7)). So there is one for each kind of tunnel, which sends and receives nothing. What fits is then said by the routes.

use std::io;
use std::os::fd::AsRawFd as _;

use futures_util::future::select_all;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// IPv4 in IPv4 (RFC 2003), both families in IPv6 (RFC 2473), by the protocol of the outer header.
const TUNNELS: [(Domain, i32); 3] = [
    (Domain::IPV4, libc::IPPROTO_IPIP),
    (Domain::IPV6, libc::IPPROTO_IPIP),
    (Domain::IPV6, libc::IPPROTO_IPV6),
];

/// Errors that wait to be noticed; their content is of no interest, so few do.
const RECEIVE_BUFFER: usize = 16 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct PathMtus(Vec<UdpSocket>);

impl PathMtus {
    /// Must be called within a tokio runtime; it works on the network namespace of the calling thread. What the kernel refuses
    /// (CAP_NET_RAW, IPv6 switched off) is logged and done without.
    pub(super) fn listen() -> Self {
        let open = |(domain, protocol)| {
            let refused = |error: &io::Error| {
                tracing::debug!(%error, protocol, "path MTUs of tunnels over {domain:?} are not learned");
            };
            open(domain, protocol).inspect_err(refused).ok()
        };
        Self(TUNNELS.into_iter().filter_map(open).collect())
    }

    /// Waits until a router said something about a tunnelled packet; forever where nothing is heard.
    pub(super) async fn heard(&self) {
        if self.0.is_empty() {
            std::future::pending::<()>().await;
        }
        select_all(self.0.iter().map(|socket| Box::pin(heard(socket)))).await;
    }
}

/// A raw socket in the guise of one that tokio has: nothing of UDP is asked of it.
fn open(domain: Domain, protocol: i32) -> io::Result<UdpSocket> {
    const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0); // BPF_RET | BPF_K
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
    // What comes out of tunnels that end here is others'.
    socket.attach_filter(&[NOTHING])?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    // Without it IPv6 does not look at errors, and neither family tells of them.
    match domain {
        Domain::IPV4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        _ => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    UdpSocket::from_std(socket.into())
}

/// Waits for an error, and takes all of them.
async fn heard(socket: &UdpSocket) {
    if socket.ready(Interest::ERROR).await.is_err() {
        // The runtime ends.
        std::future::pending::<()>().await;
    }
    let take = || Ok(recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_ERRQUEUE)?);
    // Until there are none: then they are waited for again.
    while socket.try_io(Interest::ERROR, take).is_ok() {}
}
