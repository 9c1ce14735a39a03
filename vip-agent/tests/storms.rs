//! What does not belong on the wire: malformed adverts, strangers' adverts, storms. Nothing moves, nothing grows.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/watch.rs"]
mod watch;

use std::net::Ipv4Addr;
use std::time::Duration;

use agents::{Ask as _, SOON, VIPS, agent, ms, pair};
use anyhow::{Result, ensure};
use etherparse::{ArpEthIpv4Packet, ArpOperation, IpNumber, Ipv4Header, PacketBuilder};
use vip_lab::agent::Agent;
use vip_lab::{Lab, Mac, Stamp};
use watch::Watch;

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 0, 0, 18];
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
const STRANGER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 99];
/// More than this an agent must not grow by, whatever it hears.
const GROWTH_KIB: u64 = 2 * 1024;

/// An advert over IPv4 that would take the VIPs from anyone: VRID 51, priority 255, 100 ms, 10.0.0.50.
struct Forged {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    destination_mac: [u8; 6],
    ttl: u8,
    message: Vec<u8>,
    right_checksum: bool,
}

impl Forged {
    fn new() -> Self {
        Self {
            source: STRANGER,
            destination: GROUP,
            destination_mac: GROUP_MAC,
            ttl: 255,
            message: vec![0x31, 51, 255, 1, 0, 10, 0, 0, 10, 0, 0, 50],
            right_checksum: true,
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut forged = Self::new();
        change(&mut forged);
        forged.frame()
    }

    fn frame(mut self) -> Vec<u8> {
        if self.right_checksum && self.message.len() >= 8 {
            let sum = self.checksum();
            self.message[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        let length = u16::try_from(self.message.len()).expect("it fits a packet");
        let (source, destination) = (self.source.octets(), self.destination.octets());
        let header =
            Ipv4Header::new(length, self.ttl, IpNumber::VRRP, source, destination).expect("a header");
        let builder = PacketBuilder::ethernet2(STRANGER_MAC, self.destination_mac);
        let builder = builder.ip(etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default()));
        let mut frame = Vec::new();
        builder.write(&mut frame, IpNumber::VRRP, &self.message).expect("a frame");
        frame
    }

    /// With the pseudo-header, as keepalived has it.
    fn checksum(&self) -> u16 {
        let length = u16::try_from(self.message.len()).expect("it fits a packet");
        let pseudo =
            [&self.source.octets()[..], &self.destination.octets(), &[0, 112], &length.to_be_bytes()];
        let mut bytes = [&pseudo.concat()[..], &self.message].concat();
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        let words = bytes.as_chunks::<2>().0.iter();
        let mut sum: u32 = words.map(|&word| u32::from(u16::from_be_bytes(word))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).expect("folded")
    }
}

/// Adverts that RFC 9568, 7.1, and the IP stack want discarded, by what is wrong with them.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("shorter than its address count says", Forged::with(|advert| advert.message.truncate(8))),
        ("longer than its address count says", Forged::with(|advert| advert.message.extend([0; 4]))),
        ("oversized", Forged::with(|advert| advert.message.resize(1480, 0xaa))),
        (
            "garbage",
            Forged::with(|advert| {
                advert.message = (0..60).map(|n: u8| n.wrapping_mul(167)).collect();
                advert.message[1] = 51;
            }),
        ),
        ("TTL 254", Forged::with(|advert| advert.ttl = 254)),
        ("wrong checksum", Forged::with(|advert| advert.right_checksum = false)),
        ("version 2", Forged::with(|advert| advert.message[0] = 0x21)),
        ("version 4", Forged::with(|advert| advert.message[0] = 0x41)),
        ("type 2", Forged::with(|advert| advert.message[0] = 0x32)),
        (
            "no addresses",
            Forged::with(|advert| {
                advert.message[3] = 0;
                advert.message.truncate(8);
            }),
        ),
        ("interval 0", Forged::with(|advert| advert.message[5] = 0)),
        ("another group", Forged::with(|advert| advert.destination = Ipv4Addr::new(224, 0, 0, 1))),
    ]
}

/// Not even recognisable as adverts of an instance.
fn unrecognisable() -> Vec<Vec<u8>> {
    let whole = Forged::new().frame();
    let mut cut: Vec<Vec<u8>> = (15..whole.len()).map(|length| whole[..length].to_vec()).collect();
    cut.push(Forged::with(|advert| advert.message.clear()));
    cut.push(Forged::with(|advert| advert.message.truncate(4)));
    cut.push(Forged::with(|advert| advert.message[1] = 0));
    cut.push(Forged::with(|advert| advert.source = Ipv4Addr::new(224, 0, 0, 99)));
    cut.push(Forged::with(|advert| advert.source = Ipv4Addr::LOCALHOST));
    cut
}

/// How an agent is before a storm, to be compared with how it is after.
struct Before<'agent> {
    agent: &'agent Agent,
    state: String,
    transitions: u64,
    discarded: u64,
    resident_kib: u64,
    log_lines: usize,
}

impl<'agent> Before<'agent> {
    fn look(agent: &'agent Agent) -> Result<Self> {
        let edge = agent.edge_json()?;
        Ok(Self {
            agent,
            state: edge["state"].as_str().unwrap_or_default().to_owned(),
            transitions: edge["transitions"].as_u64().unwrap_or_default(),
            discarded: edge["adverts"]["discarded"].as_u64().unwrap_or_default(),
            resident_kib: agent.process().resident_kib()?,
            log_lines: agent.log().lines().count(),
        })
    }

    /// Nothing has moved, memory and log have not grown with the storm. How many adverts were discarded meanwhile.
    fn unshaken(&self) -> Result<u64> {
        let after = Self::look(self.agent)?;
        let name = self.agent.node().name();
        ensure!(
            (&after.state, after.transitions) == (&self.state, self.transitions),
            "{name} moved\n{}",
            self.agent.log()
        );
        let growth = after.resident_kib.saturating_sub(self.resident_kib);
        ensure!(growth < GROWTH_KIB, "{name} grew by {growth} KiB");
        let lines = after.log_lines - self.log_lines;
        println!("{name}: grew by {growth} KiB, logged {lines} lines");
        // Alarms of a minute fit eight lines.
        ensure!(lines <= 8, "{name} logged {lines} lines\n{}", self.agent.log());
        Ok(after.discarded - self.discarded)
    }
}

fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).clients(2).vips(VIPS).build()
}

fn a_pair(lab: &Lab) -> Result<[Agent; 2]> {
    pair(agent(lab, 1), agent(lab, 2))
}

#[test]
fn malformed_adverts_are_counted_and_move_nothing() -> Result<()> {
    const EACH: usize = 300;
    let lab = lab()?;
    let agents = a_pair(&lab)?;
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(1), SOON)?;
    for (wrong, frame) in malformed() {
        let before = [Before::look(&agents[0])?, Before::look(&agents[1])?];
        lab.clients()[1].inject(std::iter::repeat_n(&frame, EACH), ms(5))?;
        // What was sent is read by now: the queues are drained within a millisecond.
        std::thread::sleep(ms(300));
        for before in before {
            let discarded = before.unshaken()?;
            ensure!(discarded == EACH as u64, "{wrong}: {discarded} of {EACH} were counted as discarded");
        }
    }
    ensure!(watch.finish(&lab)? == [lab.node(1).mac()], "the VIPs moved");
    Ok(())
}

#[test]
fn what_is_no_advert_at_all_moves_nothing() -> Result<()> {
    let lab = lab()?;
    let agents = a_pair(&lab)?;
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(1), SOON)?;
    let before = [Before::look(&agents[0])?, Before::look(&agents[1])?];
    for _ in 0..100 {
        lab.clients()[1].inject(unrecognisable(), ms(5))?;
    }
    std::thread::sleep(ms(300));
    before.iter().try_for_each(|before| before.unshaken().map(drop))?;
    ensure!(watch.finish(&lab)? == [lab.node(1).mac()], "the VIPs moved");
    Ok(())
}

#[test]
fn adverts_of_strangers_move_nothing_where_the_peers_are_known() -> Result<()> {
    let lab = Lab::builder().nodes(2).clients(2).vips(["10.0.0.50"]).build()?;
    let agents = pair(agent(&lab, 1).unicast(), agent(&lab, 2).unicast())?;
    for agent in &agents {
        let before = Before::look(agent)?;
        let frames = (0..2000u16).map(|n| {
            let [high, low] = n.to_be_bytes();
            Forged::with(|advert| {
                // Another stranger each time, and once in a while the node itself.
                advert.source = Ipv4Addr::new(10, 0, 1 + high, low);
                if n % 100 == 0 {
                    advert.source = agent.node().ipv4();
                }
                advert.destination = agent.node().ipv4();
                advert.destination_mac = agent.node().mac().0;
            })
        });
        lab.clients()[1].inject(frames, ms(5))?;
        std::thread::sleep(ms(300));
        let discarded = before.unshaken()?;
        ensure!(discarded == 2000, "{discarded} of 2000 were counted as discarded");
    }
    let alarms = agents[0].status()?.alarms.len();
    ensure!((1..=64).contains(&alarms), "{alarms} alarms of 2000 strangers");
    Ok(())
}

#[test]
fn a_flood_of_a_rivals_adverts_moves_nothing_and_is_answered_sparingly() -> Result<()> {
    let lab = lab()?;
    let agents = a_pair(&lab)?;
    let wire = lab.wire()?;
    let before = [Before::look(&agents[0])?, Before::look(&agents[1])?];
    let begun = Stamp::now();
    let rival = Forged::with(|advert| advert.message[2] = 1);
    lab.clients()[1].inject(std::iter::repeat_n(&rival, 20_000), ms(5))?;
    // What is still in the queues is answered, too.
    std::thread::sleep(ms(300));
    let took = Stamp::now() - begun;
    before.iter().try_for_each(|before| before.unshaken().map(drop))?;
    let adverts = wire.adverts(lab.node(1)).iter().filter(|(_, advert)| advert.source.is_ipv4()).count();
    // One per 10 ms, and the regular ones.
    let bound = usize::try_from(took.as_millis() / 10)? + 20;
    println!("20000 adverts of a rival in {took:?} are answered by {adverts}");
    ensure!(adverts <= bound, "{adverts} adverts in {took:?}");
    Ok(())
}

#[test]
fn an_arp_storm_from_spoofed_senders_moves_nothing() -> Result<()> {
    let lab = lab()?;
    let agents = a_pair(&lab)?;
    let before = [Before::look(&agents[0])?, Before::look(&agents[1])?];
    let begun = Stamp::now();
    // Three of four ask for the VIP, the fourth claims to have it; each is another station.
    let frames = (0..100_000u32).map(|n| spoofed_arp(n, n % 4 == 0));
    lab.clients()[1].inject(frames, Duration::ZERO)?;
    println!("100000 frames in {:?}", Stamp::now() - begun);
    // Claims are judged some time after they were made.
    std::thread::sleep(ms(500));
    before.iter().try_for_each(|before| before.unshaken().map(drop))?;

    let alarms = agents[0].status()?.alarms;
    ensure!(alarms.iter().any(|alarm| alarm.kind == "foreign_owner"), "nobody noticed the claims");
    ensure!(alarms.len() <= 64, "{} alarms of 25000 spoofed stations", alarms.len());
    // And the owner still answers, alone.
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(1), SOON)?;
    ensure!(watch.finish(&lab)? == [lab.node(1).mac()], "the VIPs moved");
    Ok(())
}

fn spoofed_arp(n: u32, claims: bool) -> Vec<u8> {
    let [_, a, b, c] = n.to_be_bytes();
    let sender_mac = [2, 0x66, 0, a, b, c];
    let vip = [10, 0, 0, 50];
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac,
        sender_ipv4: if claims { vip } else { [10, a, b, c] },
        target_mac: [0; 6],
        target_ipv4: vip,
    };
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(sender_mac, Mac::BROADCAST.0).arp(packet.into());
    builder.write(&mut frame).expect("an ARP frame");
    frame
}
