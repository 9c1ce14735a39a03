//! The virtual MACs in the NIC's unicast filter: no address of the interface puts them there, so we do.

use std::io;

use socket2::{Domain, Socket, Type};

use super::{Interface, OpenError, pass_frames_to};
use crate::types::MacAddr;

/// MACs that an interface receives besides its own, as long as this lives: also a killed agent's leave the filter.
///
/// A driver without such a filter (IFF_UNICAST_FLT) is made promiscuous by the kernel instead.
#[derive(Debug)]
pub struct UnicastFilter {
    _socket: Socket,
}

impl UnicastFilter {
    /// Adds the MACs. Takes the routing lock.
    ///
    /// # Errors
    /// No CAP_NET_RAW, or the interface is gone or no Ethernet.
    pub fn open(interface: &Interface, macs: impl IntoIterator<Item = MacAddr>) -> Result<Self, OpenError> {
        let open = || {
            // Protocol 0: it receives nothing.
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            macs.into_iter().try_for_each(|mac| pass_frames_to(mac, &socket, interface))?;
            Ok(socket)
        };
        let socket: io::Result<Socket> = open();
        let socket = socket.map_err(OpenError::new("add a virtual MAC to the unicast filter", interface))?;
        Ok(Self { _socket: socket })
    }
}
