//! What an operator should look at: other stations that claim our VIPs, other routers that do not fit ours.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::status::Alarm;
use crate::types::MacAddr;

/// Alarms kept; the oldest go first. A spoofer makes as many as it likes.
const KEPT: usize = 64;

/// New alarms that are logged in one [`LOG_SPAN`]; status has the others.
const LOGGED: usize = 8;

const LOG_SPAN: Duration = Duration::from_secs(60);

/// The alarms since the agent started, oldest first.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    list: Vec<Alarm>,
    /// When the last of them were logged: at most [`LOGGED`].
    logged: VecDeque<Instant>,
}

impl Alarms {
    /// Notes one; whether it is to be logged: it is new, and not one of a flood.
    pub(super) fn raise(&mut self, kind: &str, instance: &str, address: IpAddr, mac: MacAddr) -> bool {
        self.note(kind, instance, address, mac) && self.may_log(Instant::now())
    }

    fn may_log(&mut self, now: Instant) -> bool {
        if self.logged.len() == LOGGED {
            if self.logged.front().is_some_and(|&first| now.duration_since(first) < LOG_SPAN) {
                return false;
            }
            self.logged.pop_front();
        }
        self.logged.push_back(now);
        true
    }

    /// Whether it is new.
    fn note(&mut self, kind: &str, instance: &str, address: IpAddr, mac: MacAddr) -> bool {
        let mac = mac.to_string();
        let same = |alarm: &&mut Alarm| {
            alarm.kind == kind && alarm.instance == instance && alarm.address == address && alarm.mac == mac
        };
        if let Some(known) = self.list.iter_mut().find(same) {
            known.count += 1;
            return false;
        }
        if self.list.len() == KEPT {
            self.list.remove(0);
        }
        let since = rfc3339(SystemTime::now());
        self.list.push(Alarm { kind: kind.into(), instance: instance.into(), address, mac, since, count: 1 });
        true
    }

    pub(super) fn list(&self) -> Vec<Alarm> {
        self.list.clone()
    }
}

/// A time as status shows it: RFC 3339, UTC, microseconds, as moves are to be compared with captures.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn the_same_rogue_is_counted_not_listed_again() {
        let mut alarms = Alarms::default();
        let vip = IpAddr::from([10, 0, 0, 50]);
        assert!(alarms.raise("foreign_owner", "edge", vip, MAC));
        assert!(!alarms.raise("foreign_owner", "edge", vip, MAC));
        assert_eq!(alarms.list().len(), 1);
        assert_eq!(alarms.list()[0].count, 2);
    }

    #[test]
    fn a_spoofer_cannot_fill_the_memory() {
        let mut alarms = Alarms::default();
        for n in 0..=255 {
            alarms.raise("foreign_owner", "edge", IpAddr::from([10, 0, 0, 50]), MacAddr([2, 0, 0, 0, 0, n]));
        }
        assert_eq!(alarms.list().len(), KEPT);
        assert_eq!(alarms.list()[KEPT - 1].mac, "02:00:00:00:00:ff");
    }

    #[test]
    fn a_flood_is_logged_by_a_few_lines_and_later_alarms_again() {
        let mut alarms = Alarms::default();
        let begun = Instant::now();
        assert_eq!((0..100).filter(|_| alarms.may_log(begun)).count(), LOGGED);
        assert!(!alarms.may_log(begun + LOG_SPAN - Duration::from_millis(1)));
        assert!(alarms.may_log(begun + LOG_SPAN));
    }
}
