//! How the proxy's sockets are set.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that wait for us to accept them. The kernel takes net.core.somaxconn instead, if that is less.
const BACKLOG: i32 = 4096;

/// A silent peer is asked after a minute whether it lives, and given up after another: without an answer the kernel breaks the
/// connection off, which is passed on like any other break.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);

/// File descriptors for connections of all services, two each, and what the agent needs beside them.
const DESCRIPTORS: u64 = 2 * 32_000 + 1536;

/// Listens on an address that this host need not have.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        // Linux 4.15
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.set_reuse_address(true)?;
    // An agent that takes over from another process listens before that one ends; and a local server that listens on
    // all addresses with this option, as nginx can, gets what is not for the VIP.
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Of a connection, on either side. Until [`close_in_order`], closing it resets it, whatever closes it: what its other
/// end has heard so far must not look complete.
pub(super) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // What arrives here as a piece is passed on as one.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_linger(Some(Duration::ZERO))
}

/// Connects to a backend, with a socket that is prepared before: what is given up on the way is reset as well.
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    prepare(&socket)?;
    socket.connect(address).await
}

/// Both sides have said all that they had to say: the kernel delivers what is left.
pub(super) fn close_in_order(stream: &TcpStream) {
    // It fails if the connection is gone, and then there is nothing to deliver.
    let _ = SockRef::from(stream).set_linger(None);
}

/// Bytes that we have sent and the peer has not acknowledged (SIOCOUTQ of tcp(7)); 0 if it is gone.
pub(super) fn unacknowledged(stream: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as the stream is borrowed, and the kernel writes one int to where an int is.
    let asked = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { usize::try_from(bytes).unwrap_or_default() } else { 0 }
}

/// Lets this process have the file descriptors that many connections take, as far as an administrator allows it.
pub(super) fn allow_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        tracing::warn!(%error, "`mode: proxy` has few file descriptors: two for each connection (RLIMIT_NOFILE)");
    }
}
