//! With real keepalived 2.2.7 as the peer: each side first and second, IPv4 and IPv6, multicast and unicast, both versions.

#[path = "support/agents.rs"]
mod agents;
#[path = "interop/version_2.rs"]
mod version_2;
#[path = "interop/virtual_mac.rs"]
mod virtual_mac;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use agents::{Ask as _, SOON, binary, ms, times};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::keepalived::{Keepalived, KeepalivedBuilder};
use vip_lab::wire::{Frame, Wire};
use vip_lab::{Lab, Mac, Node, Stamp};

/// The agent looks at what others claimed after 100 to 350 ms.
const CLAIMS_ARE_JUDGED: Duration = ms(500);
/// Where the clock is not watched: long enough for a keepalived that waits for a CPU.
const INTERVAL: Duration = ms(200);
/// What we may take beyond the protocol's own timers.
const TOLERANCE: Duration = ms(5);
/// What keepalived may: it has no real-time priority, and its punctuality is not under test.
const THEIR_TOLERANCE: Duration = ms(50);

/// What the two speak.
#[derive(Clone, Copy)]
struct Speech {
    vips: &'static [&'static str],
    unicast: bool,
    version: Version,
    /// Both have virtual MACs.
    virtual_mac: bool,
}

/// What goes with the version.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    Three,
    /// With a password, if any.
    Two(Option<&'static str>),
}

/// keepalived, and RFC 9568 by erratum 8300, want a link-local address first in multicast adverts.
const SPEECHES: [Speech; 8] = [
    Speech { vips: &["10.0.0.50"], unicast: false, version: Version::Three, virtual_mac: false },
    Speech { vips: &["10.0.0.50"], unicast: true, version: Version::Three, virtual_mac: false },
    Speech { vips: &["fe80::5:50", "fd00::50"], unicast: false, version: Version::Three, virtual_mac: false },
    Speech { vips: &["fd00::50"], unicast: true, version: Version::Three, virtual_mac: false },
    Speech { vips: &["10.0.0.50", "fd00::50"], unicast: false, version: Version::Three, virtual_mac: false },
    Speech { vips: &["10.0.0.50"], unicast: false, version: Version::Three, virtual_mac: true },
    Speech { vips: &["10.0.0.50"], unicast: true, version: Version::Three, virtual_mac: true },
    Speech { vips: &["fe80::5:50", "fd00::50"], unicast: false, version: Version::Three, virtual_mac: true },
];

/// A lab for two, and how they are set up.
struct Scene {
    lab: Lab,
    wire: Wire,
    speech: Speech,
    /// Nodes of the two.
    numbers: [usize; 2],
}

// === impl Scene ===

impl fmt::Display for Speech {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.unicast { "unicast" } else { "multicast" };
        let version = match self.version {
            Version::Three => "",
            Version::Two(None) => " in version 2",
            Version::Two(Some(_)) => " in version 2 with a password",
        };
        let mac = if self.virtual_mac { " with virtual MACs" } else { "" };
        write!(f, "{} by {how}{version}{mac}", self.vips.join(" and "))
    }
}

impl Speech {
    /// Where the clock is not watched.
    fn interval(self) -> Duration {
        if self.version == Version::Three { INTERVAL } else { version_2::INTERVAL }
    }
}

impl Scene {
    fn new(speech: Speech) -> Result<Self> {
        let lab = Lab::builder().nodes(2).build()?;
        let wire = lab.wire()?;
        Ok(Self { lab, wire, speech, numbers: [1, 2] })
    }

    /// Ours has the greater address.
    fn swapped(self) -> Self {
        Self { numbers: [2, 1], ..self }
    }

    /// Plays in every speech at once, for what does not watch the clock.
    fn each(play: impl Fn(Self) -> Result<()> + Sync) -> Result<()> {
        Self::at_once(&SPEECHES, play)
    }

    /// Plays in these speeches at once, each in a lab of its own.
    fn at_once(speeches: &[Speech], play: impl Fn(Self) -> Result<()> + Sync) -> Result<()> {
        let play = &play;
        std::thread::scope(|scope| {
            let play = |speech: Speech| move || play(Self::new(speech)?).with_context(|| speech.to_string());
            let plays: Vec<_> = speeches.iter().map(|&speech| scope.spawn(play(speech))).collect();
            plays.into_iter().try_for_each(|play| play.join().expect("a play that panics"))
        })
    }

    fn ours(&self, priority: u8) -> AgentBuilder {
        let vips = self.vips().map(|(vip, prefix)| format!("{vip}/{prefix}"));
        let builder = self
            .lab
            .agent(self.numbers[0], binary())
            .vips(vips)
            .priority(priority)
            .interval(self.speech.interval())
            .set_instance("virtual_mac", json!(self.speech.virtual_mac))
            .grace(ms(0));
        let builder = match self.speech.version {
            Version::Three => builder,
            Version::Two(None) => builder.set_instance("version", json!(2)),
            Version::Two(Some(password)) => builder
                .set_instance("version", json!(2))
                .set_instance("auth", json!({ "password": password })),
        };
        if self.speech.unicast { builder.unicast() } else { builder }
    }

    fn theirs(&self, priority: u8) -> KeepalivedBuilder {
        let builder = self.lab.keepalived(self.numbers[1]).vips(self.vips()).priority(priority);
        // Without it, it takes over by mistake when the machine is busy. Real-time priority would limit its CPU time, and
        // the kernel kills what exceeds that.
        let builder = builder.interval(self.speech.interval()).global("vrrp_priority -20");
        let builder = if self.speech.virtual_mac { builder.virtual_mac() } else { builder };
        let builder = match self.speech.version {
            Version::Three => builder,
            Version::Two(None) => builder.version(2),
            Version::Two(Some(password)) => builder.version(2).password(password),
        };
        if self.speech.unicast { builder.unicast() } else { builder }
    }

    fn vips(&self) -> impl Iterator<Item = (IpAddr, u8)> + use<> {
        let vips = self.speech.vips.iter().map(|vip| vip.parse::<IpAddr>().expect("an address"));
        vips.map(|vip| (vip, if vip.is_ipv4() { 24 } else { 64 }))
    }

    fn our_node(&self) -> &Node {
        self.lab.node(self.numbers[0])
    }

    fn their_node(&self) -> &Node {
        self.lab.node(self.numbers[1])
    }

    /// For 12 intervals only `owner` advertises; we accept all that it says, or it has nothing to complain about.
    fn peace(&self, owner: &Node, ours: &Agent, theirs: &Keepalived) -> Result<()> {
        let interval = self.speech.interval();
        // What crossed on the way here may still be on the wire, and claims are judged some time after they were made.
        std::thread::sleep(interval.max(CLAIMS_ARE_JUDGED));
        let (begun, before) = (Stamp::now(), ours.edge_json()?);
        let alarms = ours.status()?.raw["alarms"].clone();
        std::thread::sleep(interval * 12);
        let after = ours.edge_json()?;
        let others =
            self.wire.frames(|frame| frame.at > begun && frame.advert().is_some() && !frame.is_from(owner));
        let others: Vec<_> = others.iter().map(|frame| (frame.at, frame.advert())).collect();
        ensure!(others.is_empty(), "beside {}: {others:?}\n{}", owner.name(), theirs.log());
        let adverts = self.wire.frames(|frame| frame.at > begun && is_advert_of(owner, 1..)(frame));
        ensure!(adverts.len() >= 10, "only {} adverts in 12 intervals", adverts.len());
        ensure!(theirs.complaints().is_empty(), "{:#?}", theirs.complaints());
        ensure!(before["transitions"] == after["transitions"], "{before} -> {after}");
        ensure!(after["adverts"]["discarded"] == 0, "we discarded: {after}");
        // A split that healed is reported; peace is not.
        ensure!(ours.status()?.raw["alarms"] == alarms, "new: {:?}", ours.status()?.alarms);
        Ok(())
    }

    /// From the last advert of `old` to the first of `new`.
    fn taken_over(&self, old: &Node, new: &Node, since: Stamp) -> Result<Duration> {
        let first = self.wire.wait_first(since, SOON, is_advert_of(new, 1..))?.at;
        let last = self.wire.last(first, is_advert_of(old, 0..)).context("the old owner's last advert")?.at;
        Ok(first - last)
    }
}

/// What keepalived calls the interfaces with the virtual MACs of VRID 51.
const MACVLANS: [&str; 2] = ["vrrp.51", "vrrp6.51"];

/// Adverts of a node with a priority in this range: 0 is a farewell.
fn is_advert_of(node: &Node, priorities: impl std::ops::RangeBounds<u8>) -> impl Fn(&Frame) -> bool {
    let node = node.clone();
    move |frame| {
        frame.is_from(&node) && frame.advert().is_some_and(|advert| priorities.contains(&advert.priority))
    }
}

/// Silence after which a Backup takes over: three intervals and the skew. At 1 s the versions agree.
fn active_down(priority: u8, interval: Duration) -> Duration {
    interval * 3 + interval * (256 - u32::from(priority)) / 256
}

fn node_of(ours: bool, scene: &Scene) -> &Node {
    if ours { scene.our_node() } else { scene.their_node() }
}

// === it accepts us, we accept it ===

#[test]
fn a_keepalived_that_comes_second_accepts_our_adverts_as_backup() -> Result<()> {
    Scene::each(|scene| {
        let ours = scene.ours(200).start()?;
        ours.wait_state("active", SOON)?;
        let theirs = scene.theirs(100).start()?;
        theirs.wait_state("BACKUP", SOON)?;
        scene.peace(scene.our_node(), &ours, &theirs)
    })
}

#[test]
fn a_keepalived_that_was_first_yields_to_our_higher_priority() -> Result<()> {
    Scene::each(|scene| {
        let theirs = scene.theirs(100).start()?;
        theirs.wait_state("MASTER", SOON)?;
        let ours = scene.ours(200).start()?;
        ours.wait_state("active", SOON)?;
        theirs.wait_state("BACKUP", SOON)?;
        scene.peace(scene.our_node(), &ours, &theirs)
    })
}

#[test]
fn we_stay_backup_to_a_keepalived_that_was_first() -> Result<()> {
    Scene::each(|scene| {
        let theirs = scene.theirs(200).start()?;
        theirs.wait_state("MASTER", SOON)?;
        let ours = scene.ours(100).start()?;
        ours.wait_state("backup", SOON)?;
        scene.peace(scene.their_node(), &ours, &theirs)
    })
}

#[test]
fn we_yield_to_a_keepalived_of_higher_priority_that_comes_second() -> Result<()> {
    Scene::each(|scene| {
        let ours = scene.ours(100).start()?;
        ours.wait_state("active", SOON)?;
        let theirs = scene.theirs(200).start()?;
        theirs.wait_state("MASTER", SOON)?;
        ours.wait_state("backup", SOON)?;
        scene.peace(scene.their_node(), &ours, &theirs)
    })
}

// === crash and SIGTERM ===

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Crash,
    Terminate,
}

/// Scenes played at once where the clock is watched: what they do most is wait for keepalived's start.
const AT_ONCE: usize = 4;

/// The owner ends; the other takes over in time. Up to three attempts: the machine is not ours alone.
fn ends(ours_owns: bool, end: End) -> Result<()> {
    let intervals: &[Duration] =
        if times(0, 1) == 0 { &[ms(100)] } else { &[ms(10), ms(100), Duration::from_secs(1)] };
    for &interval in intervals {
        for speeches in SPEECHES.chunks(AT_ONCE) {
            Scene::at_once(speeches, |scene| ends_in_time(&scene, interval, ours_owns, end))?;
        }
    }
    Ok(())
}

fn ends_in_time(scene: &Scene, interval: Duration, ours_owns: bool, end: End) -> Result<()> {
    let limit = active_down(100, interval) + if ours_owns { THEIR_TOLERANCE } else { TOLERANCE };
    let mut silences = Vec::new();
    while silences.iter().all(|silence| *silence > limit) {
        ensure!(silences.len() < 3, "{interval:?}: taken over after {silences:?}, the limit is {limit:?}");
        silences.push(ends_once(scene, interval, ours_owns, end)?);
    }
    println!("{}, {interval:?}, {end:?}: {silences:?}", scene.speech);
    Ok(())
}

fn ends_once(scene: &Scene, interval: Duration, ours_owns: bool, end: End) -> Result<Duration> {
    let [our_priority, their_priority] = if ours_owns { [200, 100] } else { [100, 200] };
    let ours = scene.ours(our_priority).interval(interval).start()?;
    let theirs = scene.theirs(their_priority).interval(interval).start()?;
    let (state, their_state) = if ours_owns { ("active", "BACKUP") } else { ("backup", "MASTER") };
    theirs.wait_state(their_state, SOON)?;
    ours.wait_state(state, SOON)?;
    // Settled: both families, and whoever was first alone.
    std::thread::sleep(interval * 3);
    let since = Stamp::now();
    match (ours_owns, end) {
        (true, End::Crash) => ours.crash()?,
        (true, End::Terminate) => ours.signal(Signal::SIGTERM)?,
        (false, End::Crash) => theirs.crash()?,
        (false, End::Terminate) => theirs.stop()?,
    }
    let [old, new] = [node_of(ours_owns, scene), node_of(!ours_owns, scene)];
    let silence = scene.taken_over(old, new, since)?;
    let farewell = scene.wire.first(since, is_advert_of(old, 0..=0));
    ensure!(farewell.is_some() == (end == End::Terminate), "a farewell at {end:?}: {farewell:?}");
    if ours_owns {
        theirs.wait_state("MASTER", SOON)?;
        ensure!(theirs.complaints().is_empty(), "{:#?}", theirs.complaints());
    } else {
        let cause = if end == End::Crash { "timeout" } else { "priority_zero" };
        let status = ours.wait_state("active", SOON)?;
        let takeover = status.instances[0].last_takeover.clone().context("a takeover without phases")?;
        ensure!(takeover.cause == cause, "taken over for {}", takeover.cause);
    }
    // A crashed keepalived leaves its VIPs behind; the next attempt must not meet them.
    for (vip, prefix) in scene.vips() {
        let _ = scene.their_node().ip(&format!("address del {vip}/{prefix} dev eth0"));
    }
    for macvlan in MACVLANS {
        let _ = scene.their_node().ip(&format!("link del {macvlan}"));
    }
    Ok(silence)
}

#[test]
fn keepalived_takes_over_when_we_crash() -> Result<()> {
    ends(true, End::Crash)
}

#[test]
fn keepalived_takes_over_when_we_are_terminated() -> Result<()> {
    ends(true, End::Terminate)
}

#[test]
fn we_take_over_when_keepalived_crashes() -> Result<()> {
    ends(false, End::Crash)
}

#[test]
fn we_take_over_when_keepalived_is_terminated() -> Result<()> {
    ends(false, End::Terminate)
}

// === preemption, ties, intervals ===

#[test]
fn without_preemption_we_leave_a_keepalived_of_lower_priority_alone() -> Result<()> {
    Scene::each(|scene| {
        let theirs = scene.theirs(100).start()?;
        theirs.wait_state("MASTER", SOON)?;
        let ours = scene.ours(200).preempt(false).start()?;
        ours.wait_state("backup", SOON)?;
        scene.peace(scene.their_node(), &ours, &theirs)
    })
}

#[test]
fn a_keepalived_without_preemption_leaves_us_alone() -> Result<()> {
    Scene::each(|scene| {
        let ours = scene.ours(100).start()?;
        ours.wait_state("active", SOON)?;
        let theirs = scene.theirs(200).nopreempt().start()?;
        theirs.wait_state("BACKUP", SOON)?;
        scene.peace(scene.our_node(), &ours, &theirs)
    })
}

/// Both own, each on its side of a split network, which heals.
fn split_and_healed(scene: &Scene) -> Result<(Agent, Keepalived)> {
    let ours = scene.ours(150).start()?;
    ours.wait_state("active", SOON)?;
    scene.lab.switch().set_forwarding(scene.their_node(), false)?;
    let theirs = scene.theirs(150).start()?;
    theirs.wait_state("MASTER", SOON)?;
    scene.lab.switch().set_forwarding(scene.their_node(), true)?;
    Ok((ours, theirs))
}

#[test]
fn of_two_owners_with_equal_priority_keepalived_stays_if_its_address_is_the_greater() -> Result<()> {
    Scene::each(|scene| {
        let (ours, theirs) = split_and_healed(&scene)?;
        ours.wait_state("backup", SOON)?;
        scene.peace(scene.their_node(), &ours, &theirs)
    })
}

#[test]
fn of_two_owners_with_equal_priority_we_stay_if_our_address_is_the_greater() -> Result<()> {
    Scene::each(|scene| {
        let scene = scene.swapped();
        let (ours, theirs) = split_and_healed(&scene)?;
        theirs.wait_state("BACKUP", SOON)?;
        scene.peace(scene.our_node(), &ours, &theirs)
    })
}

#[test]
fn a_backup_of_equal_priority_stays_backup_whoever_is_first() -> Result<()> {
    Scene::each(|scene| {
        let theirs = scene.theirs(150).start()?;
        theirs.wait_state("MASTER", SOON)?;
        let ours = scene.ours(150).start()?;
        ours.wait_state("backup", SOON)?;
        scene.peace(scene.their_node(), &ours, &theirs)
    })?;
    Scene::each(|scene| {
        let ours = scene.ours(150).start()?;
        ours.wait_state("active", SOON)?;
        let theirs = scene.theirs(150).start()?;
        theirs.wait_state("BACKUP", SOON)?;
        scene.peace(scene.our_node(), &ours, &theirs)
    })
}

#[test]
fn a_backup_follows_the_interval_of_its_owner() -> Result<()> {
    // Within our own Active_Down, or we might not wait for the first advert; three of them are far beyond it.
    let slow = ms(600);
    Scene::each(|scene| {
        let theirs = scene.theirs(200).interval(slow).start()?;
        theirs.wait_state("MASTER", SOON)?;
        let ours = scene.ours(100).start()?;
        // An agent that starts late on a busy machine has not heard its owner yet.
        ours.wait_for("heard", |status| status["instances"][0]["active_router"].is_string())?;
        std::thread::sleep(slow * 5);
        ensure!(ours.edge()?.state == "backup", "we have not learned: {:?}", ours.edge()?);
        ensure!(scene.wire.adverts(scene.our_node()).is_empty(), "we advertised");

        let since = Stamp::now();
        theirs.crash()?;
        let silence = scene.taken_over(scene.their_node(), scene.our_node(), since)?;
        ensure!(silence >= slow * 3, "taken over after {silence:?}");
        ensure!(silence <= active_down(100, slow) + ms(50), "taken over after {silence:?}");
        Ok(())
    })
}

// === what keepalived does wrong ===

#[test]
fn a_keepalived_with_another_list_of_vips_raises_an_alarm() -> Result<()> {
    let scene = Scene::new(SPEECHES[0])?;
    let theirs =
        scene.theirs(200).vips([([10, 0, 0, 50].into(), 24), ([10, 0, 0, 60].into(), 24)]).start()?;
    theirs.wait_state("MASTER", SOON)?;
    let ours = scene.ours(100).start()?;
    alarmed(&ours, "address_mismatch", "10.0.0.2", scene.their_node().mac())?;
    ensure!(ours.edge()?.state == "backup", "its adverts hold us nevertheless: {:?}", ours.edge()?);
    Ok(())
}

#[test]
fn a_keepalived_that_rejects_our_list_of_vips_and_owns_beside_us_raises_an_alarm() -> Result<()> {
    let scene = Scene::new(SPEECHES[0])?;
    let ours = scene.ours(200).vips(["10.0.0.50/24", "10.0.0.60/24"]).start()?;
    ours.wait_state("active", SOON)?;
    let theirs = scene.theirs(100).vips([([10, 0, 0, 50].into(), 24)]).start()?;
    theirs.wait_state("MASTER", SOON)?;
    alarmed(&ours, "address_mismatch", "10.0.0.2", scene.their_node().mac())?;
    alarmed(&ours, "foreign_owner", "10.0.0.50", scene.their_node().mac())
}

#[test]
fn the_vip_that_a_killed_keepalived_leaves_on_its_node_raises_an_alarm() -> Result<()> {
    Scene::at_once(&[SPEECHES[0], SPEECHES[3], SPEECHES[5], SPEECHES[7]], |scene| {
        let theirs = scene.theirs(200).start()?;
        theirs.wait_state("MASTER", SOON)?;
        let ours = scene.ours(100).start()?;
        ours.wait_state("backup", SOON)?;
        theirs.crash()?;
        ours.wait_state("active", SOON)?;
        // It says nothing any more, but its kernel answers for the VIP, and clients may believe it.
        let vip = scene.speech.vips[0];
        let mac = if scene.speech.virtual_mac {
            virtual_mac::virtual_mac(vip.contains(':'))
        } else {
            scene.their_node().mac()
        };
        alarmed(&ours, "foreign_owner", vip, mac)
    })
}

/// The alarm is in status, with the other's MAC, and was logged once.
fn alarmed(ours: &Agent, kind: &str, address: &str, mac: Mac) -> Result<()> {
    let mac = mac.to_string();
    let is_it =
        |alarm: &Value| alarm["kind"] == kind && alarm["address"] == address && alarm["mac"] == mac.as_str();
    ours.wait_for(&format!("alarmed by {kind}"), |status| {
        status["alarms"].as_array().is_some_and(|alarms| alarms.iter().any(is_it))
    })?;
    let lines = ours.log().lines().filter(|line| line.contains("WARN") && line.contains(&mac)).count();
    ensure!((1..=2).contains(&lines), "{lines} lines about {mac}\n{}", ours.log());
    Ok(())
}
