//! Frames put on the wire as they are: what no honest host sends.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use socket2::SockFilter;

use crate::node::Node;
use crate::packet_socket::PacketSocket;

/// Frames sent before a rest.
const BURST: usize = 50;

impl Node {
    /// Sends whole Ethernet frames out of `eth0`, in order, resting for `rest` after each 50.
    ///
    /// # Errors
    /// The kernel refuses the socket or a frame.
    pub fn inject<F: AsRef<[u8]>>(&self, frames: impl IntoIterator<Item = F>, rest: Duration) -> Result<()> {
        const RECEIVE_NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);
        let socket = self.run(|| -> Result<_> {
            let socket = PacketSocket::open(&[RECEIVE_NOTHING])?;
            let interface = nix::net::if_::if_nametoindex("eth0").context("find the node's eth0")?;
            socket.bind(interface)?;
            Ok(socket)
        })?;
        for (n, frame) in frames.into_iter().enumerate() {
            while let Err(error) = socket.send(frame.as_ref()) {
                let full = [Errno::ENOBUFS, Errno::EAGAIN].map(|errno| Some(errno as i32));
                if !full.contains(&error.raw_os_error()) {
                    return Err(error).with_context(|| format!("{}: inject frame {n}", self.name()));
                }
                thread::sleep(Duration::from_millis(1));
            }
            if n % BURST == BURST - 1 {
                thread::sleep(rest);
            }
        }
        Ok(())
    }
}
