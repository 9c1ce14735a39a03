//! Asks for a VIP's link-layer address again and again, and keeps every answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use etherparse::{ArpEthIpv4Packet, ArpOperation, PacketBuilder};

use crate::answers::Answers;
use crate::node::Node;
use crate::packet_socket::{PacketSocket, Reader};
use crate::wire::packet::{self, Packet};
use crate::wire::socket_filter;
use crate::{Mac, Stamp};

/// Addresses that questions come from in turn, so that an answer shows which question it belongs to: from 10.0.0.128 and
/// fd00::80 on. Few, because every node that answers by its kernel keeps a neighbour entry for each.
pub const ASKERS: u8 = 64;
const FIRST_ASKER: u8 = 128;

/// A prober for one VIP: broadcast ARP requests, or multicast neighbour solicitations. It stops on drop.
#[derive(Debug)]
pub struct Arping {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<Vec<(Stamp, IpAddr, Mac)>>,
    questions: AtomicU64,
    lost: AtomicU64,
    stop: AtomicBool,
}

// === impl Arping ===

impl Arping {
    /// Asks for `vip` from `client`, one question per `every` (200 us to 1 s; less often if the machine cannot).
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn start(client: &Node, vip: IpAddr, every: Duration) -> Result<Self> {
        let questions: Vec<Vec<u8>> =
            (0..ASKERS).map(|n| question(client.mac(), vip, FIRST_ASKER + n)).collect::<Result<_>>()?;
        let socket = client.run(|| -> Result<_> {
            let socket = PacketSocket::open(&socket_filter(false))?;
            let interface = nix::net::if_::if_nametoindex("eth0").context("find the client's eth0")?;
            socket.bind(interface)?;
            Ok(socket)
        })?;
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread =
            client.thread("arping", move || ask(&theirs, Reader::new(socket), vip, &questions, every))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The answers so far, stamped by the client's kernel.
    pub fn answers(&self) -> Answers {
        self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Those after the first `seen`: for watching while it runs.
    pub fn since(&self, seen: usize) -> Answers {
        let answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(seen..).unwrap_or_default().iter().copied().collect()
    }

    /// Questions asked so far.
    pub fn questions(&self) -> u64 {
        self.shared.questions.load(Ordering::Relaxed)
    }

    /// Answers that were lost for want of room in the socket: a finding of absence is worth something only if this is 0.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Stops asking, waits a moment for late answers, and returns them all.
    ///
    /// # Errors
    /// Why the prober gave up earlier, if it did.
    pub fn stop(mut self) -> Result<Answers> {
        self.finish()?;
        Ok(self.answers())
    }

    fn finish(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => anyhow::bail!("the prober's thread panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Arping {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

fn ask(
    shared: &Shared,
    mut reader: Reader,
    vip: IpAddr,
    questions: &[Vec<u8>],
    every: Duration,
) -> Result<()> {
    const LATE_ANSWERS: Duration = Duration::from_millis(20);
    let mut next = Instant::now();
    for question in questions.iter().cycle() {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        // With the cable out or the link down there is nobody to ask; that is no reason to give up.
        if reader.socket().send(question).is_ok() {
            shared.questions.fetch_add(1, Ordering::Relaxed);
        }
        // Never in bursts: two answers to one question must not become answers to two.
        next = (next + every).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
        collect(shared, &mut reader, vip)?;
    }
    thread::sleep(LATE_ANSWERS);
    collect(shared, &mut reader, vip)
}

/// Reads what has arrived; the kernel stamped it then, so there is no hurry.
fn collect(shared: &Shared, reader: &mut Reader, vip: IpAddr) -> Result<()> {
    while let Some(received) = reader.next()? {
        let Some((_, source, packet)) = packet::decode(received.bytes) else { continue };
        let claims = match &packet {
            Packet::Arp(arp) => arp.sender_mac,
            Packet::NeighborAdvertisement(na) => na.target_mac.unwrap_or(source),
            _ => continue,
        };
        if let (true, Some(asker)) = (packet.answers(vip), packet.asker()) {
            shared.answers.lock().unwrap_or_else(PoisonError::into_inner).push((received.at, asker, claims));
        }
    }
    shared.lost.fetch_add(reader.socket().dropped()?.into(), Ordering::Relaxed);
    Ok(())
}

/// The frame that asks for `vip` from the asker with this host number.
fn question(client: Mac, vip: IpAddr, asker: u8) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    match vip {
        IpAddr::V4(vip) => {
            let asker = Ipv4Addr::new(10, 0, 0, asker);
            let request = ArpEthIpv4Packet {
                operation: ArpOperation::REQUEST,
                sender_mac: client.0,
                sender_ipv4: asker.octets(),
                target_mac: [0; 6],
                target_ipv4: vip.octets(),
            };
            let builder = PacketBuilder::ethernet2(client.0, Mac::BROADCAST.0).arp(request.into());
            builder.write(&mut frame).context("build an ARP request")?;
        }
        IpAddr::V6(vip) => {
            let asker = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, asker.into());
            let [.., x, y, z] = vip.octets();
            let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z];
            let mut payload = vip.octets().to_vec();
            // Source link-layer address option.
            payload.extend([1, 1]);
            payload.extend(client.0);
            let builder = PacketBuilder::ethernet2(client.0, [0x33, 0x33, 0xff, x, y, z])
                .ipv6(asker.octets(), group, 255)
                .icmpv6_raw(135, 0, [0; 4]);
            builder.write(&mut frame, &payload).context("build a neighbour solicitation")?;
        }
    }
    Ok(frame)
}
