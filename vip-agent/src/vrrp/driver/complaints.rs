//! How often the runtime hears of what is wrong with others' adverts: each kind by itself, so that none hides another.

use std::net::IpAddr;
use std::time::Duration;

use crate::types::{MacAddr, MonotonicTime};
use crate::vrrp::discard::Discard;

/// From one report of a kind about a station to the next.
const GAP: Duration = Duration::from_secs(1);

/// If another station was reported in between: two of them take turns, and a flood from ever new ones makes ten reports a
/// second.
const TURN: Duration = Duration::from_millis(100);

/// What was reported last of each kind, for one instance. Fixed in size.
#[derive(Debug)]
pub(super) struct Complaints([Option<Last>; Discard::ALL.len()]);

#[derive(Clone, Copy, Debug)]
struct Last {
    at: MonotonicTime,
    source: IpAddr,
    mac: MacAddr,
}

impl Default for Complaints {
    fn default() -> Self {
        Self([None; Discard::ALL.len()])
    }
}

impl Complaints {
    /// Whether the runtime is to hear of this one now; if so, the next is counted from here.
    pub(super) fn is_due(&mut self, why: Discard, source: IpAddr, mac: MacAddr, now: MonotonicTime) -> bool {
        let last = &mut self.0[why as usize];
        let due = last.is_none_or(|last| {
            let gap = if (last.source, last.mac) == (source, mac) { GAP } else { TURN };
            now.since(last.at) >= gap
        });
        if due {
            *last = Some(Last { at: now, source, mac });
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 99));

    fn at(milliseconds: u64) -> MonotonicTime {
        MonotonicTime::ZERO + Duration::from_millis(milliseconds)
    }

    #[test]
    fn one_station_is_complained_of_once_a_second() {
        let mut complaints = Complaints::default();
        let due: Vec<u64> =
            (0..=2500).filter(|&ms| complaints.is_due(Discard::BadTtl, HERE, ONE, at(ms))).collect();
        assert_eq!(due, [0, 1000, 2000]);
    }

    #[test]
    fn no_kind_hides_another() {
        let mut complaints = Complaints::default();
        assert!(complaints.is_due(Discard::BadTtl, HERE, ONE, at(0)));
        assert!(complaints.is_due(Discard::VridClash, HERE, ONE, at(0)));
        assert!(!complaints.is_due(Discard::VridClash, HERE, ONE, at(1)));
    }

    #[test]
    fn no_station_hides_another_that_speaks_as_often() {
        let mut complaints = Complaints::default();
        for second in 0..3 {
            assert!(complaints.is_due(Discard::BadTtl, HERE, ONE, at(second * 1000)));
            assert!(complaints.is_due(Discard::BadTtl, HERE, OTHER, at(second * 1000 + 500)));
        }
    }

    #[test]
    fn a_flood_from_ever_new_stations_is_bounded() {
        let mut complaints = Complaints::default();
        let due = (0..1000).filter(|&ms| {
            let [high, low] = (ms as u16).to_be_bytes();
            complaints.is_due(Discard::BadTtl, HERE, MacAddr([2, 0, 0, 0, high, low]), at(ms))
        });
        assert_eq!(due.count(), 10);
    }
}
