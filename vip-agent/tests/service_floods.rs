//! Services under load: connections with traffic while backends come and go, and floods of SYNs from nobody.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/steered.rs"]
mod steered;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agents::{Ask as _, Conversation, SOON, VIPS, times};
use anyhow::{Context as _, Result, anyhow, ensure};
use etherparse::PacketBuilder;
use serde_json::{Value, json};
use steered::{addresses, hold_vips, lab, service, steering, wait_up, web_port};
use vip_common::steering::tables::{MAX_FLOWS, NEW_FLOWS_ADMITTED};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, Node, WEB_PORT, wait};

const BACKENDS: [usize; 3] = [3, 4, 5];
/// Conversations of a thread.
const EACH: usize = 25;

/// An agent with a service for each VIP over these backends, by node and weight, which asks them for a connection.
fn agent(lab: &Lab, backends: &[(usize, u16)]) -> AgentBuilder {
    let probe = json!([{"name": "web", "tcp": {"address": format!("{{address}}:{WEB_PORT}")},
                        "interval": "100ms", "timeout": "1s", "fall": 2, "rise": 1}]);
    let service = |(name, vip): (&str, &str)| {
        let numbers: Vec<usize> = backends.iter().map(|(number, _)| *number).collect();
        let listed = addresses(lab, vip, &numbers).into_iter().zip(backends);
        let backends = listed
            .map(|(address, (_, weight))| json!({"address": address, "weight": weight, "probe": "web"}))
            .collect::<Vec<_>>();
        service(name, vip, "dr", web_port(), &[], json!({"backends": backends}))
    };
    let services: Vec<Value> = ["four", "six"].into_iter().zip(VIPS).map(service).collect();
    steering(lab, 1, &services).set("probes", probe)
}

fn start(lab: &Lab, backends: &[(usize, u16)]) -> Result<Agent> {
    let agent = agent(lab, backends).start()?;
    agent.wait_state("active", SOON)?;
    wait_up(&agent, 2 * backends.len())?;
    Ok(agent)
}

/// Conversations that go on, each all the time, until they are ended.
struct Chatter {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Chatter {
    /// `mortal`: whose answers may end.
    fn start(client: &Node, count: usize, mortal: Option<&'static str>) -> Result<Self> {
        let mut chatter = Self { stop: Arc::default(), asked: Arc::default(), threads: Vec::new() };
        for vip in VIPS.into_iter().cycle().take(count / EACH) {
            let open = |_| -> Result<(Conversation, String)> {
                let mut conversation = Conversation::open(client, vip)?;
                let by = conversation.ask()?;
                Ok((conversation, by))
            };
            let mut open: Vec<(Conversation, String)> = (0..EACH).map(open).collect::<Result<_>>()?;
            let (stop, asked) = (Arc::clone(&chatter.stop), Arc::clone(&chatter.asked));
            chatter.threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut ended = Vec::new();
                    for (number, (conversation, by)) in open.iter_mut().enumerate() {
                        match conversation.ask() {
                            Ok(now) => ensure!(now == *by, "{by} answered, and now {now}"),
                            Err(_) if mortal == Some(by.as_str()) => ended.push(number),
                            Err(error) => {
                                return Err(error.context(format!("a conversation with {by} broke")));
                            }
                        }
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                    ended.into_iter().rev().for_each(|number| drop(open.remove(number)));
                }
                Ok(())
            }));
        }
        Ok(chatter)
    }

    /// Waits until each has been asked once more, or one broke.
    fn goes_on(&self) -> Result<()> {
        let goal = self.asked.load(Ordering::Relaxed) + 2 * EACH * self.threads.len();
        let broken = || self.threads.iter().any(JoinHandle::is_finished);
        wait::until(SOON, || broken() || self.asked.load(Ordering::Relaxed) >= goal)
    }

    fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a thread of the client panicked"))??;
        }
        Ok(self.asked.load(Ordering::Relaxed))
    }
}

#[test]
fn no_busy_connection_of_an_unchanged_backend_breaks_while_others_come_and_go() -> Result<()> {
    let lab = lab().build()?;
    hold_vips(&lab, &BACKENDS)?;
    let all = [(3, 1), (4, 1), (5, 1)];
    let first = start(&lab, &all)?;
    let chatter = Chatter::start(lab.client(), 200, Some("node5"))?;
    for _ in 0..times(1, 20) {
        for backends in [&[(3, 1), (4, 1)][..], &[(3, 1), (4, 3), (5, 2)], &[(4, 1), (3, 5), (5, 0)], &all] {
            first.reload(&agent(&lab, backends))?;
            chatter.goes_on()?;
        }
        // Dead, and back.
        lab.stop_web(5);
        wait_up(&first, 4)?;
        chatter.goes_on()?;
        lab.start_web(5)?;
        wait_up(&first, 6)?;
        chatter.goes_on()?;
    }
    let asked = chatter.end()?;
    ensure!(asked > 200, "{asked} questions");
    Ok(())
}

/// SYNs to a VIP of one family, each from another client: of 198.18.0.0/15 (RFC 2544) or 2001:2::/48 (RFC 5180).
struct Syns {
    frame: Vec<u8>,
    /// Where the low four bytes of the client's address stand, and the TCP checksum.
    places: [usize; 2],
    /// The sum of the segment without both.
    sum: u32,
}

impl Syns {
    fn new(lab: &Lab, vip: &str) -> Result<Self> {
        let link = PacketBuilder::ethernet2(lab.client().mac().0, lab.node(1).mac().0);
        let mut frame = Vec::new();
        let places = if let Ok(vip) = vip.parse::<std::net::Ipv4Addr>() {
            let ip = link.ipv4([198, 18, 0, 0], vip.octets(), 64);
            ip.tcp(40_000, WEB_PORT, 7, 64_240).syn().write(&mut frame, &[])?;
            [26, 50]
        } else {
            let nobody: std::net::Ipv6Addr = "2001:2::".parse()?;
            let ip = link.ipv6(nobody.octets(), vip.parse::<std::net::Ipv6Addr>()?.octets(), 64);
            ip.tcp(40_000, WEB_PORT, 7, 64_240).syn().write(&mut frame, &[])?;
            [34, 70]
        };
        let [_, checksum] = places;
        let sum = u32::from(!u16::from_be_bytes([frame[checksum], frame[checksum + 1]]));
        Ok(Self { frame, places, sum })
    }

    /// The frame of a client. In IPv4 its header's checksum is put right too.
    fn frame(&self, client: u32) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let [at, checksum] = self.places;
        let client = client & 0x0001_ffff;
        let old = u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let new = old + client;
        frame[at..at + 4].copy_from_slice(&new.to_be_bytes());
        let halves = |word: u32| (word >> 16) + (word & 0xffff);
        // What was in the sum is 0 but for the network's half, which client bits may raise.
        let change = halves(new) + 2 * 0xffff - halves(old);
        let folded = |sum: u32| halves(halves(sum)) as u16;
        frame[checksum..checksum + 2].copy_from_slice(&(!folded(self.sum + change)).to_be_bytes());
        if at == 26 {
            let header = u32::from(!u16::from_be_bytes([frame[24], frame[25]]));
            frame[24..26].copy_from_slice(&(!folded(header + change)).to_be_bytes());
        }
        frame
    }
}

/// What was counted of packets that went to a backend, by outcome, of both services.
fn counted(agent: &Agent, outcome: &str) -> Result<u64> {
    let status = agent.status()?.raw;
    let services = status["services"].as_array().context("services")?;
    Ok(services.iter().filter_map(|service| service["outcomes"][outcome].as_u64()).sum())
}

#[test]
fn a_flood_of_spoofed_syns_harms_no_connection_and_fills_no_table_beyond_its_bounds() -> Result<()> {
    let lab = lab().build()?;
    hold_vips(&lab, &BACKENDS)?;
    let first = start(&lab, &[(3, 1), (4, 1), (5, 1)])?;
    let chatter = Chatter::start(lab.client(), 50, None)?;
    // Drained, so that only the table of flows leads there.
    first.reload(&agent(&lab, &[(3, 0), (4, 1), (5, 1)]))?;
    chatter.goes_on()?;
    let resident = first.process().resident_kib()?;
    let transitions = first.edge()?.transitions;
    let before = ["new_flow", "unnoted"].map(|outcome| counted(&first, outcome));
    let frames = times(50_000, 5_000_000);
    let begun = Instant::now();
    for vip in VIPS {
        let syns = Syns::new(&lab, vip)?;
        let client = lab.client().clone();
        client.inject((0..frames).map(|number| syns.frame(number as u32)), Duration::ZERO)?;
    }
    let took = begun.elapsed();
    chatter.goes_on()?;
    let [noted, unnoted] = ["new_flow", "unnoted"].map(|outcome| counted(&first, outcome));
    let ([noted_before, unnoted_before], noted, unnoted) = (before, noted?, unnoted?);
    let (noted, unnoted) = (noted - noted_before?, unnoted - unnoted_before?);
    let sent = 2 * frames as u64;
    println!("{sent} SYNs in {took:?}: {noted} noted, {unnoted} not");
    // Each went to a backend, noted or by the ring alone; what is noted in a span of time has its bound.
    ensure!((sent..sent + 1000).contains(&(noted + unnoted)), "{noted} and {unnoted} of {sent}");
    let spans = u64::try_from(took.as_millis() / 100 + 2)?;
    let cpus = std::thread::available_parallelism()?.get() as u64;
    ensure!(noted <= spans * cpus * NEW_FLOWS_ADMITTED, "{noted} of {sent} in {took:?}");
    // Counted in the background; those of the first may be over by now.
    let flooded = |status: &Value| status["services"][1]["active_flows"].as_u64() > Some(1000);
    let status = first.wait_for("counted", flooded)?;
    let services = status["services"].as_array().context("services")?;
    let flows: u64 = services.iter().filter_map(|service| service["active_flows"].as_u64()).sum();
    ensure!(flows <= u64::from(MAX_FLOWS), "{flows} flows");
    // Old and new ones are served, the agent has not grown, and it owns.
    for vip in VIPS {
        let by = Conversation::open(lab.client(), vip)?.ask()?;
        ensure!(["node4", "node5"].contains(&by.as_str()), "{by}");
    }
    let grown = first.process().resident_kib()?.saturating_sub(resident);
    ensure!(grown < 8 << 10, "the agent has grown by {grown} KiB");
    let edge = first.edge()?;
    ensure!(edge.owned && edge.transitions == transitions, "{edge:?}");
    ensure!(chatter.end()? > 100);
    Ok(())
}

#[test]
fn the_floods_frames_are_whole() -> Result<()> {
    let lab = Lab::builder().nodes(1).clients(1).vips(VIPS).build()?;
    for vip in VIPS {
        let syns = Syns::new(&lab, vip)?;
        for client in [0, 1, 0xffff, 0x1_0000, 0x1_ffff, 77_777] {
            let frame = syns.frame(client);
            let packet = etherparse::SlicedPacket::from_ethernet(&frame)?;
            let tcp = packet.transport.context("no transport")?;
            let etherparse::TransportSlice::Tcp(tcp) = tcp else { anyhow::bail!("no TCP") };
            let sum = match packet.net.context("no network header")? {
                etherparse::NetSlice::Ipv4(ip) => {
                    let header = ip.header();
                    ensure!(header.header_checksum() == header.to_header().calc_header_checksum());
                    tcp.calc_checksum_ipv4(header.source(), header.destination())?
                }
                etherparse::NetSlice::Ipv6(ip) => {
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())?
                }
                other => anyhow::bail!("{other:?}"),
            };
            ensure!(sum == tcp.checksum(), "client {client} of {vip}");
        }
    }
    Ok(())
}
