//! How this host reaches other hosts: by which interface, next hop and MAC. Followed as routes, neighbours and links change.
//!
//! Neighbours are resolved by the kernel, which is provoked to it: what it knows, and when it forgets it, is then the same for
//! steered packets and for its own.

mod decode;
mod follow;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::neighbors::{self, Neighbor};
use super::{NetlinkError, Rtnetlink};
use crate::types::MacAddr;

/// How a host is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// It is this one.
    Here,
    /// By a neighbour: the host itself, or a router.
    Via {
        /// The interface.
        ifindex: u32,
        /// The neighbour's MAC.
        mac: MacAddr,
        /// The router; `None`: the host is on the interface's network.
        router: Option<IpAddr>,
        /// The address that this host sends from.
        source: Option<IpAddr>,
        /// Bytes of a packet that the route carries in one piece; `None`: as many as the interface.
        mtu: Option<u32>,
    },
}

/// Why a host is not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// Not asked for yet.
    #[error("its route is not known yet")]
    Unknown,
    /// None, or one that says so.
    #[error("there is no route to it")]
    NoRoute,
    /// Nobody answers for the neighbour.
    #[error("{neighbor} does not answer for its MAC address (ARP, neighbour discovery)")]
    NoNeighbor {
        /// The host, or the router to it.
        neighbor: IpAddr,
    },
}

/// All hosts that were asked for.
pub type Reached = BTreeMap<IpAddr, Result<NextHop, Unreached>>;

/// Follows the ways to a set of hosts.
#[derive(Debug)]
pub struct NextHops {
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    reached: watch::Receiver<Arc<Reached>>,
    worker: AbortHandle,
}

impl Drop for NextHops {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl NextHops {
    /// Starts with no hosts. Must be called within a tokio runtime; it works on the network namespace of the calling thread.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start() -> Result<Self, NetlinkError> {
        let (wanted, wants) = watch::channel(BTreeSet::new());
        let (publisher, reached) = watch::channel(Arc::new(Reached::new()));
        let follower = follow::Follower::subscribe()?;
        let worker = tokio::spawn(follower.run(wants, publisher)).abort_handle();
        Ok(Self { wanted, reached, worker })
    }

    /// Replaces the set of hosts.
    pub fn set(&self, hosts: BTreeSet<IpAddr>) {
        self.wanted.send_if_modified(|current| {
            let differs = *current != hosts;
            *current = hosts;
            differs
        });
    }

    /// As it is now. A host that was just asked for may be missing yet.
    pub fn snapshot(&self) -> Arc<Reached> {
        self.reached.borrow().clone()
    }

    /// Waits until something is different from what this returned last.
    pub async fn changed(&mut self) -> Arc<Reached> {
        if self.reached.changed().await.is_err() {
            // The worker ends with the runtime only.
            std::future::pending::<()>().await;
        }
        self.reached.borrow_and_update().clone()
    }
}

/// The way to a host but for the neighbour's MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Here,
    Via { ifindex: u32, router: Option<IpAddr>, source: Option<IpAddr>, mtu: Option<u32> },
}

async fn route(rtnetlink: &Rtnetlink, to: IpAddr) -> Result<Option<Route>, NetlinkError> {
    match rtnetlink.get("look up a route", decode::get_route(to)).await {
        Err(error) if error.is_unreachable() => Ok(None),
        answer => Ok(answer?.as_ref().and_then(decode::route)),
    }
}

/// Has the kernel look for the MACs of these hosts' next hops, as a packet to them would. What fails is tried again with the next call.
pub async fn provoke(hosts: BTreeSet<IpAddr>) {
    let asked = async {
        let rtnetlink = Rtnetlink::connect()?;
        for host in hosts {
            if let Some(Route::Via { ifindex, router, .. }) = route(&rtnetlink, host).await? {
                let neighbor = Neighbor { ifindex, address: router.unwrap_or(host) };
                neighbors::refresh(&rtnetlink, neighbor).await?;
            }
        }
        Ok::<(), NetlinkError>(())
    };
    if let Err(error) = asked.await {
        tracing::debug!(%error, "cannot look for the next hops of clients");
    }
}
