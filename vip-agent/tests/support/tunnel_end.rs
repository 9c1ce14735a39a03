//! The far end of tunnels, for kernels without ipip and ip6_tunnel: what comes out of one goes into the node's own stack.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{IpSlice, Ipv4HeaderSlice};
use socket2::{Domain, Protocol, Socket, Type};
use vip_lab::Node;

/// The protocol of sockets that send whole IP packets.
const RAW: i32 = 255;

/// Takes packets out of tunnels to this node: IPv4 in IPv4 and IPv6, IPv6 in IPv6. The stack verifies the checksums of what
/// comes out, headers are looked at here. It stops on drop.
#[derive(Debug)]
pub struct TunnelEnd {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

/// What came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Packets.
    pub packets: usize,
    /// The length of the longest, outer header and all.
    pub longest: usize,
    /// What was wrong with the first one that nobody should have sent.
    pub wrong: Option<String>,
}

impl TunnelEnd {
    pub fn start(node: &Node) -> Result<Self> {
        let mut end = Self { stop: Arc::default(), seen: Arc::default(), threads: Vec::new() };
        for (outer, inner) in
            [(Domain::IPV4, Domain::IPV4), (Domain::IPV6, Domain::IPV4), (Domain::IPV6, Domain::IPV6)]
        {
            let sockets = node.run(move || -> Result<(Socket, Socket)> {
                let protocol = if inner == Domain::IPV4 { 4 } else { 41 };
                let from = Socket::new(outer, Type::RAW, Some(Protocol::from(protocol)))?;
                from.set_recv_buffer_size(4 << 20)?;
                from.set_read_timeout(Some(Duration::from_millis(50)))?;
                Ok((from, Socket::new(inner, Type::RAW, Some(Protocol::from(RAW)))?))
            });
            let (from, to) = sockets.context("open the sockets of a tunnel's end")?;
            let (stop, seen) = (Arc::clone(&end.stop), Arc::clone(&end.seen));
            let v4 = outer == Domain::IPV4;
            end.threads.push(node.thread("tunnel", move || receive(&stop, &seen, from, &to, v4))?);
        }
        Ok(end)
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::default();
    }
}

impl Drop for TunnelEnd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn receive(stop: &AtomicBool, seen: &Mutex<Seen>, mut from: Socket, to: &Socket, outer4: bool) {
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        // A time-out is the chance to stop.
        let Ok(length) = from.read(&mut buffer) else { continue };
        let (packet, outer) = if outer4 {
            // Such a socket gives the outer header, one of IPv6 does not.
            match outer_header(&buffer[..length]) {
                Ok(header) => (&buffer[header..length], header),
                Err(error) => {
                    note(seen, length, Some(format!("{error:#}")));
                    continue;
                }
            }
        } else {
            (&buffer[..length], 40)
        };
        let target = whole(packet);
        let wrong = target.as_ref().err().map(|error| format!("{error:#}"));
        note(seen, outer + packet.len(), wrong);
        if let Ok(target) = target {
            let _ = to.send_to(packet, &target.into());
        }
    }
}

fn note(seen: &Mutex<Seen>, length: usize, wrong: Option<String>) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.packets += 1;
    seen.longest = seen.longest.max(length);
    seen.wrong = seen.wrong.take().or(wrong);
}

/// Looks at the outer header, and says how long it is.
fn outer_header(packet: &[u8]) -> Result<usize> {
    let header = Ipv4HeaderSlice::from_slice(packet)?;
    ensure!(header.dont_fragment(), "the outer packet may be fragmented");
    ensure!(header.header_checksum() == header.to_header().calc_header_checksum(), "its checksum is wrong");
    ensure!(usize::from(header.total_len()) == packet.len(), "its length is wrong");
    Ok(header.slice().len())
}

/// Looks at the packet that came out: where it goes.
fn whole(packet: &[u8]) -> Result<SocketAddr> {
    match IpSlice::from_slice(packet)? {
        IpSlice::Ipv4(inner) => {
            let header = inner.header();
            let sum = header.to_header().calc_header_checksum();
            ensure!(header.header_checksum() == sum, "an inner header's checksum is wrong");
            ensure!(usize::from(header.total_len()) == packet.len(), "an inner packet's length is wrong");
            ensure!(header.ttl() == 63, "{} hops left, not one less than 64", header.ttl());
            Ok(SocketAddr::new(Ipv4Addr::from(header.destination()).into(), 0))
        }
        IpSlice::Ipv6(inner) => {
            let header = inner.header();
            let length = usize::from(header.payload_length()) + 40;
            ensure!(length == packet.len(), "an inner packet's length is wrong");
            ensure!(header.hop_limit() == 63, "{} hops left, not one less than 64", header.hop_limit());
            Ok(SocketAddr::new(Ipv6Addr::from(header.destination()).into(), 0))
        }
        #[allow(unreachable_patterns, reason = "versions of etherparse differ")]
        _ => bail!("no IP packet"),
    }
}
