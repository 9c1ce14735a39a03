//! A Backup's view of one interface, in steps of 50 microseconds of a virtual clock. Times are microseconds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use vip_common::heartbeat::{Claims, Kind, Message, Owned, Promise, Succession};

use super::{Frame, Link, Signs};
use crate::dataplane::PeerSlot;
use crate::types::{Family, MonotonicTime, VirtualRouterId};
use crate::vrrp::machine::OwnerLife;

const US: u64 = 1000;
const STEP: u64 = 50;
const OWNER: u64 = 7;
const OTHER: u64 = 8;
const THIRD: u64 = 9;
const OURSELVES: u64 = 1;
const OUR_PRIORITY: u8 = 100;
const INTERVAL: u32 = 1000;
const MULTIPLIER: u8 = 4;
/// The detection time.
const TIME: u64 = 4000;
/// By then everybody knows everybody, and the last heartbeat came.
const START: u64 = 20_000;

fn id() -> VirtualRouterId {
    VirtualRouterId::new(51).unwrap()
}

fn ours() -> Owned {
    let mut owned = Owned::default();
    owned.v4.insert(51);
    owned
}

/// Of one that waits for the router with this priority.
fn waiting(priority: u8) -> Succession {
    let mut succession = Succession::default();
    succession.v4.set(51, priority);
    succession
}

/// What a dead owner's router is told if so many of the detection time are left to others.
fn dead_after(since: u64, times_for_others: u32) -> OwnerLife {
    let longest_skew = Duration::from_micros(TIME);
    let since = MonotonicTime(since * US);
    OwnerLife::Dead { since, longest_skew, others_first: longest_skew * times_for_others }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    Lives,
    /// It answers, and says nothing by itself.
    AgentDead,
    Dead,
}

struct Rig {
    link: Link,
    now: u64,
    /// What the program notes, by node.
    noted: RefCell<BTreeMap<u16, Signs>>,
    owner: Host,
    /// Another Backup, and a third.
    other: Option<Host>,
    third: Option<Host>,
    /// Nothing arrives here.
    deaf: bool,
    /// When our driver runs, and does not.
    asleep: bool,
    advert: u64,
    sent: Vec<(u64, Frame)>,
    /// Changes of what is known, with their times.
    told: Vec<(u64, OwnerLife)>,
}

impl Rig {
    fn new() -> Self {
        let mut link = Link::new(OURSELVES, MonotonicTime(0));
        link.watch(waiting(OUR_PRIORITY), MULTIPLIER, MonotonicTime(0));
        Self {
            link,
            now: 0,
            noted: RefCell::default(),
            owner: Host::Lives,
            other: None,
            third: None,
            deaf: false,
            asleep: false,
            advert: 0,
            sent: Vec::new(),
            told: Vec::new(),
        }
    }

    fn with_another_backup(mut self) -> Self {
        self.other = Some(Host::Lives);
        self
    }

    /// Runs to the start, when all is known and well.
    fn started(mut self) -> Self {
        self.claim(OWNER, ours(), 1);
        if self.other.is_some() {
            self.claim(OTHER, Owned::default(), 1);
        }
        self.until(START);
        assert!(self.told.is_empty(), "{:?}", self.told);
        self.sent.clear();
        self
    }

    fn claim(&mut self, node: u64, owned: Owned, edition: u32) {
        let promise = Promise { interval: INTERVAL, edition };
        self.hear(Claims { node, time: self.now + 1, promise, owned, succession: Succession::default() });
    }

    /// The other Backup waits with this priority.
    fn other_waits(&mut self, priority: u8) {
        let promise = Promise { interval: 1_000_000, edition: 1 };
        let (owned, succession) = (Owned::default(), waiting(priority));
        self.hear(Claims { node: OTHER, time: self.now + 2, promise, owned, succession });
    }

    fn hear(&mut self, claims: Claims) {
        let node = claims.node;
        let slot = PeerSlot(u16::try_from(node).unwrap());
        self.link.hear(claims, self.time(), |_| Some(slot), |_| {});
    }

    fn time(&self) -> MonotonicTime {
        MonotonicTime(self.now * US)
    }

    fn until(&mut self, end: u64) -> &mut Self {
        while self.now < end {
            self.now += STEP;
            self.step();
        }
        self
    }

    fn step(&mut self) {
        if self.owner == Host::Lives && !self.deaf && self.now.is_multiple_of(u64::from(INTERVAL)) {
            let mut noted = self.noted.borrow_mut();
            let signs = noted.entry(OWNER as u16).or_default();
            signs.heard = self.time();
            signs.promise = Promise { interval: INTERVAL, edition: 1 };
        }
        if self.asleep {
            return;
        }
        let now = self.time();
        self.link.look(now, |slot| self.noted.borrow().get(&slot.0).copied().unwrap_or_default(), |_| {});
        while let Some(frame) = self.link.next_frame(now) {
            self.sent.push((self.now, frame));
            if let Frame::Message(Message { kind: Kind::Question, time, .. }) = frame {
                self.answer(time);
            }
        }
        let life = self.link.life(Family::V4, id(), MULTIPLIER, MonotonicTime(self.advert * US), now);
        if self.told.last().map_or(OwnerLife::Alive, |(_, life)| *life) != life {
            self.told.push((self.now, life));
        }
        assert!(self.link.next_timer(now) > now, "it would spin at {}", self.now);
    }

    fn answer(&mut self, asked: u64) {
        let hosts = [(OWNER, Some(self.owner)), (OTHER, self.other), (THIRD, self.third)];
        for (node, _) in hosts.into_iter().filter(|(_, host)| host.is_some_and(|host| host != Host::Dead)) {
            if !self.deaf {
                let mut noted = self.noted.borrow_mut();
                let signs = noted.entry(node as u16).or_default();
                (signs.answered, signs.asked) =
                    (MonotonicTime(self.now * US + 10 * US), MonotonicTime(asked));
            }
        }
    }

    fn dead(&self) -> Option<u64> {
        self.told.iter().find(|(_, life)| matches!(life, OwnerLife::Dead { .. })).map(|(at, _)| *at)
    }

    fn questions(&self) -> Vec<u64> {
        let is_question =
            |frame: &Frame| matches!(frame, Frame::Message(Message { kind: Kind::Question, .. }));
        self.sent.iter().filter(|(_, frame)| is_question(frame)).map(|(at, _)| *at).collect()
    }
}

#[test]
fn a_dead_host_is_found_after_the_detection_time() {
    let mut rig = Rig::new().started();
    rig.owner = Host::Dead;
    rig.until(START + 20_000);
    let dead = dead_after(START + TIME, 0);
    assert_eq!(rig.told, [(START + TIME - 1000, OwnerLife::Suspected), (START + TIME, dead)]);
    // It was asked at half the time, and twice an interval from then on.
    assert_eq!(rig.questions()[..4], [2000, 2500, 3000, 3500].map(|after| START + after));
}

#[test]
fn while_heartbeats_come_nobody_is_asked_but_ten_times_a_second() {
    let mut rig = Rig::new().started();
    rig.until(START + 3_000_000);
    assert_eq!(rig.questions().len(), 30);
    assert!(rig.told.is_empty());
}

#[test]
fn a_host_whose_agent_died_is_not_dead() {
    let mut rig = Rig::new().started();
    rig.owner = Host::AgentDead;
    rig.until(START + 1_000_000);
    assert!(rig.told.is_empty(), "{:?}", rig.told);
    // Its host dies after all.
    rig.owner = Host::Dead;
    rig.until(START + 1_010_000);
    let dead = rig.dead().expect("dead");
    assert!((START + 1_000_000..START + 1_000_000 + TIME + 500).contains(&dead), "{dead}");
}

#[test]
fn an_heir_that_comes_first_and_lives_is_left_time() {
    // Of equals the greater number comes first.
    for (priority, others_before) in [(99, 0), (100, 1), (101, 1)] {
        let mut rig = Rig::new().with_another_backup().started();
        rig.other_waits(priority);
        rig.owner = Host::Dead;
        rig.until(START + 20_000);
        let told = rig.told.last().copied();
        assert_eq!(told, Some((START + TIME, dead_after(START + TIME, 2 * others_before))), "{priority}");
    }
}

#[test]
fn an_heir_that_died_with_the_owner_is_not_waited_for() {
    let mut rig = Rig::new().with_another_backup().started();
    rig.other_waits(200);
    // One host that answers is enough to show that our link is not deaf.
    rig.claim(THIRD, Owned::default(), 1);
    (rig.owner, rig.other) = (Host::Dead, Some(Host::Dead));
    rig.third = Some(Host::Lives);
    rig.until(START + 40_000);
    assert_eq!(rig.told.last().map(|(_, life)| *life), Some(dead_after(START + TIME, 0)));
}

#[test]
fn who_begins_to_wait_says_so_at_once_and_thrice() {
    let mut rig = Rig::new().started();
    rig.link.watch(waiting(150), MULTIPLIER, rig.time());
    rig.until(START + 500_000);
    let said = rig.sent.iter().filter_map(|(at, frame)| match frame {
        Frame::Claims(claims) => Some((*at, claims.succession)),
        Frame::Message(_) => None,
    });
    let said: Vec<_> = said.collect();
    assert!(said.iter().all(|(_, succession)| *succession == waiting(150)), "{said:?}");
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(said[0].0, START + STEP);
}

#[test]
fn whoever_has_asked_stays_awake_until_there_is_hope_no_more() {
    let mut rig = Rig::new().started();
    let mut awake = Vec::new();
    for owner in [Host::Lives, Host::Dead] {
        rig.owner = owner;
        let (begin, end) = (rig.now, rig.now + 30_000);
        while rig.now < end {
            rig.until(rig.now + STEP);
            if rig.link.stays_awake(rig.time()) {
                awake.push(rig.now - begin);
            }
        }
    }
    // From the first question on, which comes after half the detection time, and for 16 of them.
    assert_eq!((awake.first(), awake.last()), (Some(&2000), Some(&9950)));
    assert_eq!(awake.len(), usize::try_from((9950 - 2000) / STEP + 1).unwrap());
}

#[test]
fn one_answer_is_enough() {
    let mut rig = Rig::new().started();
    rig.owner = Host::Dead;
    rig.until(START + 3400);
    rig.owner = Host::AgentDead;
    rig.until(START + 100_000);
    assert_eq!(rig.dead(), None);
    assert_eq!(rig.told.last().map(|(_, life)| *life), Some(OwnerLife::Alive));
}

#[test]
fn a_driver_that_was_kept_from_running_asks_before_it_judges() {
    let mut rig = Rig::new().started();
    (rig.owner, rig.asleep) = (Host::Dead, true);
    rig.until(START + 50_000);
    rig.asleep = false;
    rig.until(START + 60_000);
    let dead = rig.dead().expect("dead");
    // Half the detection time for answers, as ever; the skew counts from its death.
    assert_eq!(dead, START + 50_050 + TIME / 2);
    assert_eq!(rig.told.last(), Some(&(dead, dead_after(START + TIME, 0))));
    let mut lives = Rig::new().started();
    (lives.owner, lives.asleep) = (Host::AgentDead, true);
    lives.until(START + 50_000).asleep = false;
    lives.until(START + 60_000);
    assert_eq!(lives.dead(), None);
}

#[test]
fn a_driver_that_is_kept_from_asking_on_begins_anew() {
    let mut rig = Rig::new().started();
    rig.owner = Host::Dead;
    rig.until(START + 2600).asleep = true;
    rig.until(START + 30_000).asleep = false;
    rig.until(START + 60_000);
    assert_eq!(rig.dead(), Some(START + 30_050 + TIME / 2));
}

#[test]
fn where_others_answered_one_of_them_must_have_answered_since() {
    let mut rig = Rig::new().with_another_backup().started();
    rig.deaf = true;
    rig.until(START + 200_000);
    assert_eq!(rig.dead(), None);
    rig.deaf = false;
    rig.until(START + 210_000);
    assert_eq!(rig.told.last().map(|(_, life)| *life), Some(OwnerLife::Alive));
    let mut hears = Rig::new().with_another_backup().started();
    hears.owner = Host::Dead;
    hears.until(START + 20_000);
    assert_eq!(hears.dead(), Some(START + TIME));
}

#[test]
fn who_died_before_tells_nothing_about_our_own_link() {
    let mut rig = Rig::new().with_another_backup().started();
    rig.other = Some(Host::Dead);
    // The owner's heartbeats were late once, so that everybody was asked.
    rig.owner = Host::AgentDead;
    rig.until(START + 10_000);
    rig.owner = Host::Dead;
    rig.until(START + 30_000);
    assert!(rig.dead().is_some(), "{:?}", rig.told);
}

#[test]
fn an_owner_that_never_answers_is_not_covered() {
    let mut rig = Rig::new();
    rig.claim(OWNER, ours(), 1);
    for step in 1..START / 1000 {
        rig.noted.borrow_mut().insert(
            OWNER as u16,
            Signs {
                heard: MonotonicTime(step * 1000 * US),
                promise: Promise { interval: INTERVAL, edition: 1 },
                ..Signs::default()
            },
        );
        rig.owner = Host::Dead;
        rig.until(step * 1000);
    }
    rig.until(START + 1_000_000);
    assert!(rig.told.is_empty(), "{:?}", rig.told);
    assert_eq!(rig.link.covered(Family::V4, id(), rig.time()), None);
}

#[test]
fn heartbeats_that_mean_claims_we_have_not_heard_cover_nothing() {
    let mut rig = Rig::new().started();
    assert!(rig.link.covered(Family::V4, id(), rig.time()).is_some());
    // The owner gave the router up, or more; the frame that says so was lost.
    rig.claim(OWNER, ours(), 2);
    rig.owner = Host::Dead;
    rig.until(START + 100_000);
    assert_eq!(rig.dead(), None);
}

#[test]
fn a_router_that_the_dead_host_did_not_own_is_not_concerned() {
    let mut rig = Rig::new().started();
    rig.owner = Host::Dead;
    rig.until(START + 20_000);
    let another = VirtualRouterId::new(52).unwrap();
    let advert = MonotonicTime::ZERO;
    assert_eq!(rig.link.life(Family::V4, another, MULTIPLIER, advert, rig.time()), OwnerLife::Alive);
    assert_eq!(rig.link.life(Family::V6, id(), MULTIPLIER, advert, rig.time()), OwnerLife::Alive);
}

#[test]
fn an_advert_after_the_last_sign_of_life_is_anothers() {
    let mut rig = Rig::new().started();
    rig.owner = Host::Dead;
    // Of the dying owner itself: just before.
    rig.advert = START;
    rig.until(START + 10_000);
    assert!(rig.dead().is_some());
    rig.advert = START + 9000;
    rig.until(START + 20_000);
    assert_eq!(rig.told.last().map(|(_, life)| *life), Some(OwnerLife::Alive));
}

#[test]
fn one_of_two_that_claim_a_router_lives() {
    let mut rig = Rig::new().with_another_backup().started();
    rig.claim(OTHER, ours(), 1);
    rig.owner = Host::Dead;
    rig.until(START + 100_000);
    assert_eq!(rig.dead(), None);
}

#[test]
fn frames_that_the_program_should_have_kept_make_us_trust_nobodys_silence() {
    let mut rig = Rig::new().started();
    rig.link.is_blind(rig.time());
    rig.owner = Host::Dead;
    rig.until(START + 2_000_000);
    assert_eq!(rig.dead(), None);
    assert_eq!(rig.link.covered(Family::V4, id(), rig.time()), None);
}

#[test]
fn who_is_silent_for_ten_seconds_is_forgotten_and_asked_no_more_than_anybody() {
    let mut rig = Rig::new().started();
    rig.owner = Host::Dead;
    rig.until(START + 11_000_000);
    rig.sent.clear();
    rig.until(START + 15_000_000);
    assert_eq!(rig.questions().len(), 40);
    assert_eq!(rig.told.last().map(|(_, life)| *life), Some(OwnerLife::Alive));
}

#[test]
fn an_owner_says_so_every_interval_and_what_it_owns_thrice_when_that_changes() {
    let mut rig = Rig::new();
    rig.until(10_000);
    rig.sent.clear();
    rig.link.own(ours(), Duration::from_millis(1), rig.time());
    rig.until(20_000);
    let heartbeats: Vec<_> = (rig.sent.iter())
        .filter_map(|(at, frame)| match frame {
            Frame::Message(message) if message.kind == Kind::Heartbeat => {
                Some((*at, Promise::of(message.body)))
            }
            _ => None,
        })
        .collect();
    let claims: Vec<_> = (rig.sent.iter())
        .filter_map(|(at, frame)| match frame {
            Frame::Claims(claims) => Some((*at, claims.promise, claims.owned)),
            Frame::Message(_) => None,
        })
        .collect();
    // One that was late does not put off the next.
    let times = [10_050, 11_000, 12_000, 13_000, 14_000, 15_000, 16_000, 17_000, 18_000, 19_000, 20_000];
    assert_eq!(heartbeats.iter().map(|(at, _)| *at).collect::<Vec<_>>(), times);
    assert_eq!(claims.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [10_050, 12_050, 14_050]);
    assert!(claims.iter().all(|(_, promise, owned)| *promise == heartbeats[0].1 && *owned == ours()));
    rig.sent.clear();
    rig.link.own(Owned::default(), super::IDLE, rig.time());
    rig.until(30_000);
    let first = rig.sent.first().map(|(_, frame)| *frame);
    assert!(matches!(first, Some(Frame::Claims(claims)) if claims.owned.is_empty()), "{first:?}");
    assert!(
        !rig.sent.iter().any(|(_, frame)| matches!(frame, Frame::Message(m) if m.kind == Kind::Heartbeat))
    );
}

#[test]
fn times_of_our_frames_grow() {
    let mut link = Link::new(1, MonotonicTime(0));
    link.own(ours(), Duration::from_millis(1), MonotonicTime(5));
    let mut last = 0;
    // The clock stands still.
    while let Some(frame) = link.next_frame(MonotonicTime(5)) {
        let time = match frame {
            Frame::Message(message) => message.time,
            Frame::Claims(claims) => claims.time,
        };
        assert!(time > last);
        last = time;
    }
    assert!(last > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_host_that_lives_is_called_dead(
        pauses in proptest::collection::vec((any::<bool>(), any::<bool>(), 0..20_000_u64), 1..10),
    ) {
        let mut rig = Rig::new().started();
        let mut now = START;
        for (agent_starves, we_starve, span) in pauses {
            rig.owner = if agent_starves { Host::AgentDead } else { Host::Lives };
            rig.asleep = we_starve;
            now += span;
            rig.until(now);
        }
        prop_assert_eq!(rig.dead(), None);
    }

    #[test]
    fn a_dead_host_is_found_whatever_was_before(starves in 0..50_000_u64, sleeps in 0..50_000_u64) {
        let mut rig = Rig::new().started();
        rig.owner = Host::AgentDead;
        rig.until(START + starves);
        rig.owner = Host::Dead;
        rig.asleep = true;
        rig.until(START + starves + sleeps);
        rig.asleep = false;
        rig.until(START + starves + sleeps + 2 * TIME);
        prop_assert!(rig.dead().is_some());
    }
}
