//! Follows the links: events are applied as they come, and everything is read again where some were lost.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{BoxStream, StreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols};
use socket2::SockFilter;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::LinkTable;
use crate::net::addresses::LO;
use crate::net::{NetlinkError, Rtnetlink};

/// How events are collected; the default is what the agent uses.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// How long good news may wait for more of it. News that an interface cannot carry frames any more never waits.
    pub debounce: Duration,
    /// Bytes of events that may wait in the kernel; beyond it they are lost and everything is read again.
    pub receive_buffer: u32,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { debounce: Duration::from_millis(3), receive_buffer: 1 << 20 }
    }
}

/// A subscription to the links of this network namespace with their addresses, those of lo aside.
#[derive(Debug)]
pub struct LinkWatcher {
    tables: watch::Receiver<Arc<LinkTable>>,
    resyncs: Arc<AtomicU64>,
    worker: AbortHandle,
}

impl Drop for LinkWatcher {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl LinkWatcher {
    /// Subscribes and reads everything once. Must be called within a tokio runtime; it watches the network namespace
    /// of the calling thread.
    ///
    /// # Errors
    /// No netlink socket, or the first reading failed.
    pub async fn start(options: WatchOptions) -> Result<Self, NetlinkError> {
        let mut follower = Follower::subscribe(options).await?;
        let (publisher, tables) = watch::channel(Arc::new(follower.table.clone()));
        let resyncs = Arc::clone(&follower.resyncs);
        let worker = tokio::spawn(async move { follower.run(&publisher).await }).abort_handle();
        Ok(Self { tables, resyncs, worker })
    }

    /// The links as they are now.
    pub fn snapshot(&self) -> Arc<LinkTable> {
        self.tables.borrow().clone()
    }

    /// Waits until something is different from what this subscription returned last.
    pub async fn changed(&mut self) -> Arc<LinkTable> {
        if self.tables.changed().await.is_err() {
            // The worker ends with the runtime only.
            std::future::pending::<()>().await;
        }
        self.tables.borrow_and_update().clone()
    }

    /// How often events were lost so that everything was read again.
    pub fn resyncs(&self) -> u64 {
        self.resyncs.load(Ordering::Relaxed)
    }
}

type Events = BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

struct Follower {
    options: WatchOptions,
    /// Not the connection that the events come by: an overflow there would lose answers as well.
    rtnetlink: Rtnetlink,
    events: Events,
    connection: AbortHandle,
    table: LinkTable,
    resyncs: Arc<AtomicU64>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What a look at the events came to.
enum News {
    Nothing,
    Changed,
    Lost,
    Closed,
}

impl Follower {
    async fn subscribe(options: WatchOptions) -> Result<Self, NetlinkError> {
        let (events, connection) = open(options)?;
        let rtnetlink = Rtnetlink::connect()?;
        let table = LinkTable::default();
        let mut follower = Self { options, rtnetlink, events, connection, table, resyncs: Arc::default() };
        follower.read_all().await?;
        Ok(follower)
    }

    async fn run(&mut self, publisher: &watch::Sender<Arc<LinkTable>>) {
        loop {
            let published = publisher.borrow().clone();
            let news = self.collect(&published).await;
            match news {
                News::Nothing => continue,
                News::Changed => {}
                News::Lost => {
                    self.resyncs.fetch_add(1, Ordering::Relaxed);
                    debug!("link events were lost; reading all links again");
                    self.read_all_until_it_works().await;
                }
                News::Closed => {
                    self.resyncs.fetch_add(1, Ordering::Relaxed);
                    warn!("the netlink connection for link events broke; subscribing again");
                    self.resubscribe().await;
                }
            }
            publisher.send_if_modified(|current| {
                let differs = **current != self.table;
                if differs {
                    *current = Arc::new(self.table.clone());
                }
                differs
            });
        }
    }

    /// Waits for an event and takes in those that follow within the debounce time, unless one is bad news.
    async fn collect(&mut self, published: &LinkTable) -> News {
        let first = self.events.next().await;
        let mut news = self.take_in(first);
        let deadline = tokio::time::Instant::now() + self.options.debounce;
        while matches!(news, News::Nothing | News::Changed) && !self.table.is_worse_than(published) {
            let Ok(event) = tokio::time::timeout_at(deadline, self.events.next()).await else { break };
            news = match (news, self.take_in(event)) {
                (News::Changed, News::Nothing) => News::Changed,
                (_, newer) => newer,
            };
        }
        news
    }

    fn take_in(&mut self, event: Option<NetlinkMessage<RouteNetlinkMessage>>) -> News {
        match event.map(|event| event.payload) {
            None => News::Closed,
            Some(NetlinkPayload::Overrun(_)) => News::Lost,
            Some(NetlinkPayload::InnerMessage(message)) => {
                if self.table.apply(message) {
                    News::Changed
                } else {
                    News::Nothing
                }
            }
            Some(_) => News::Nothing,
        }
    }

    /// Reads everything; the events that came meanwhile are older or tell it again.
    async fn read_all(&mut self) -> Result<(), NetlinkError> {
        loop {
            self.table = LinkTable::read(&self.rtnetlink).await?.without_loopback_addresses();
            tokio::task::yield_now().await;
            if self.take_in_waiting() {
                return Ok(());
            }
        }
    }

    /// Takes in all events that wait, before anything is published: one of before the reading may say "down" of a
    /// link that came up since, and the one that takes it back lies behind it. False where some were lost.
    fn take_in_waiting(&mut self) -> bool {
        let mut complete = true;
        while let Some(Some(event)) = self.events.next().now_or_never() {
            complete &= !matches!(self.take_in(Some(event)), News::Lost);
        }
        complete
    }

    async fn read_all_until_it_works(&mut self) {
        while let Err(error) = self.read_all().await {
            warn!(%error, "cannot read the links; trying again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn resubscribe(&mut self) {
        loop {
            match Self::subscribe(self.options).await {
                Ok(mut fresh) => {
                    std::mem::swap(&mut self.events, &mut fresh.events);
                    std::mem::swap(&mut self.connection, &mut fresh.connection);
                    std::mem::swap(&mut self.rtnetlink, &mut fresh.rtnetlink);
                    std::mem::swap(&mut self.table, &mut fresh.table);
                    return;
                }
                Err(error) => warn!(%error, "cannot subscribe to link events; trying again"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn open(options: WatchOptions) -> Result<(Events, AbortHandle), NetlinkError> {
    let mut socket = TokioSocket::new(protocols::NETLINK_ROUTE).map_err(NetlinkError::Open)?;
    // Without CAP_NET_ADMIN the limit net.core.rmem_max holds; a smaller buffer is made up for by reading again.
    let sized = rustix::net::sockopt::set_socket_recv_buffer_size_force(
        socket.socket_ref(),
        options.receive_buffer as usize,
    );
    if let Err(error) = sized {
        debug!(%error, "the receive buffer for link events stays at its default");
    }
    leave_out_addresses_of_lo(socket.socket_ref()).map_err(NetlinkError::Open)?;
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let mask = groups.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, mask)).map_err(NetlinkError::Open)?;
    let (connection, _, events) = rtnetlink::from_socket(socket);
    let connection = tokio::spawn(connection).abort_handle();
    Ok((events.map(|(message, _)| message).boxed(), connection))
}

/// VIPs come and go on lo by the thousand, and are renewed every few seconds: their events would fill the queue, and wake
/// everybody who follows the links for nothing.
fn leave_out_addresses_of_lo(socket: &impl AsFd) -> io::Result<()> {
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    // Netlink is in the host's order, which loads take for the network's.
    let kind = |kind: u16| u32::from(kind.to_be());
    let filter = [
        // nlmsg_type.
        SockFilter::new(LOAD_HALF, 0, 0, 4),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, kind(libc::RTM_NEWADDR)),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, kind(libc::RTM_DELADDR)),
        // ifa_index, behind the header (16) and family, prefix, flags and scope of one byte each.
        SockFilter::new(LOAD_WORD, 0, 0, 20),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, LO.to_be()),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    socket2::SockRef::from(socket).attach_filter(&filter)
}
