//! The life of a connection: a backend is found, told of the client, and both are heard until the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::counters::{Ending, Failure};
use super::live::{BackendCounters, Live, Plan};
use super::relay::{End, Ends, Patience, Side, relay, write_all};
use super::sockets;

/// A client that was accepted, on its way to a worker.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) stream: std::net::TcpStream,
    pub(super) client: SocketAddr,
    pub(super) vip: SocketAddr,
    pub(super) live: Arc<Live>,
    /// Tells when it is to end.
    pub(super) cuts: watch::Receiver<u64>,
    /// Its places among the service's connections and the process's.
    pub(super) places: [OwnedSemaphorePermit; 2],
}

/// A backend that has accepted.
struct Backend {
    stream: TcpStream,
    counters: Arc<BackendCounters>,
}

/// Serves a client until its connection ends.
pub(super) async fn serve(guest: Guest) {
    let Guest { stream, client, vip, live, mut cuts, places } = guest;
    let _open = live.flows.open();
    tokio::select! {
        biased;
        // Dropping the connection resets it.
        _ = cuts.changed() => live.endings.count(Ending::Cut),
        outcome = pass_on(stream, client, vip, &live) => match outcome {
            Ok(None) => {}
            Ok(Some(ending)) => live.endings.count(ending),
            Err(failure) => live.failures.count(failure),
        },
    }
    drop(places);
}

async fn pass_on(
    stream: std::net::TcpStream,
    client: SocketAddr,
    vip: SocketAddr,
    live: &Live,
) -> Result<Option<Ending>, Failure> {
    let other = |_| Failure::Other;
    let stream = TcpStream::from_std(stream).map_err(other)?;
    // One that is gone already is nobody's any more.
    sockets::prepare(&stream).map_err(|_| Failure::ClientGone)?;
    let plan = live.plan();
    if !plan.allows(client.ip()) {
        return Err(Failure::NotAllowed);
    }
    let header = plan.service.header.map(|version| version.bytes(client, vip)).transpose().map_err(other)?;
    let backend = tokio::select! {
        // A backend that has accepted is told of a client that is gone by now.
        biased;
        backend = connect(&plan, live, client, vip.port()) => backend?,
        _ = stream.ready(Interest::ERROR) => return Err(Failure::ClientGone),
    };
    let _open = backend.counters.flows.open();
    if let Some(header) = header
        && write_all(&backend.stream, &header).await.is_err()
    {
        return Ok(Some(Ending::BackendReset));
    }
    let ends = Ends {
        client: &stream,
        backend: &backend.stream,
        received: [&live.flows.received, &backend.counters.flows.received],
        sent: [&live.flows.sent, &backend.counters.flows.sent],
    };
    let limits = plan.service.limits;
    Ok(match relay(ends, Patience { open: limits.idle, half_closed: limits.half_closed }).await {
        End::Closed => {
            sockets::close_in_order(&stream);
            sockets::close_in_order(&backend.stream);
            None
        }
        End::Reset(Side::Client) => Some(Ending::ClientReset),
        End::Reset(Side::Backend) => Some(Ending::BackendReset),
        End::Idle => Some(Ending::Idle),
    })
}

/// Connects to the first backend that accepts, in the order of the ring.
async fn connect(plan: &Plan, live: &Live, client: SocketAddr, port: u16) -> Result<Backend, Failure> {
    let service = &plan.service;
    let begun = Instant::now();
    let candidates =
        live.memory().candidates(&service.backends, &plan.ring, service.affinity, client, port, begun);
    let mut last = Failure::NoBackend;
    for index in candidates {
        let (Some(address), Some(counters)) = (plan.backend(index, port), plan.counters.get(index)) else {
            continue;
        };
        let now = Instant::now();
        let until = (now + service.limits.connect_timeout).min(begun + service.limits.connect_total);
        if now >= until {
            break;
        }
        match attempt(address, until).await {
            Ok(stream) => {
                let affinity = service.affinity.is_some();
                live.memory().connected(client.ip(), address.ip(), affinity, Instant::now());
                return Ok(Backend { stream, counters: Arc::clone(counters) });
            }
            Err((failure, why)) => {
                tracing::debug!(service = live.name, backend = %address, "a connection failed: {why}");
                counters.failures.count(failure);
                counters.note_error(format!("cannot connect to {address}: {why}"));
                if failure.is_the_backends() {
                    live.memory().failed(address.ip(), Instant::now());
                }
                last = failure;
            }
        }
    }
    Err(last)
}

async fn attempt(address: SocketAddr, until: Instant) -> Result<TcpStream, (Failure, String)> {
    let failed = |error: io::Error| (Failure::of(&error), error.to_string());
    match timeout_at(until, sockets::connect(address)).await {
        Ok(Ok(stream)) if is_itself(&stream) => Err((Failure::Refused, "nobody listens there".into())),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err((Failure::TimedOut, "no answer in time".into())),
    }
}

/// To a local port out of ip_local_port_range on which nobody listens, a socket can connect to itself (simultaneous open, RFC
/// 9293, 3.5).
fn is_itself(stream: &TcpStream) -> bool {
    let socket = SockRef::from(stream);
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(own), Ok(peer)) => own == peer,
        _ => false,
    }
}
