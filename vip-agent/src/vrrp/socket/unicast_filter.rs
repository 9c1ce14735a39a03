//! The virtual MACs in the NIC's unicast filter: no address of the interface puts them there, so we do.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::{Interface, OpenError};
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
            macs.into_iter().try_for_each(|mac| add(&socket, interface, mac))?;
            Ok(socket)
        };
        let socket: io::Result<Socket> = open();
        let socket = socket.map_err(OpenError::new("add a virtual MAC to the unicast filter", interface))?;
        Ok(Self { _socket: socket })
    }
}

fn add(socket: &Socket, interface: &Interface, mac: MacAddr) -> io::Result<()> {
    let [a, b, c, d, e, f] = mac.0;
    let membership = libc::packet_mreq {
        mr_ifindex: i32::try_from(interface.index).map_err(|_| Errno::ENODEV)?,
        mr_type: libc::PACKET_MR_UNICAST as _,
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
