//! What crosses the switch's ports: captured with the kernel's stamps, decoded, and asked about.

mod filter;
pub mod packet;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::answers::Answers;
use crate::node::Node;
use crate::packet_socket::{PacketSocket, Reader};
use crate::{Mac, Stamp};

pub(crate) use filter::capture as socket_filter;
pub use packet::{Advert, Arp, NeighborAdvertisement, NeighborSolicitation, Packet, TcpReset};

/// How long the reader waits before it looks whether to stop.
const NAP: Duration = Duration::from_millis(20);

/// A frame at a port of the switch.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When the kernel took it: for one from a node, when the node's side sent it.
    pub at: Stamp,
    /// The port: name of the node (or client) at its other end.
    pub port: Arc<str>,
    /// Which way it went.
    pub direction: Direction,
    /// Source in the Ethernet header.
    pub source: Mac,
    /// Destination in the Ethernet header.
    pub destination: Mac,
    /// What it is.
    pub packet: Packet,
    /// All of it, without the tag that the kernel may keep beside it.
    pub bytes: Box<[u8]>,
}

/// Which way a frame goes through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the node into the switch.
    FromNode,
    /// From the switch to the node.
    ToNode,
}

/// A running capture of ARP, neighbour discovery, VRRP and TCP resets from nodes into the switch. It stops on drop.
///
/// What goes from the switch to nodes is not captured unless asked for by [`Wire::start_both_ways`].
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    frames: Mutex<Vec<Frame>>,
    stop: AtomicBool,
    lost: AtomicU64,
}

// === impl Wire ===

impl Wire {
    pub(crate) fn start(switch: &Node) -> Result<Self> {
        Self::capture(switch, false)
    }

    /// Captures also what the switch sends to nodes: a flood is then seen once per port.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn start_both_ways(switch: &crate::Switch) -> Result<Self> {
        Self::capture(switch.node(), true)
    }

    fn capture(switch: &Node, both_ways: bool) -> Result<Self> {
        let (socket, ports) = switch.run(move || -> Result<_> {
            let socket = PacketSocket::open(&filter::capture(both_ways))?;
            socket.bind(0)?;
            Ok((socket, ports()?))
        })?;
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let reader = switch.thread("wire", move || read(&theirs, Reader::new(socket), &ports))?;
        Ok(Self { shared, reader: Some(reader) })
    }

    /// The captured frames that `wanted` likes, in order of their stamps.
    pub fn frames(&self, mut wanted: impl FnMut(&Frame) -> bool) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.lock().iter().filter(|frame| wanted(frame)).cloned().collect();
        frames.sort_by_key(|frame| frame.at);
        frames
    }

    /// The first frame at or after `after` that `wanted` likes, of those captured so far.
    pub fn first(&self, after: Stamp, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        self.lock()
            .iter()
            .filter(|frame| frame.at >= after && wanted(frame))
            .min_by_key(|frame| frame.at)
            .cloned()
    }

    /// The last frame before `before` that `wanted` likes.
    pub fn last(&self, before: Stamp, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        self.lock()
            .iter()
            .filter(|frame| frame.at < before && wanted(frame))
            .max_by_key(|frame| frame.at)
            .cloned()
    }

    /// Waits for such a frame.
    ///
    /// # Errors
    /// There is none after `timeout`.
    pub fn wait_first(
        &self,
        after: Stamp,
        timeout: Duration,
        mut wanted: impl FnMut(&Frame) -> bool,
    ) -> Result<Frame> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(frame) = self.first(after, &mut wanted) {
                return Ok(frame);
            }
            if Instant::now() > deadline {
                bail!("no such frame on the wire within {timeout:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All adverts that came from `node`.
    pub fn adverts(&self, node: &Node) -> Vec<(Stamp, Advert)> {
        let frames = self.frames(|frame| frame.is_from(node) && frame.advert().is_some());
        frames.iter().filter_map(|frame| Some((frame.at, frame.advert()?.clone()))).collect()
    }

    /// Announcements (gratuitous ARP, unsolicited NA) of `vip` by whomever.
    pub fn announcements_of(&self, vip: IpAddr) -> Vec<Frame> {
        self.frames(|frame| frame.direction == Direction::FromNode && frame.packet.announces(vip))
    }

    /// Who answered questions for `vip`, as the ports saw it.
    pub fn answers_for(&self, vip: IpAddr) -> Answers {
        let answers =
            self.frames(|frame| frame.direction == Direction::FromNode && frame.packet.answers(vip));
        answers.iter().filter_map(|frame| Some((frame.at, frame.packet.asker()?, frame.source))).collect()
    }

    /// Frames that the capture lost for want of room: a finding of absence is worth something only if this is 0.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Forgets what was captured so far.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

// === impl Frame ===

impl Frame {
    /// Whether `node` sent it.
    pub fn is_from(&self, node: &Node) -> bool {
        self.direction == Direction::FromNode && *self.port == *node.name()
    }

    /// The advert that it is.
    pub fn advert(&self) -> Option<&Advert> {
        if let Packet::Vrrp(advert) = &self.packet { Some(advert) } else { None }
    }
}

fn read(shared: &Shared, mut reader: Reader, ports: &HashMap<u32, Arc<str>>) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        if !reader.wait(NAP)? {
            continue;
        }
        let mut frames = shared.frames.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(received) = reader.next()? {
            // The bridge's own interface sees floods once more.
            let Some(port) = ports.get(&received.interface) else { continue };
            let Some((destination, source, packet)) = packet::decode(received.bytes) else { continue };
            let direction = if received.outgoing { Direction::ToNode } else { Direction::FromNode };
            frames.push(Frame {
                at: received.at,
                port: Arc::clone(port),
                direction,
                source,
                destination,
                packet,
                bytes: received.bytes.into(),
            });
        }
        drop(frames);
        shared.lost.fetch_add(reader.socket().dropped()?.into(), Ordering::Relaxed);
    }
    Ok(())
}

/// Index and name of every interface here but the bridge and `lo`.
fn ports() -> Result<HashMap<u32, Arc<str>>> {
    let interfaces = nix::net::if_::if_nameindex().context("list the switch's interfaces")?;
    let named = interfaces.iter().map(|interface| (interface.index(), interface.name().to_string_lossy()));
    Ok(named
        .filter(|(_, name)| name != "lo" && name != "br0")
        .map(|(index, name)| (index, Arc::from(name.as_ref())))
        .collect())
}
