//! Servers that behave, and servers that do not: one behaviour each, on a port of its own.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, SockRef, Socket, Type};
use vip_lab::Node;

/// A server on a node. Stops listening when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    /// Connections that nobody ever accepts.
    _waiting: Vec<TcpStream>,
}

/// What it does with a connection; the text is the head of the request, once that was read.
type Serve = Arc<dyn Fn(&mut TcpStream, &str) + Send + Sync>;

impl Server {
    /// Reads a request's head on each connection and does this with it.
    pub fn answering(
        node: &Node,
        ip: IpAddr,
        serve: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start(node, ip, true, Arc::new(serve))
    }

    /// Says this and closes the connection.
    pub fn saying(node: &Node, answer: impl Into<Vec<u8>>) -> Result<Self> {
        let answer = answer.into();
        Self::answering(node, [127, 0, 0, 1].into(), move |stream, _| drop(stream.write_all(&answer)))
    }

    /// Does this with each connection, whatever comes.
    pub fn accepting(
        node: &Node,
        serve: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start(node, [127, 0, 0, 1].into(), false, Arc::new(serve))
    }

    /// Never accepts: the kernel takes `backlog` + 1 connections, and these are `taken` of them.
    pub fn hung(node: &Node, backlog: i32, taken: usize) -> Result<Self> {
        let mut server = node.run(move || listen([127, 0, 0, 1].into(), backlog))?;
        let address = server.address;
        server._waiting = node.run(move || {
            (0..taken).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>().context("connect")
        })?;
        Ok(server)
    }

    fn start(node: &Node, ip: IpAddr, read: bool, serve: Serve) -> Result<Self> {
        let server = node.run(move || listen(ip, 1024))?;
        let listener = server.listener.try_clone()?;
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || {
                    let (mut head, mut byte) = (Vec::new(), [0]);
                    while read && !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0)
                    {
                        head.push(byte[0]);
                    }
                    serve(&mut stream, &String::from_utf8_lossy(&head));
                });
            }
        });
        Ok(server)
    }

    /// The URL of its top.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes whoever accepts.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

fn listen(ip: IpAddr, backlog: i32) -> Result<Server> {
    let address = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    let listener: TcpListener = socket.into();
    Ok(Server { address: listener.local_addr()?, listener, _waiting: Vec::new() })
}

/// Ends a connection by RST.
pub fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Says it over and over until nobody listens, with a pause after each.
pub fn repeat(stream: &mut TcpStream, text: &[u8], pause: Duration) {
    while stream.write_all(text).is_ok() {
        std::thread::sleep(pause);
    }
}
