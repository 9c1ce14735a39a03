//! Version, interval and delays; and what the members of a sync group must agree in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::finish::{Context, Work};
use super::globals::Globals;
use super::groups::Groups;
use super::instance::{Draft, Key};
use crate::config::duration::Span;
use crate::types::Priority;

/// The version that keepalived speaks for an instance.
fn version(draft: &Draft<'_>, globals: &Globals) -> u8 {
    let written = draft.version.map(|(version, _)| version).or(globals.version);
    if draft.is_ipv6() { 3 } else { written.unwrap_or(2) }
}

/// The steps of a version's intervals, and the longest one.
const fn steps(version: u8) -> (Duration, Duration) {
    match version {
        2 => (Duration::from_secs(1), Duration::from_secs(255)),
        _ => (Duration::from_millis(10), Duration::from_millis(40_950)),
    }
}

/// The interval in steps of the version, as keepalived rounds it; a second where nothing is written.
fn interval(draft: &Draft<'_>, version: u8) -> Duration {
    let wanted = draft.advert_interval.map_or(Duration::from_secs(1), |(interval, _)| interval);
    let (step, longest) = steps(version);
    let rounded = (wanted + step / 2).as_micros() / step.as_micros();
    let rounded = u32::try_from(rounded).unwrap_or(u32::MAX).max(1);
    step.saturating_mul(rounded).min(longest)
}

impl<'a> Context<'a> {
    /// `version`, `advert_interval`, `hold_down`.
    pub(super) fn timing(&self, work: &mut Work<'a>) {
        let (explicit, block) = (work.draft.version, work.draft.block);
        work.version = version(&work.draft, self.globals);
        if let (true, Some((2, statement))) = (work.ipv6, explicit) {
            work.draft.notes.add(Key::Version, statement, "IPv6 is version 3, as with keepalived");
        }
        if work.version == 2 {
            let (statement, which) = match explicit {
                Some((_, statement)) => (statement, "is kept for the peers' sake"),
                None if self.globals.version.is_some() => {
                    (block, "is version 2 by vrrp_version, and stays so")
                }
                None => (block, "is version 2 by keepalived's default, and stays so for the peers' sake"),
            };
            let why = format!(
                "{which}. Version 3 takes intervals of 10ms and more, and learns them from the Active router: change \
                 it on all nodes at once"
            );
            work.draft.notes.add(Key::Version, statement, why);
        }
        let line = format!("version: {}", work.version);
        work.set(Key::Version, line);
        if let Some((wanted, statement)) = work.draft.advert_interval {
            let interval = interval(&work.draft, work.version);
            let (step, longest) = steps(work.version);
            if wanted > longest + step / 2 {
                let why =
                    format!("adverts of version 3 say at most {}: use no more on all nodes", Span(longest));
                work.draft.notes.add(Key::AdvertInterval, statement, why);
            } else if interval != wanted {
                let why = format!(
                    "version {} takes steps of {}: rounded, as keepalived does",
                    work.version,
                    Span(step)
                );
                work.draft.notes.add(Key::AdvertInterval, statement, why);
            }
            work.set(Key::AdvertInterval, format!("advert_interval: {}", Span(interval)));
        }
        if let Some(delay) = self.globals.startup_delay {
            work.set(Key::HoldDown, format!("hold_down: {}", Span(delay)));
        }
    }
}

/// The longest interval that both versions have.
const LONGEST_OF_BOTH: Duration = Duration::from_secs(40);

/// Whether some of its VIPs are served by version 3: all, or the IPv6 ones of version 2, by an instance beside it.
fn speaks_3(draft: &Draft<'_>, globals: &Globals) -> bool {
    version(draft, globals) == 3 || draft.vips.iter().any(|vip| vip.excluded && vip.address.address.is_ipv6())
}

/// Makes what moves together agree in what decides its one election. The members of a sync group: with the first one,
/// but for the interval, which is that of the first member of version 2, whose peers take no other. And instances that
/// become two.
pub(super) fn agree(drafts: &mut [Draft<'_>], groups: &Groups<'_>, globals: &Globals) {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (draft, number) in drafts.iter().zip(0..) {
        if let Some(&group) = draft.block.argument().and_then(|name| groups.of.get(name)) {
            members.entry(group).or_default().push(number);
        }
    }
    for draft in drafts.iter_mut() {
        let interval = interval(draft, version(draft, globals));
        if interval > LONGEST_OF_BOTH && version(draft, globals) == 2 && speaks_3(draft, globals) {
            let why = format!(
                "its IPv6 addresses take adverts of version 3, which say at most {}: its interval {} becomes {}; {}",
                Span(steps(3).1),
                Span(interval),
                Span(LONGEST_OF_BOTH),
                OTHER_INTERVAL,
            );
            draft.notes.add(Key::AdvertInterval, draft.block, why);
            draft.advert_interval = Some((LONGEST_OF_BOTH, draft.block));
        }
    }
    for (group, members) in members {
        let Some(name) = groups.groups.get(group).and_then(|group| group.name.as_deref()) else { continue };
        let Some(&first) = members.first() else { continue };
        let fixed = members.iter().copied().find(|&member| version(&drafts[member], globals) == 2);
        let fixed = &drafts[fixed.unwrap_or(first)];
        let interval = interval(fixed, version(fixed, globals));
        let both =
            version(fixed, globals) == 2 && members.iter().any(|&member| speaks_3(&drafts[member], globals));
        let interval = if both { interval.min(LONGEST_OF_BOTH) } else { interval };
        let election = Election { interval, ..Election::of(&drafts[first], globals) };
        let leader = drafts[first].block.argument().unwrap_or_default();
        for member in members {
            election.impose(&mut drafts[member], globals, leader, name);
        }
    }
}

const OTHER_INTERVAL: &str = "NOT COMPATIBLE with keepalived peers: version 2 takes no interval but its own; change it on \
                              all nodes first";

/// What the members of a sync group agree in.
struct Election {
    priority: Priority,
    interval: Duration,
    preempt: bool,
    preempt_delay: Duration,
}

impl Election {
    fn of(draft: &Draft<'_>, globals: &Globals) -> Self {
        let preempt = draft.nopreempt.is_none() || draft.starts_active;
        let delay = draft.preempt_delay.filter(|_| preempt && !draft.starts_active);
        Self {
            priority: draft.priority,
            interval: interval(draft, version(draft, globals)),
            preempt,
            preempt_delay: delay.map(|(delay, _)| delay).unwrap_or_default(),
        }
    }

    fn impose(&self, draft: &mut Draft<'_>, globals: &Globals, leader: &str, group: &str) {
        let own = Self::of(draft, globals);
        let block = draft.block;
        let version = version(draft, globals);
        let mut note = |key, what: std::fmt::Arguments<'_>| {
            let why = format!("the members of a sync group ({group}) are one election here: {what}");
            draft.notes.add(key, block, why);
        };
        if own.priority != self.priority {
            let (was, is) = (own.priority, self.priority);
            note(
                Key::Priority,
                format_args!("its priority {was} becomes {is}, that of {leader}; see to the other nodes"),
            );
        }
        if own.interval != self.interval {
            let (was, is) = (Span(own.interval), Span(self.interval));
            let consequence = match version {
                2 => OTHER_INTERVAL,
                _ => "version 3 learns it from whoever is Active",
            };
            note(Key::AdvertInterval, format_args!("its interval {was} becomes {is}; {consequence}"));
        }
        if own.preempt != self.preempt {
            let what = if self.preempt { "preempts" } else { "does not preempt" };
            note(Key::Preempt, format_args!("it {what}, as {leader}"));
        }
        if own.preempt_delay != self.preempt_delay {
            note(Key::PreemptDelay, format_args!("its preempt_delay is that of {leader}"));
        }
        draft.priority = self.priority;
        if own.interval != self.interval {
            draft.advert_interval = Some((self.interval, block));
        }
        if (own.preempt, own.preempt_delay) != (self.preempt, self.preempt_delay) {
            draft.starts_active = false;
            draft.preempts = self.preempt;
            draft.nopreempt = (!self.preempt).then_some(block);
            draft.preempt_delay = (!self.preempt_delay.is_zero()).then_some((self.preempt_delay, block));
        }
    }
}
