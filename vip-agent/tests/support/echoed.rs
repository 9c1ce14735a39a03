//! Clients of servers that send back what they hear, by TCP and by UDP.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vip_lab::Node;

/// What any answer may take.
const SOON: Duration = Duration::from_secs(10);

/// Sends so much by TCP, and hears it again.
pub(crate) fn tcp(client: &Node, to: SocketAddr, length: usize) -> Result<()> {
    client
        .run(move || {
            let stream = TcpStream::connect_timeout(&to, SOON)?;
            stream.set_read_timeout(Some(SOON))?;
            stream.set_write_timeout(Some(SOON))?;
            let sent: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
            let mut heard = Vec::new();
            std::thread::scope(|scope| -> Result<()> {
                let writer = scope.spawn(|| {
                    (&stream).write_all(&sent)?;
                    stream.shutdown(Shutdown::Write)
                });
                (&stream).read_to_end(&mut heard)?;
                Ok(writer.join().expect("no panic")?)
            })
            .with_context(|| format!("{} of {length} bytes", heard.len()))?;
            ensure!(heard == sent, "other bytes");
            Ok(())
        })
        .with_context(|| format!("TCP to {to}"))
}

/// The same by one datagram, of a socket that hears nobody else.
pub(crate) fn udp(client: &Node, to: SocketAddr, length: usize) -> Result<()> {
    client
        .run(move || {
            let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(SOON))?;
            let sent = vec![0x5a; length];
            socket.send(&sent)?;
            let mut heard = vec![0; length + 1];
            let heard = socket.recv(&mut heard).map(|length| heard[..length].to_vec())?;
            ensure!(heard == sent, "other bytes");
            Ok(())
        })
        .with_context(|| format!("UDP to {to}, {length} bytes"))
}
