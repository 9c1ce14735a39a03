//! Servers on a node that say which node they are: HTTP, and a UDP echo.

use std::convert::Infallible;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::node::Node;

const BACKLOG: i32 = 4096;
/// How long the echo waits before it looks whether to stop.
const NAP: Duration = Duration::from_millis(50);

/// A web server on all addresses of a node, IPv4 and IPv6. Every path answers 200 with the node's name as the body;
/// `?delay_ms=10` delays that. The same port echoes UDP datagrams, the node's name appended. It stops on drop.
#[derive(Debug)]
pub struct Web {
    node: Node,
    stop_http: Option<oneshot::Sender<()>>,
    stop_echo: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

// === impl Web ===

impl Web {
    /// Listens before it returns.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(node: &Node, port: u16) -> Result<Self> {
        let everywhere = [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ];
        let name: Arc<str> = node.name().into();
        let (listeners, echoes) = node.run(move || -> Result<_> {
            let listeners = everywhere.into_iter().map(listen).collect::<Result<Vec<_>>>()?;
            let echoes = everywhere.into_iter().map(bind_echo).collect::<Result<Vec<_>>>()?;
            Ok((listeners, echoes))
        })?;
        let (stop_http, stopped) = oneshot::channel();
        let mut web = Self {
            node: node.clone(),
            stop_http: Some(stop_http),
            stop_echo: Arc::default(),
            threads: Vec::new(),
        };
        let served = Arc::clone(&name);
        web.threads.push(node.thread("http", move || serve(served, listeners, stopped))?);
        for socket in echoes {
            let (stop, name) = (Arc::clone(&web.stop_echo), Arc::clone(&name));
            web.threads.push(node.thread("echo", move || echo(&stop, &socket, &name))?);
        }
        Ok(web)
    }

    /// The node it is on.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop_http = None;
        self.stop_echo.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

// === HTTP ===

fn listen(address: SocketAddr) -> Result<std::net::TcpListener> {
    let context = || format!("listen on {address}");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).with_context(context)?;
    if address.is_ipv6() {
        socket.set_only_v6(true).with_context(context)?;
    }
    socket.set_reuse_address(true).with_context(context)?;
    socket.bind(&address.into()).with_context(context)?;
    socket.listen(BACKLOG).with_context(context)?;
    socket.set_nonblocking(true).with_context(context)?;
    Ok(socket.into())
}

/// Serves until `stopped`; open connections end with the runtime.
fn serve(name: Arc<str>, listeners: Vec<std::net::TcpListener>, stopped: oneshot::Receiver<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async move {
        for listener in listeners {
            let Ok(listener) = TcpListener::from_std(listener) else { continue };
            tokio::spawn(accept(Arc::clone(&name), listener));
        }
        // The sender is dropped, never used.
        let _ = stopped.await;
    });
}

async fn accept(name: Arc<str>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(Arc::clone(&name), stream))),
            // Out of files, most likely: they come back as connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn converse(name: Arc<str>, stream: TcpStream) {
    let service = service_fn(move |request| respond(Arc::clone(&name), request));
    // A client that went away is the client's business.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(name: Arc<str>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let query = request.uri().query().unwrap_or_default();
    let (status, body) = match query.strip_prefix("delay_ms=").map(str::parse) {
        Some(Err(_)) => (StatusCode::BAD_REQUEST, "delay_ms takes whole milliseconds".to_owned()),
        delay => {
            if let Some(Ok(delay)) = delay {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            (StatusCode::OK, name.to_string())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    Ok(response)
}

// === UDP ===

fn bind_echo(address: SocketAddr) -> Result<UdpSocket> {
    let context = || format!("bind UDP {address}");
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).with_context(context)?;
    if address.is_ipv6() {
        socket.set_only_v6(true).with_context(context)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).with_context(context)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).with_context(context)?;
    }
    socket.bind(&address.into()).with_context(context)?;
    socket.set_read_timeout(Some(NAP)).with_context(context)?;
    Ok(socket.into())
}

fn echo(stop: &AtomicBool, socket: &UdpSocket, name: &str) {
    while !stop.load(Ordering::Relaxed) {
        // A time-out is the chance to stop; a datagram that cannot be answered is lost, as UDP is.
        let _ = echo_one(socket.as_raw_fd(), name);
    }
}

/// Answers one datagram from the address it was sent to: a wildcard socket would answer from the node's own.
fn echo_one(socket: RawFd, name: &str) -> nix::Result<()> {
    let mut datagram = [0; 512];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(&mut datagram)];
    let message = recvmsg::<SockaddrStorage>(socket, &mut slices, Some(&mut control), MsgFlags::empty())?;
    let info = message.cmsgs()?.next();
    let (asker, length) = (message.address, message.bytes);
    let answer = [IoSlice::new(&datagram[..length]), IoSlice::new(name.as_bytes())];
    match info {
        Some(ControlMessageOwned::Ipv4PacketInfo(info)) => {
            let source = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: info.ipi_addr,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(
                socket,
                &answer,
                &[ControlMessage::Ipv4PacketInfo(&source)],
                MsgFlags::empty(),
                asker.as_ref(),
            )
        }
        Some(ControlMessageOwned::Ipv6PacketInfo(info)) => {
            let source = libc::in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: info.ipi6_addr };
            sendmsg(
                socket,
                &answer,
                &[ControlMessage::Ipv6PacketInfo(&source)],
                MsgFlags::empty(),
                asker.as_ref(),
            )
        }
        _ => sendmsg(socket, &answer, &[], MsgFlags::empty(), asker.as_ref()),
    }
    .map(drop)
}
