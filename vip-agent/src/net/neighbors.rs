//! Keeps the neighbour entries of unicast peers resolved, so that no advert waits for ARP or neighbour discovery.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::packet_core::NLM_F_CREATE;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::debug;

use super::{NetlinkError, Rtnetlink};
use crate::types::MacAddr;

/// How often an entry is used if nothing else is said: well below the kernel's shortest REACHABLE time (15 s), and
/// below the lifetime of an entry that a dead peer left FAILED.
pub const DEFAULT_PERIOD: Duration = Duration::from_secs(2);

/// A peer on the link of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbor {
    /// Index of the interface.
    pub ifindex: u32,
    /// The peer's address in a subnet of that interface: see [`super::links::LinkState::is_on_link`].
    pub address: IpAddr,
}

/// Uses the entries of a set of peers every few seconds, as a datagram to them would.
///
/// The kernel then resolves what is missing and confirms what is old, while the known MAC stays in use. An entry that
/// an administrator fixed (PERMANENT, NOARP) is left alone: using it by netlink would unfix it since Linux 5.16.
#[derive(Debug)]
pub struct NeighborKeeper {
    peers: watch::Sender<BTreeSet<Neighbor>>,
    worker: AbortHandle,
}

impl Drop for NeighborKeeper {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl NeighborKeeper {
    /// Starts with no peers. Must be called within a tokio runtime; it works on the network namespace of the calling
    /// thread.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start(period: Duration) -> Result<Self, NetlinkError> {
        let rtnetlink = Rtnetlink::connect()?;
        let (peers, wanted) = watch::channel(BTreeSet::new());
        let worker = tokio::spawn(keep(rtnetlink, wanted, period)).abort_handle();
        Ok(Self { peers, worker })
    }

    /// Replaces the set of peers; new ones are resolved at once.
    pub fn set(&self, peers: BTreeSet<Neighbor>) {
        self.peers.send_if_modified(|current| {
            let differs = *current != peers;
            *current = peers;
            differs
        });
    }
}

/// The MAC that the kernel knows for a neighbour, if it does; and has the kernel look again, in time for the next call.
///
/// # Errors
/// Only what netlink itself fails with.
pub async fn mac_of(rtnetlink: &Rtnetlink, neighbor: Neighbor) -> Result<Option<MacAddr>, NetlinkError> {
    let query = RouteNetlinkMessage::GetNeighbour(entry(neighbor));
    let known = match rtnetlink.get("look up a neighbour", query).await? {
        Some(RouteNetlinkMessage::NewNeighbour(known)) => mac_in(&known),
        _ => None,
    };
    refresh(rtnetlink, neighbor).await?;
    Ok(known)
}

/// The link-layer address of an entry that is in use or could be.
fn mac_in(entry: &NeighbourMessage) -> Option<MacAddr> {
    if matches!(
        entry.header.state,
        NeighbourState::None | NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::Noarp
    ) {
        return None;
    }
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok().map(MacAddr),
        _ => None,
    })
}

async fn keep(rtnetlink: Rtnetlink, mut wanted: watch::Receiver<BTreeSet<Neighbor>>, period: Duration) {
    loop {
        let peers = wanted.borrow_and_update().clone();
        for peer in peers {
            if let Err(error) = refresh(&rtnetlink, peer).await {
                debug!(%error, address = %peer.address, ifindex = peer.ifindex, "cannot keep a peer's neighbour entry");
            }
        }
        // A closed channel means that the keeper is being dropped, which aborts this task.
        let _ = tokio::time::timeout(period, wanted.changed()).await;
    }
}

/// Uses an entry once, as a datagram to it would.
pub(super) async fn refresh(rtnetlink: &Rtnetlink, peer: Neighbor) -> Result<(), NetlinkError> {
    let query = RouteNetlinkMessage::GetNeighbour(entry(peer));
    if let Some(RouteNetlinkMessage::NewNeighbour(known)) =
        rtnetlink.get("look up a neighbour", query).await?
        && matches!(known.header.state, NeighbourState::Permanent | NeighbourState::Noarp)
    {
        return Ok(());
    }
    let mut usage = entry(peer);
    usage.header.flags = NeighbourFlags::Use;
    let requests = vec![(RouteNetlinkMessage::NewNeighbour(usage), NLM_F_CREATE)];
    rtnetlink.batch("use a neighbour entry", requests).await?.into_iter().collect()
}

fn entry(peer: Neighbor) -> NeighbourMessage {
    let (family, destination) = match peer.address {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    };
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = peer.ifindex;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}
