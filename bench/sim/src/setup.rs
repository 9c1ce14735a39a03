//! What a run begins with: routers, their clocks and the network, drawn from the seed within the traits of a family.

use std::time::Duration;

use vip_agent::types::{AdvertInterval, Centiseconds, Priority, Seconds, VirtualRouterId};
use vip_agent::vrrp::machine::{AdvertPhase, Parameters};

use crate::random::Random;
use crate::time::LARGEST_CLOCK_ERROR;

/// Most routers of one run.
pub(crate) const MOST_NODES: usize = 7;

/// The type of [`Parameters::interval`].
pub(crate) type Interval = AdvertInterval;

/// All that a run begins with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// 2 to [`MOST_NODES`]; their addresses ascend.
    pub(crate) nodes: Vec<NodeSetup>,
    /// 1, or 2 where IPv4 and IPv6 are one instance.
    pub(crate) families: usize,
    /// What a message meets on its way.
    pub(crate) link: Link,
    /// By how much timers and frames come late to an agent at most.
    pub(crate) lateness: Duration,
    /// Sends, of 1000, before or after which the agent's thread is stopped.
    pub(crate) stalls_permille: u32,
}

/// One router.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeSetup {
    /// What its operator set.
    pub(crate) parameters: Parameters,
    /// Millionths by which its clock is fast.
    pub(crate) clock_error: i64,
    /// What its clock shows at the start.
    pub(crate) clock_reading: Duration,
    /// How long its local addresses take; `None`: they never come.
    pub(crate) staging: Option<Duration>,
}

/// What a message meets on its way to each receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Shortest time under way.
    pub(crate) shortest: Duration,
    /// Longest time under way: what was sent later may arrive earlier.
    pub(crate) longest: Duration,
    /// Lost ones of 1000.
    pub(crate) loss_permille: u32,
    /// Those that arrive twice, of 1000.
    pub(crate) duplicate_permille: u32,
}

/// What kinds of setups a family has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// Routers may have different intervals.
    pub(crate) mixed_intervals: bool,
    /// Routers may have equal priorities, or such that differ by one.
    pub(crate) close_priorities: bool,
    /// An address owner (priority 255) may be among them.
    pub(crate) address_owner: bool,
    /// Preemption of each router.
    pub(crate) preemption: Preemption,
    /// Hold-down and preempt delay may be set.
    pub(crate) delays: bool,
    /// Delays on the network up to a quarter of an interval instead of 200 µs.
    pub(crate) slow_network: bool,
    /// Messages may arrive twice.
    pub(crate) duplicates: bool,
    /// Agents may be woken late.
    pub(crate) lateness: bool,
    /// Owners announce again every 16 intervals: where so many messages are lost that a winner may not learn of its rival.
    pub(crate) refresh: bool,
    /// Agents may be stopped between a decision and what it leads to.
    pub(crate) stalls: bool,
}

/// Who preempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preemption {
    /// All.
    All,
    /// All or none.
    Uniform,
    /// Each as it likes.
    Mixed,
}

impl Traits {
    /// What any family may have.
    pub(crate) const PLAIN: Self = Self {
        mixed_intervals: false,
        close_priorities: false,
        address_owner: false,
        preemption: Preemption::Uniform,
        delays: false,
        slow_network: false,
        duplicates: false,
        lateness: false,
        refresh: false,
        stalls: false,
    };
}

impl Setup {
    /// Draws one.
    pub(crate) fn draw(random: &mut Random, traits: &Traits) -> Self {
        let count = 2 + random.below(MOST_NODES - 1);
        let rhythm = random.of(&RHYTHMS);
        let mixed_intervals = traits.mixed_intervals && random.percent(50);
        // Of one version all, and of one interval in version 2: others are not heard.
        let version_2 = (!mixed_intervals && random.percent(15)).then(|| random.of(&[1, 2]));
        let preempt = traits.preemption == Preemption::All || random.percent(60);
        let mut priorities = vec![254_u8, 220, 180, 150, 120, 80, 40, 1];
        let close = traits.close_priorities && random.percent(50);
        let base = random.between(1, 252);
        let families = if random.percent(30) { 2 } else { 1 };
        let nodes = (0..count)
            .map(|node| {
                let mut priority = priorities.remove(random.below(priorities.len()));
                if close {
                    priority = base + random.between(0, 2);
                }
                if traits.address_owner && node == 0 && random.percent(10) {
                    priority = Priority::OWNER.get();
                }
                let interval = match version_2 {
                    Some(seconds) => Seconds::new(seconds).expect("not 0").into(),
                    None => centiseconds(if mixed_intervals { random.of(rhythm) } else { rhythm[0] }),
                };
                NodeSetup::draw(random, traits, Priority::new(priority).expect("never 0"), interval, preempt)
            })
            .collect::<Vec<_>>();
        let interval = nodes.iter().map(|node| node.parameters.interval.duration()).min();
        let interval = interval.expect("two nodes at least");
        let longest =
            if traits.slow_network { random.of(&[LAN, LAN, interval / 20, interval / 4]) } else { LAN };
        let link = Link {
            shortest: random.span(longest / 2),
            longest,
            loss_permille: 0,
            duplicate_permille: if traits.duplicates { random.of(&[0, 0, 20, 200]) } else { 0 },
        };
        let lateness = [Duration::ZERO, Duration::from_micros(300), interval / 8];
        let lateness = if traits.lateness { random.of(&lateness) } else { Duration::ZERO };
        let stalls_permille = if traits.stalls { random.of(&[0, 0, 10, 40]) } else { 0 };
        Self { nodes, families, link, lateness, stalls_permille }
    }
}

/// An interval of version 3 of 1 to 4095.
pub(crate) fn centiseconds(centiseconds: u16) -> Interval {
    Centiseconds::new(centiseconds).expect("1-4095").into()
}

/// Skew_Time of a priority.
pub(crate) fn skew(priority: u8, interval: Interval) -> Duration {
    interval.longest_skew() * (256 - u32::from(priority)) / 256
}

/// A switch or two.
const LAN: Duration = Duration::from_micros(200);

/// Intervals in centiseconds that occur together; the first is that of routers which agree.
const RHYTHMS: [&[u16]; 4] = [&[1, 2, 3, 5], &[10, 20, 30], &[100, 100, 200, 300], &[1, 1, 10]];

impl NodeSetup {
    fn draw(
        random: &mut Random,
        traits: &Traits,
        priority: Priority,
        interval: Interval,
        preempt: bool,
    ) -> Self {
        let one_in_five = |random: &mut Random, longest| {
            if traits.delays && random.percent(20) { random.span(longest) } else { Duration::ZERO }
        };
        let staging = random.of(&[None, Some(Some(500)), Some(Some(30_000)), Some(None)]);
        let parameters = Parameters {
            priority,
            interval,
            phase: Some(phase(random)),
            preempt: if traits.preemption == Preemption::Mixed { random.percent(60) } else { preempt },
            preempt_delay: one_in_five(random, interval.duration() * 5),
            hold_down: one_in_five(random, interval.duration() * 5),
            staging: staging.is_some(),
            announce_repeat: 2,
            announce_interval: interval.duration() * 2,
            announce_refresh: traits.refresh.then(|| interval.duration() * 16),
        };
        let largest = LARGEST_CLOCK_ERROR as usize;
        Self {
            parameters,
            clock_error: random.below(2 * largest + 1) as i64 - LARGEST_CLOCK_ERROR,
            clock_reading: Duration::from_secs(1) + random.span(Duration::from_secs(1_000_000)),
            staging: staging.flatten().map(Duration::from_micros),
        }
    }
}

/// Of any virtual router: one network has only one, but clocks begin anywhere, too.
fn phase(random: &mut Random) -> AdvertPhase {
    let id = u8::try_from(1 + random.below(255)).ok().and_then(|id| VirtualRouterId::new(id).ok());
    AdvertPhase::of(id.expect("1-255"))
}
