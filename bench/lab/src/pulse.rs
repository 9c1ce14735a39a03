//! A fine-grained outage meter: numbered UDP datagrams to the echo behind a VIP, light enough for several thousand a second.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::clock::longest_gap;
use crate::node::Node;
use crate::{Stamp, WEB_PORT};

/// A running meter for one VIP. It stops on drop.
#[derive(Debug)]
pub struct Pulse {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    beats: Mutex<Vec<Beat>>,
    stop: AtomicBool,
}

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// When it was sent.
    pub sent: Stamp,
    /// Which node echoed it, if one did.
    pub echoed_by: Option<Arc<str>>,
}

/// The datagrams of a meter, in the order they were sent.
#[derive(Clone, Debug, Default)]
pub struct PulseReport {
    beats: Vec<Beat>,
}

// === impl Pulse ===

impl Pulse {
    /// Sends one datagram to `vip` per `every` (less often if the machine cannot).
    ///
    /// # Errors
    /// The client has no route to the VIP.
    pub fn start(client: &Node, vip: IpAddr, every: Duration) -> Result<Self> {
        let socket = client.run(move || connect(vip))?;
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread = client.thread("pulse", move || beat(&theirs, &socket, every))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The datagrams so far; the last ones may still be on their way.
    pub fn report(&self) -> PulseReport {
        PulseReport { beats: self.shared.beats.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }

    /// Stops sending, waits a moment for late echoes, and reports.
    pub fn stop(mut self) -> PulseReport {
        self.finish();
        self.report()
    }

    fn finish(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.finish();
    }
}

// === impl PulseReport ===

impl PulseReport {
    /// In the order they were sent.
    pub fn beats(&self) -> &[Beat] {
        &self.beats
    }

    /// How many were not echoed.
    pub fn lost(&self) -> usize {
        self.beats.iter().filter(|beat| beat.echoed_by.is_none()).count()
    }

    /// How many each node echoed.
    pub fn echoed_by(&self) -> BTreeMap<Arc<str>, usize> {
        let mut counts = BTreeMap::new();
        for node in self.beats.iter().filter_map(|beat| beat.echoed_by.as_ref()) {
            *counts.entry(Arc::clone(node)).or_default() += 1;
        }
        counts
    }

    /// The longest outage that has a part in `from` to `to`: from the last datagram echoed before it to the first echoed
    /// after it, by the times they were sent.
    pub fn gap_around(&self, from: Stamp, to: Stamp) -> Duration {
        let echoed: Vec<Stamp> =
            self.beats.iter().filter(|beat| beat.echoed_by.is_some()).map(|beat| beat.sent).collect();
        longest_gap(&echoed, from, to)
    }

    /// The longest outage.
    pub fn gap(&self) -> Duration {
        self.gap_around(Stamp::MIN, Stamp::MAX)
    }
}

// === the meter's thread ===

fn connect(vip: IpAddr) -> Result<UdpSocket> {
    let any: IpAddr = if vip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).context("bind a UDP socket")?;
    socket.connect(SocketAddr::new(vip, WEB_PORT)).with_context(|| format!("find the route to {vip}"))?;
    socket.set_nonblocking(true).context("make a UDP socket non-blocking")?;
    Ok(socket)
}

fn beat(shared: &Shared, socket: &UdpSocket, every: Duration) {
    const LATE_ECHOES: Duration = Duration::from_millis(50);
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = {
            let mut beats = shared.beats.lock().unwrap_or_else(PoisonError::into_inner);
            beats.push(Beat { sent: Stamp::now(), echoed_by: None });
            beats.len() as u64 - 1
        };
        // What cannot be sent is not echoed, which is what the meter is to find out.
        let _ = socket.send(&number.to_be_bytes());
        next = (next + every).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
        collect(shared, socket, &mut names);
    }
    thread::sleep(LATE_ECHOES);
    collect(shared, socket, &mut names);
}

fn collect(shared: &Shared, socket: &UdpSocket, names: &mut Vec<Arc<str>>) {
    let mut echo = [0; 128];
    loop {
        let length = match socket.recv(&mut echo) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // An ICMP error about an earlier datagram; the next call goes on.
            Err(_) => continue,
        };
        let Some((number, name)) = echo[..length].split_first_chunk() else { continue };
        let Ok(number) = usize::try_from(u64::from_be_bytes(*number)) else { continue };
        let name = intern(names, &String::from_utf8_lossy(name));
        let mut beats = shared.beats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(beat) = beats.get_mut(number) {
            beat.echoed_by = Some(name);
        }
    }
}

fn intern(names: &mut Vec<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = names.iter().find(|known| &***known == name) {
        return Arc::clone(known);
    }
    names.push(name.into());
    name.into()
}
