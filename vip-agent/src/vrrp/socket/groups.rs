//! The solicited-node groups of IPv6 VIPs: no address on the interface joins them, so we do.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Interface, OpenError, receive_nothing};

/// Memberships of one interface, so that the NIC's filter and MLD-snooping switches let neighbour solicitations for the
/// VIPs through. They end when this is dropped.
#[derive(Debug)]
pub struct MulticastGroups {
    interface: Interface,
    sockets: Vec<Socket>,
    memberships: BTreeMap<Ipv6Addr, Membership>,
}

#[derive(Debug)]
struct Membership {
    socket: usize,
    /// VIPs that share the last three bytes share the group.
    vips: usize,
}

impl MulticastGroups {
    /// No membership yet.
    pub fn new(interface: &Interface) -> Self {
        Self { interface: interface.clone(), sockets: Vec::new(), memberships: BTreeMap::new() }
    }

    /// Joins the group of a VIP; to be taken back by one [`Self::leave`].
    ///
    /// # Errors
    /// The interface is gone or without IPv6, or the kernel has no room even on a fresh socket.
    pub fn join(&mut self, vip: Ipv6Addr) -> Result<(), OpenError> {
        let group = solicited_node(vip);
        if let Some(membership) = self.memberships.get_mut(&group) {
            membership.vips += 1;
            return Ok(());
        }
        let socket = self
            .join_somewhere(group)
            .map_err(OpenError::new("join a solicited-node multicast group", &self.interface))?;
        self.memberships.insert(group, Membership { socket, vips: 1 });
        Ok(())
    }

    /// Leaves the group of a VIP, unless another VIP shares it. A VIP that was not joined is none of our business.
    pub fn leave(&mut self, vip: Ipv6Addr) {
        let group = solicited_node(vip);
        let Some(membership) = self.memberships.get_mut(&group) else { return };
        membership.vips -= 1;
        if membership.vips == 0 {
            // It fails only if the interface is gone, and the membership with it.
            let _ = self.sockets[membership.socket].leave_multicast_v6(&group, self.interface.index);
            self.memberships.remove(&group);
        }
    }

    /// How many sockets hold the memberships: what one can hold is bounded by net.core.optmem_max.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    fn join_somewhere(&mut self, group: Ipv6Addr) -> io::Result<usize> {
        // The newest socket is the likeliest to have room.
        for (at, socket) in self.sockets.iter().enumerate().rev() {
            match socket.join_multicast_v6(&group, self.interface.index) {
                Ok(()) => return Ok(at),
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        receive_nothing(&socket)?;
        socket.join_multicast_v6(&group, self.interface.index)?;
        self.sockets.push(socket);
        Ok(self.sockets.len() - 1)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOMEM | Errno::ENOBUFS))
}

/// ff02::1:ffXX:XXXX (RFC 4291, 2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solicited_node_group_ends_in_the_last_three_bytes() {
        let vip = "2001:db8::12ab:cdef".parse().expect("an address");
        assert_eq!(solicited_node(vip).to_string(), "ff02::1:ffab:cdef");
    }
}
