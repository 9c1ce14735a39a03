//! One router under test in a network of its own, which hears an odd advert over and over: what it does.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vip_lab::agent::Agent;
use vip_lab::keepalived::Keepalived;
use vip_lab::wait::until;
use vip_lab::wire::Wire;
use vip_lab::{Lab, Node, Stamp};

use crate::agents::{SOON, binary, ms};
use crate::cases::Case;
use crate::setting::{OTHER, Router, Setting};

/// Time between two of the same adverts: a skew is 0.2 s, an interval 1 s, Active_Down 3.2 s.
const PERIOD: Duration = ms(500);
/// More than that is too much: a Backup would not be held by what it accepts.
const LONGEST_PERIOD: Duration = ms(2000);
/// Of the odd advert.
const ROUNDS: u32 = 13;
/// Cases whose adverts go out together: keepalived is slow at many.
const TOGETHER: usize = 6;
/// An advert that follows another's so closely is an answer, if it does so nearly each time: regular ones come in every
/// other period.
const ANSWER: Duration = ms(200);
/// Of the rounds.
const MOST: usize = 10;
/// Adverts in the rounds' time are not the regular ones, of which there are 6 or 7.
const FEW: usize = 3;
/// Less than Active_Down, which nobody cuts short, more than a period and a skew, which a busy machine makes longer.
const EARLY: Duration = ms(3000);
/// More changes of state than one decision brings.
const MANY: u64 = 4;
/// Of the lab's nodes: one with a lower address exists.
const UNDER_TEST: usize = 2;
/// The virtual router of the lab's own that daemons have besides: nobody speaks of it.
const BYSTANDER: u8 = 255;

/// Who is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Keepalived,
    Ours,
    /// With `strict: true`.
    OursStrict,
}

/// What a router does that hears an advert again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// A Backup holds still for it.
    StaysBackup,
    /// A Backup becomes Active as if there was nothing.
    TakesOver,
    /// A Backup becomes Active after the skew.
    TakesOverAtOnce,
    /// An Active router becomes Backup.
    Yields,
    /// An Active router stays so, but advertises no more.
    FallsSilent,
    /// An Active router sends an advert at once, each time.
    Answers,
    /// An Active router goes on as if there was nothing.
    Ignores,
    /// It changes its state each time.
    Flaps,
}

/// Of one router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) conduct: Conduct,
    /// As the agent counts them.
    pub(crate) discarded_as: Vec<String>,
}

/// Of one subject, in one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdicts {
    pub(crate) as_backup: Verdict,
    pub(crate) as_active: Verdict,
}

enum Daemon {
    Keepalived(Keepalived),
    Agent(Agent),
}

struct Trial<'a> {
    daemon: Daemon,
    node: Node,
    wire: Wire,
    lab: Lab,
    begun: Stamp,
    rows: &'a [Row<'a>],
}

/// A case with its two routers.
struct Row<'a> {
    case: &'a Case,
    names: [String; 2],
    vrids: [u8; 2],
}

/// When the routers of a case heard what.
#[derive(Clone)]
struct Feed {
    /// The last good advert, by which Backups wait.
    good: Stamp,
    odd: Vec<Stamp>,
}

/// All cases at once, each by two virtual routers of its own. Up to three attempts: the machine is not ours alone, and may
/// keep us from feeding them in time.
pub(crate) fn judge(subject: Subject, cases: &[Case]) -> Result<Vec<Verdicts>> {
    for _ in 0..3 {
        if let Some(verdicts) = attempt(subject, cases)? {
            return Ok(verdicts);
        }
    }
    bail!("three times the machine was too busy to feed them in time")
}

/// `None`: a Backup heard nothing for too long, and not by our will.
fn attempt(subject: Subject, cases: &[Case]) -> Result<Option<Vec<Verdicts>>> {
    let rows: Vec<Row<'_>> = cases.iter().zip(0_u8..).map(|(case, n)| Row::new(case, n)).collect();
    let trial = Trial::start(subject, &rows)?;
    let before = trial.settle()?;
    let feeds = trial.feed()?;
    if !trial.was_fed_in_time(&feeds) {
        return Ok(None);
    }
    let after = trial.daemon.changes(&rows)?;
    ensure!(trial.wire.lost() == 0, "the capture lost frames");
    let reasons = trial.daemon.reasons(&rows)?;
    let mut verdicts = Vec::new();
    for (n, (row, Feed { good, odd })) in rows.iter().zip(&feeds).enumerate() {
        let changes = [0, 1].map(|role| after[n][role] - before[n][role]);
        let ended = *odd.last().context("no rounds")? + PERIOD;
        let [backup, active] = [(row.vrids[0], *good), (row.vrids[1], odd[0])]
            .map(|(vrid, from)| trial.adverts(vrid, from, ended));
        let conducts = [as_backup(changes[0], &backup, *good), as_active(changes[1], &active, odd)];
        let [as_backup, as_active] =
            [0, 1].map(|role| Verdict { conduct: conducts[role], discarded_as: reasons[n][role].clone() });
        verdicts.push(Verdicts { as_backup, as_active });
    }
    Ok(Some(verdicts))
}

fn as_backup(changes: u64, adverts: &[Stamp], good: Stamp) -> Conduct {
    match adverts.first() {
        _ if changes >= MANY => Conduct::Flaps,
        None => Conduct::StaysBackup,
        Some(&first) if first - good < EARLY => Conduct::TakesOverAtOnce,
        Some(_) => Conduct::TakesOver,
    }
}

fn as_active(changes: u64, adverts: &[Stamp], rounds: &[Stamp]) -> Conduct {
    let answered = |round: &&Stamp| adverts.iter().any(|&at| at >= **round && at - **round < ANSWER);
    match changes {
        MANY.. => Conduct::Flaps,
        1.. => Conduct::Yields,
        0 if rounds.iter().filter(answered).count() >= MOST => Conduct::Answers,
        0 if adverts.len() <= FEW => Conduct::FallsSilent,
        0 => Conduct::Ignores,
    }
}

// === impl Row ===

impl<'a> Row<'a> {
    fn new(case: &'a Case, n: u8) -> Self {
        let vrids = [2 * n + 1, 2 * n + 2];
        Self { case, names: vrids.map(|vrid| format!("router{vrid}")), vrids }
    }

    /// The one that is Backup when the odd adverts begin, and the one that is Active.
    fn routers(&self) -> [Router<'_>; 2] {
        let Case { setting, vips, .. } = *self.case;
        [0, 1].map(|role| Router { name: &self.names[role], vrid: self.vrids[role], setting, vips })
    }
}

// === impl Trial ===

impl<'a> Trial<'a> {
    fn start(subject: Subject, rows: &'a [Row<'a>]) -> Result<Self> {
        let lab = Lab::builder().nodes(2).clients(1).vips(["10.0.255.1"]).build()?;
        let node = lab.node(UNDER_TEST).clone();
        for setting in Setting::ALL {
            // Nobody is there to say so.
            let (address, mac) = (OTHER.address(setting), OTHER.mac());
            node.ip(&format!("neighbour replace {address} lladdr {mac} dev eth0 nud permanent"))?;
        }
        let (wire, begun) = (lab.wire()?, Stamp::now());
        let routers = rows.iter().flat_map(|row| row.routers().map(|router| (router, row.case)));
        let daemon = match subject {
            Subject::Keepalived => {
                let builder = lab.keepalived(UNDER_TEST).vrid(BYSTANDER).terse().global("vrrp_priority -20");
                let builder = routers.fold(builder, |builder, (router, case)| {
                    builder.instance(&router.theirs(&node, case.keepalived_line))
                });
                Daemon::Keepalived(builder.start()?)
            }
            Subject::Ours | Subject::OursStrict => {
                let strict = subject == Subject::OursStrict;
                let builder = lab.agent(UNDER_TEST, binary()).vrid(BYSTANDER);
                let builder = routers
                    .fold(builder, |builder, (router, _)| builder.instance(router.ours(&node, strict)));
                Daemon::Agent(builder.start()?)
            }
        };
        Ok(Self { daemon, node, wire, lab, begun, rows })
    }

    /// Until all that shall be Active are; those that shall be Backup hear a better router all the time. The changes of
    /// state until then.
    fn settle(&self) -> Result<Vec<[u64; 2]>> {
        let good: Vec<Vec<u8>> = self.rows.iter().map(|row| row.good(&self.node)).collect();
        let settled = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let better = scope.spawn(|| -> Result<()> {
                while !settled.load(Ordering::Relaxed) {
                    self.lab.client().inject(&good, ms(1))?;
                    std::thread::sleep(PERIOD / 2);
                }
                Ok(())
            });
            let silent = |row: &Row<'_>| self.adverts(row.vrids[1], self.begun, Stamp::now()).is_empty();
            let active = until(SOON * 2, || !self.rows.iter().any(silent)).context("some are not Active");
            let changes = active.and_then(|()| self.daemon.changes(self.rows));
            settled.store(true, Ordering::Relaxed);
            better.join().expect("a feeder that panics")?;
            changes.with_context(|| self.daemon.log())
        })
    }

    /// Whether no Backup was kept waiting.
    fn was_fed_in_time(&self, feeds: &[Feed]) -> bool {
        self.rows.iter().zip(feeds).all(|(row, Feed { good, odd })| {
            let heard: Vec<Stamp> = std::iter::once(*good).chain(odd.iter().copied()).collect();
            self.adverts(row.vrids[0], self.begun, *good).is_empty()
                && heard.windows(2).all(|pair| pair[1] - pair[0] < LONGEST_PERIOD)
        })
    }

    /// A last good advert for the Backups, then the odd ones, a few cases at a time.
    fn feed(&self) -> Result<Vec<Feed>> {
        let good: Vec<_> = self.rows.iter().map(|row| row.good(&self.node)).collect();
        let odd: Vec<_> = self.rows.iter().map(|row| row.odd(&self.node)).collect();
        let turns = self.rows.len().div_ceil(TOGETHER) as u32;
        let begun = Stamp::now();
        let mut feeds = vec![Feed { good: begun, odd: Vec::new() }; self.rows.len()];
        for n in 0..turns * (1 + ROUNDS) {
            std::thread::sleep((PERIOD / turns * n).saturating_sub(Stamp::now() - begun));
            let first = (n % turns) as usize * TOGETHER;
            let cases = first..self.rows.len().min(first + TOGETHER);
            let now = Stamp::now();
            if n < turns {
                feeds[cases.clone()].iter_mut().for_each(|feed| feed.good = now);
                self.lab.client().inject(&good[cases], Duration::ZERO)?;
                continue;
            }
            feeds[cases.clone()].iter_mut().for_each(|feed| feed.odd.push(now));
            self.lab.client().inject(odd[cases].iter().flatten(), Duration::ZERO)?;
        }
        std::thread::sleep(PERIOD);
        Ok(feeds)
    }

    /// When the router under test advertised, but for farewells.
    fn adverts(&self, vrid: u8, from: Stamp, to: Stamp) -> Vec<Stamp> {
        let frames = self.wire.frames(|frame| {
            (from..to).contains(&frame.at)
                && frame.is_from(&self.node)
                && frame.advert().is_some_and(|advert| advert.vrid == vrid && advert.priority > 0)
        });
        frames.iter().map(|frame| frame.at).collect()
    }
}

// === impl Daemon ===

impl Daemon {
    fn log(&self) -> String {
        match self {
            Self::Keepalived(keepalived) => keepalived.log(),
            Self::Agent(agent) => agent.log(),
        }
    }

    /// Changes of state of each router so far.
    fn changes(&self, rows: &[Row<'_>]) -> Result<Vec<[u64; 2]>> {
        match self {
            Self::Keepalived(keepalived) => {
                let log = keepalived.log();
                let entered = |name: &String| log.matches(&format!("({name}) Entering ")).count() as u64;
                Ok(rows.iter().map(|row| row.names.each_ref().map(entered)).collect())
            }
            Self::Agent(agent) => {
                let status = agent.status()?.raw;
                let changes = |name: &String| status_of(&status, name)?["transitions"].as_u64();
                let each = rows.iter().map(|row| Some([changes(&row.names[0])?, changes(&row.names[1])?]));
                each.collect::<Option<_>>().context("a status without transitions")
            }
        }
    }

    /// Why each router discarded what it did; keepalived only logs it.
    fn reasons(&self, rows: &[Row<'_>]) -> Result<Vec<[Vec<String>; 2]>> {
        let Self::Agent(agent) = self else { return Ok(vec![Default::default(); rows.len()]) };
        let status = agent.status()?.raw;
        let reasons = |name: &String| {
            let counts = status_of(&status, name).and_then(|status| {
                status["adverts"]["discarded_by"].as_object().map(|counts| counts.keys().cloned().collect())
            });
            counts.unwrap_or_default()
        };
        Ok(rows.iter().map(|row| row.names.each_ref().map(reasons)).collect())
    }
}

fn status_of<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["instances"].as_array()?.iter().find(|instance| instance["name"] == name)
}

impl fmt::Display for Conduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StaysBackup => "stays Backup",
            Self::TakesOver => "takes over",
            Self::TakesOverAtOnce => "takes over after the skew",
            Self::Yields => "yields",
            Self::FallsSilent => "falls silent",
            Self::Answers => "answers",
            Self::Ignores => "ignores it",
            Self::Flaps => "flaps",
        })
    }
}

impl Row<'_> {
    /// What keeps the first router Backup.
    fn good(&self, node: &Node) -> Vec<u8> {
        let [backup, _] = self.routers();
        backup.advert(node, self.case.before).frame()
    }

    /// For each of the two routers.
    fn odd(&self, node: &Node) -> [Vec<u8>; 2] {
        self.routers().map(|router| {
            let mut advert = router.advert(node, OTHER);
            (self.case.odd)(&mut advert);
            advert.frame()
        })
    }
}
