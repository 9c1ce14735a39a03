//! Follows routes and neighbours: events are taken in as they come, and everything is read again where some were lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{BoxStream, StreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{NextHop, Reached, Route, Unreached, decode, route};
use crate::net::neighbors::{Neighbor, NeighborKeeper};
use crate::net::path_mtu::PathMtus;
use crate::net::{NetlinkError, Rtnetlink};
use crate::types::MacAddr;

/// How often the neighbours are used, so that the kernel finds out that one is gone: steered packets pass it by.
const USE_EVERY: Duration = Duration::from_secs(5);

/// How long news wait for more of it.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// Looking all routes up again takes at most this part of the time, whatever happens to them.
const REST: u32 = 10;

/// Routes that are looked up again at a time: a host that is new meanwhile waits for no more.
const PIECE: usize = 16;

/// Bytes of events that may wait in the kernel; beyond it they are lost and everything is read again.
const RECEIVE_BUFFER: usize = 1 << 20;

/// How long until something is tried again that failed.
const AGAIN: Duration = Duration::from_millis(500);

type Events = BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

pub(super) struct Follower {
    /// Not the connection that the events come by: an overflow there would lose answers as well.
    rtnetlink: Rtnetlink,
    events: Events,
    connection: AbortHandle,
    keeper: NeighborKeeper,
    path_mtus: PathMtus,
    hosts: BTreeSet<IpAddr>,
    /// Whether there may be hosts whose routes are not known.
    incomplete: bool,
    routes: BTreeMap<IpAddr, Option<Route>>,
    neighbors: HashMap<(u32, IpAddr), MacAddr>,
    /// Whether routes are to be looked up again.
    stale: bool,
    /// Not before then.
    rested: Instant,
    /// Looking them up again.
    again: Option<Again>,
}

/// What is found while all routes are looked up again. They are changed together, so that what depends on them is planned once.
#[derive(Default)]
struct Again {
    left: Vec<IpAddr>,
    found: BTreeMap<IpAddr, Option<Route>>,
    took: Duration,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Follower {
    pub(super) fn subscribe() -> Result<Self, NetlinkError> {
        let (events, connection) = open()?;
        Ok(Self {
            rtnetlink: Rtnetlink::connect()?,
            events,
            connection,
            keeper: NeighborKeeper::start(USE_EVERY)?,
            path_mtus: PathMtus::listen(),
            hosts: BTreeSet::new(),
            incomplete: false,
            routes: BTreeMap::new(),
            neighbors: HashMap::new(),
            stale: false,
            rested: Instant::now(),
            again: None,
        })
    }

    pub(super) async fn run(
        mut self,
        mut wanted: watch::Receiver<BTreeSet<IpAddr>>,
        publisher: watch::Sender<Arc<Reached>>,
    ) {
        self.read_neighbors_until_it_works().await;
        let mut others = true;
        loop {
            if std::mem::take(&mut others) {
                self.hosts.clone_from(&wanted.borrow_and_update());
                let hosts = &self.hosts;
                self.routes.retain(|host, _| hosts.contains(host));
                self.incomplete = true;
            }
            if self.stale && self.rested <= Instant::now() && self.again.is_none() {
                self.stale = false;
                self.again = Some(Again { left: self.routes.keys().copied().collect(), ..Again::default() });
            }
            let is_piece = self.again.is_some() && !self.incomplete;
            let looked_up = match self.look_up().await {
                Ok(()) => self.look_up_again().await,
                failed => failed,
            };
            if let Err(error) = looked_up {
                tracing::warn!(%error, "cannot look routes to backends up; trying again");
                self.again = None;
                self.stale = true;
                self.rested = Instant::now() + AGAIN;
            }
            // Between two pieces there is nothing new.
            if !is_piece || self.again.is_none() {
                self.publish(&publisher);
            }
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => others = true,
                    Err(_) => return,
                },
                event = self.events.next() => self.collect(event).await,
                // A route says another MTU now, without an event. Floods of errors are looked at as seldom as those of routes.
                () = self.path_mtus.heard() => self.stale = true,
                () = tokio::time::sleep_until(self.rested.into()), if self.stale && self.again.is_none() => {}
                () = std::future::ready(()), if self.again.is_some() => {}
            }
        }
    }

    /// Takes an event in, and those that follow soon.
    async fn collect(&mut self, first: Option<NetlinkMessage<RouteNetlinkMessage>>) {
        let until = tokio::time::Instant::now() + DEBOUNCE;
        let mut event = first;
        loop {
            match event.map(|event| event.payload) {
                None => self.resubscribe().await,
                Some(NetlinkPayload::Overrun(_)) => {
                    self.stale = true;
                    self.read_neighbors_until_it_works().await;
                }
                Some(NetlinkPayload::InnerMessage(message)) => self.take_in(&message),
                Some(_) => {}
            }
            match tokio::time::timeout_at(until, self.events.next()).await {
                Ok(next) => event = next,
                Err(_) => return,
            }
        }
    }

    fn take_in(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewNeighbour(entry) => match decode::neighbor(entry) {
                Some((key, Some(mac))) => drop(self.neighbors.insert(key, mac)),
                Some((key, None)) => drop(self.neighbors.remove(&key)),
                None => {}
            },
            RouteNetlinkMessage::DelNeighbour(entry) => {
                if let Some((key, _)) = decode::neighbor(entry) {
                    self.neighbors.remove(&key);
                }
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                let of_another = |address| !self.hosts.contains(&address);
                self.stale |= !decode::of_local_address(route).is_some_and(of_another);
            }
            // Rules, and links: with one that goes down routes go without a word.
            _ => self.stale = true,
        }
    }

    /// Looks the routes up that are not known.
    async fn look_up(&mut self) -> Result<(), NetlinkError> {
        if !self.incomplete {
            return Ok(());
        }
        let unknown: Vec<IpAddr> =
            self.hosts.iter().filter(|host| !self.routes.contains_key(host)).copied().collect();
        for host in unknown {
            let found = route(&self.rtnetlink, host).await?;
            self.routes.insert(host, found);
        }
        self.incomplete = false;
        self.use_neighbors();
        Ok(())
    }

    /// Looks some more of those up again that were known before.
    async fn look_up_again(&mut self) -> Result<(), NetlinkError> {
        let Some(again) = &mut self.again else { return Ok(()) };
        let begun = Instant::now();
        for host in again.left.split_off(again.left.len().saturating_sub(PIECE)) {
            let found = route(&self.rtnetlink, host).await?;
            again.found.insert(host, found);
        }
        again.took += begun.elapsed();
        if again.left.is_empty() {
            self.rested = Instant::now() + again.took * REST;
            let found = std::mem::take(&mut again.found);
            self.again = None;
            self.routes.extend(found.into_iter().filter(|(host, _)| self.hosts.contains(host)));
            self.use_neighbors();
        }
        Ok(())
    }

    /// Has the kernel keep those resolved that routes lead by.
    fn use_neighbors(&self) {
        let neighbor = |(host, route): (&IpAddr, &Option<Route>)| match route {
            Some(Route::Via { ifindex, router, .. }) => {
                Some(Neighbor { ifindex: *ifindex, address: router.unwrap_or(*host) })
            }
            _ => None,
        };
        self.keeper.set(self.routes.iter().filter_map(neighbor).collect());
    }

    fn publish(&self, publisher: &watch::Sender<Arc<Reached>>) {
        let reached: Reached = self.hosts.iter().map(|host| (*host, self.reach(*host))).collect();
        publisher.send_if_modified(|current| {
            let differs = **current != reached;
            if differs {
                *current = Arc::new(reached);
            }
            differs
        });
    }

    fn reach(&self, host: IpAddr) -> Result<NextHop, Unreached> {
        match self.routes.get(&host) {
            None => Err(Unreached::Unknown),
            Some(None) => Err(Unreached::NoRoute),
            Some(Some(Route::Here)) => Ok(NextHop::Here),
            Some(Some(Route::Via { ifindex, router, source, mtu })) => {
                let neighbor = router.unwrap_or(host);
                match self.neighbors.get(&(*ifindex, neighbor)) {
                    None => Err(Unreached::NoNeighbor { neighbor }),
                    Some(mac) => Ok(NextHop::Via {
                        ifindex: *ifindex,
                        mac: *mac,
                        router: *router,
                        source: *source,
                        mtu: *mtu,
                    }),
                }
            }
        }
    }

    async fn read_neighbors(&mut self) -> Result<(), NetlinkError> {
        let mut neighbors = HashMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let entries = self.rtnetlink.dump("list the neighbours", decode::list_neighbors(family)).await?;
            for entry in entries {
                if let RouteNetlinkMessage::NewNeighbour(entry) = entry
                    && let Some((key, Some(mac))) = decode::neighbor(&entry)
                {
                    neighbors.insert(key, mac);
                }
            }
        }
        self.neighbors = neighbors;
        Ok(())
    }

    async fn read_neighbors_until_it_works(&mut self) {
        while let Err(error) = self.read_neighbors().await {
            tracing::warn!(%error, "cannot read the neighbours; trying again");
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn resubscribe(&mut self) {
        self.stale = true;
        loop {
            match open() {
                Ok((events, connection)) => {
                    self.events = events;
                    std::mem::replace(&mut self.connection, connection).abort();
                    return self.read_neighbors_until_it_works().await;
                }
                Err(error) => tracing::warn!(%error, "cannot follow routes and neighbours; trying again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn open() -> Result<(Events, AbortHandle), NetlinkError> {
    let mut socket = TokioSocket::new(protocols::NETLINK_ROUTE).map_err(NetlinkError::Open)?;
    let sized = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket.socket_ref(), RECEIVE_BUFFER);
    if let Err(error) = sized {
        tracing::debug!(%error, "the receive buffer for events of routes stays at its default");
    }
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv6Rule,
    ];
    let mask = groups.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, mask)).map_err(NetlinkError::Open)?;
    let (connection, _, events) = rtnetlink::from_socket(socket);
    let connection = tokio::spawn(connection).abort_handle();
    Ok((events.map(|(message, _)| message).boxed(), connection))
}
