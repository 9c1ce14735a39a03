//! Requests to the kernel over netlink: dumps that are consistent, batches whose answers are told apart.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::sys::{AsyncSocket, SocketAddr, protocols};
use rtnetlink::proto::{ConnectionHandle, new_connection};
use rtnetlink::sys::Socket;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

/// Of an answer: the dump was interrupted by a change and may lack or repeat entries (linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 16;

/// How often an interrupted dump is asked for again before what came is taken as it is.
const DUMP_ATTEMPTS: u32 = 8;

/// Requests sent in one datagram. Their answers wait in the receive buffer (about 800 bytes of it each, 208 KiB by
/// default) until all are carried out; what does not fit is lost.
const BATCH: usize = 128;

/// Longer than the routing lock was ever seen to hold a request; after that the answer is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the kernel did not do what it was asked for over netlink.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket, or no permission to make one.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel answered with an error.
    #[error("the kernel refused to {action}: {source}{}", remedy(.source))]
    Refused {
        /// What was asked for.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The connection is closed, or the answer never came.
    #[error("the kernel gave no answer when asked to {action}: netlink answers were lost")]
    Silent {
        /// What was asked for.
        action: &'static str,
    },
}

impl NetlinkError {
    /// Whether there is no route: none at all, or one that says so (`unreachable`, `prohibit`, `blackhole`).
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if is_no_route(source))
    }

    /// Whether the kernel knows nothing of what was asked for.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn is_no_route(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL))
}

fn remedy(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EPERM) { " (CAP_NET_ADMIN is needed)" } else { "" }
}

/// A connection for requests about links, addresses, routes and neighbours.
pub type Rtnetlink = Netlink<RouteNetlinkMessage>;

impl Rtnetlink {
    /// Connects to the network namespace of the calling thread.
    ///
    /// # Errors
    /// No socket. Must be called within a tokio runtime.
    pub fn connect() -> Result<Self, NetlinkError> {
        // Dumps then hold only what was asked for, be it one table of a router that has a million routes in another.
        // Kernels before 4.20 refuse and send all, which the readers choose from anyway.
        Self::open_with(protocols::NETLINK_ROUTE, |socket| drop(socket.set_netlink_get_strict_chk(true)))
    }
}

/// A connection for requests of one netlink family. One request is under way at a time: the kernel refuses a second
/// dump on a socket whose first is not read to its end.
#[derive(Debug)]
pub struct Netlink<T: Debug> {
    handle: Mutex<ConnectionHandle<T>>,
    worker: AbortHandle,
}

impl<T: Debug> Drop for Netlink<T> {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl<T> Netlink<T>
where
    T: NetlinkSerializable + NetlinkDeserializable + Debug + Clone + Unpin + Send + 'static,
{
    pub(crate) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        Self::open_with(protocol, |_| {})
    }

    fn open_with(protocol: isize, prepare: impl FnOnce(&Socket)) -> Result<Self, NetlinkError> {
        let (mut connection, handle, _) = new_connection::<T>(protocol).map_err(NetlinkError::Open)?;
        prepare(connection.socket_mut().socket_ref());
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let worker = tokio::spawn(connection).abort_handle();
        Ok(Self { handle: Mutex::new(handle), worker })
    }

    /// All entries that `request` asks for, as they were at one moment as far as the kernel can tell.
    pub(crate) async fn dump(&self, action: &'static str, request: T) -> Result<Vec<T>, NetlinkError> {
        let handle = self.handle.lock().await;
        let mut attempt = 1;
        loop {
            let answers = handle
                .request(message(request.clone(), NLM_F_REQUEST | NLM_F_DUMP), SocketAddr::new(0, 0))
                .map_err(|_| NetlinkError::Silent { action })?;
            let Dump { entries, interrupted } = collect(action, answers).await?;
            if !interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(entries);
            }
            attempt += 1;
        }
    }

    /// The one entry that `request` names; `None` where there is none.
    pub(crate) async fn get(&self, action: &'static str, request: T) -> Result<Option<T>, NetlinkError> {
        let handle = self.handle.lock().await;
        let answers = handle
            .request(message(request, NLM_F_REQUEST), SocketAddr::new(0, 0))
            .map_err(|_| NetlinkError::Silent { action })?;
        match collect(action, answers).await {
            Ok(dump) => Ok(dump.entries.into_iter().next()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Carries out `requests` in their order, as few system calls as possible; one failing does not stop the others.
    ///
    /// The answers are in the order of the requests.
    pub(crate) async fn batch(
        &self,
        action: &'static str,
        requests: Vec<(T, u16)>,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let handle = self.handle.lock().await;
        let mut results = Vec::with_capacity(requests.len());
        for chunk in requests.chunks(BATCH) {
            let messages: Vec<_> = chunk
                .iter()
                .map(|(request, flags)| message(request.clone(), NLM_F_REQUEST | NLM_F_ACK | flags))
                .collect();
            let mut answers = handle
                .request_batch(messages, SocketAddr::new(0, 0))
                .map_err(|_| NetlinkError::Silent { action })?;
            let wanted = results.len() + chunk.len();
            while let Some(answer) = next(action, &mut answers).await? {
                if let NetlinkPayload::Error(answer) = answer.payload {
                    results.push(match answer.code {
                        None => Ok(()),
                        Some(_) => Err(NetlinkError::Refused { action, source: answer.to_io() }),
                    });
                }
            }
            if results.len() != wanted {
                return Err(NetlinkError::Silent { action });
            }
        }
        Ok(results)
    }
}

struct Dump<T> {
    entries: Vec<T>,
    interrupted: bool,
}

async fn collect<T>(
    action: &'static str,
    mut answers: impl Stream<Item = NetlinkMessage<T>> + Unpin,
) -> Result<Dump<T>, NetlinkError> {
    let mut dump = Dump { entries: Vec::new(), interrupted: false };
    while let Some(answer) = next(action, &mut answers).await? {
        dump.interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(entry) => dump.entries.push(entry),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(NetlinkError::Refused { action, source: error.to_io() });
            }
            NetlinkPayload::Done(done) if done.code < 0 => {
                let source = io::Error::from_raw_os_error(-done.code);
                return Err(NetlinkError::Refused { action, source });
            }
            _ => {}
        }
    }
    Ok(dump)
}

async fn next<T>(
    action: &'static str,
    answers: &mut (impl Stream<Item = NetlinkMessage<T>> + Unpin),
) -> Result<Option<NetlinkMessage<T>>, NetlinkError> {
    tokio::time::timeout(PATIENCE, answers.next()).await.map_err(|_| NetlinkError::Silent { action })
}

fn message<T>(request: T, flags: u16) -> NetlinkMessage<T> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request))
}
