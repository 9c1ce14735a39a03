//! `TUNNEL_ENDS`: what comes out of tunnels here.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use vip_common::steering::tunnel_end::TunnelEndKey;

use super::super::world::map_error;
use super::super::{DataplaneError, sys};
use super::entries::{remove, write};
use super::tables::ServiceTables;
use super::wanted::{bytes, family};

/// Packets to a VIP come out of tunnels to an address of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelEnd {
    /// Where the outer header goes.
    pub end: IpAddr,
    /// Where the inner one does.
    pub vip: IpAddr,
}

impl TunnelEnd {
    fn key(&self) -> TunnelEndKey {
        TunnelEndKey {
            end: bytes(self.end),
            vip: bytes(self.vip),
            end_family: family(self.end),
            vip_family: family(self.vip),
            reserved: [0; 2],
        }
    }
}

impl ServiceTables {
    /// These come out from now on, and nothing else: what a former agent left is removed first.
    ///
    /// # Errors
    /// The kernel refuses, or there are more than [`vip_common::steering::tunnel_end::MAX_TUNNEL_ENDS`].
    pub fn set_tunnel_ends(&self, ends: &BTreeSet<TunnelEnd>) -> Result<(), DataplaneError> {
        set(self.tunnel_ends.as_fd(), ends).map_err(map_error("TUNNEL_ENDS"))
    }
}

fn set(map: BorrowedFd<'_>, ends: &BTreeSet<TunnelEnd>) -> io::Result<()> {
    let wanted: Vec<TunnelEndKey> = ends.iter().map(TunnelEnd::key).collect();
    for stray in all(map)?.iter().filter(|key| !wanted.contains(key)) {
        remove(map, stray)?;
    }
    wanted.iter().try_for_each(|key| write(map, key, &0_u32))
}

fn all(map: BorrowedFd<'_>) -> io::Result<Vec<TunnelEndKey>> {
    let (mut found, mut at) = (Vec::new(), None);
    while sys::next_key(map, &mut at, size_of::<TunnelEndKey>())? {
        let Some(key) = at.as_deref() else { break };
        found.push(bytemuck::pod_read_unaligned(key));
    }
    Ok(found)
}
