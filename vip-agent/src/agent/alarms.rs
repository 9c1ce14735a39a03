//! What an operator should look at: other stations that claim our VIPs, other routers that do not fit ours.
//!
//! An alarm is one kind of trouble with one address and one MAC in one instance. It stays in the list until it was not
//! seen for a while ([`lasting`]); totals by kind stay for good.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::config;
use crate::events::{Events, Occurrence};
use crate::status;
use crate::types::MacAddr;
use crate::vrrp::discard::Discard;

/// Alarms in the list.
const KEPT: usize = 256;

/// Alarms of one kind and instance in the list: a spoofer makes as many as it likes, and shall displace its own only.
const KEPT_OF_A_KIND: usize = 16;

/// New alarms that are logged in one [`LOG_SPAN`]; status has the others.
const LOGGED: usize = 8;

const LOG_SPAN: Duration = Duration::from_secs(60);

/// How long after it was last seen an alarm ends.
const QUIET: Duration = Duration::from_secs(600);

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Another station answers ARP or neighbour discovery for a VIP that we own.
    ForeignOwner,
    /// Another station had a VIP before we took it, and no router advertised it.
    AddressConflict,
    /// Something about another router's adverts.
    Advert(Discard),
}

impl Kind {
    /// The word in status, and the `kind` label of metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ForeignOwner => "foreign_owner",
            Self::AddressConflict => "address_conflict",
            Self::Advert(why) => why.name(),
        }
    }

    /// What an operator is to make of it.
    const fn advice(self) -> &'static str {
        match self {
            Self::ForeignOwner => "another station answers for a VIP that we own",
            Self::AddressConflict => "another station has a VIP, though no router advertises it",
            Self::Advert(why) => of_adverts(why),
        }
    }
}

const fn of_adverts(why: Discard) -> &'static str {
    match why {
        Discard::VridClash => {
            "another router uses this virtual router id for VIPs of its own: give one of the groups another virtual_router_id"
        }
        Discard::AddressMismatch => "another router lists other VIPs: make `vips` the same on all nodes",
        Discard::OwnSource => "another host sends adverts from our address: one of the two must get another",
        Discard::OwnMac => {
            "adverts arrive from our own MAC: a loop gives our frames back, or another machine has our MAC (a clone?)"
        }
        Discard::UnknownPeer => {
            "a router that is not among unicast.peers sends us adverts: add it, or give its group another virtual_router_id"
        }
        Discard::VersionMismatch => {
            "another router speaks another version: make `version` the same on all nodes"
        }
        Discard::IntervalMismatch => {
            "another router has another interval: with version 2 `advert_interval` must be the same on all nodes"
        }
        Discard::AuthTypeMismatch | Discard::WrongPassword => {
            "another router has another password, or none: make `auth` the same on all nodes"
        }
        Discard::Unsigned => "another router does not sign its adverts: give it `auth_trailer`, too",
        Discard::UnexpectedTrailer => {
            "another router signs its adverts and this one has no key: give it `auth_trailer`, too"
        }
        Discard::UnknownKey => "another router signs by a key that is not in our key_file",
        Discard::BadSignature => "somebody changes signed adverts, or makes them up",
        Discard::Replayed => {
            "somebody plays back recorded adverts, or a router has lost both its clock and its state_dir: a new key ends that"
        }
        Discard::BadChecksum => {
            "another router's adverts are damaged, or have a checksum that is not accepted here"
        }
        _ => "another router's adverts do not fit ours",
    }
}

/// Something seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) kind: Kind,
    pub(super) instance: &'a config::Instance,
    /// The VIP, or the other router's address.
    pub(super) address: IpAddr,
    pub(super) mac: MacAddr,
}

/// How long an alarm about this instance lasts after it was last seen: ten minutes, but not less than two rounds of what
/// would show it again.
pub(super) fn lasting(instance: &config::Instance) -> Duration {
    let advert = instance.protocol.advert_interval().duration();
    let refresh = instance.announce.refresh.unwrap_or_default();
    QUIET.max(2 * advert).max(2 * refresh)
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// Oldest first.
    list: Vec<Alarm>,
    totals: BTreeMap<&'static str, u64>,
    /// When the last of them were logged: at most [`LOGGED`].
    logged: VecDeque<Instant>,
    /// New ones since then that were not.
    unlogged: u64,
    /// Hears of those that are logged.
    events: Events,
}

#[derive(Debug)]
struct Alarm {
    kind: Kind,
    instance: String,
    address: IpAddr,
    mac: MacAddr,
    since: SystemTime,
    last_seen: SystemTime,
    /// When it ends unless it is seen again.
    ends: Instant,
    count: u64,
}

impl Alarms {
    /// Tells new ones as events, too.
    pub(super) fn telling(events: Events) -> Self {
        Self { events, ..Self::default() }
    }

    /// Notes one, and logs it if it is new and not one of a flood.
    pub(super) fn raise(&mut self, seen: Seen<'_>) {
        let now = Instant::now();
        if !self.note(seen, now) {
            return;
        }
        if self.may_log(now) {
            let Seen { kind, instance, address, mac } = seen;
            let instance = instance.name.as_str();
            tracing::warn!(instance, kind = kind.name(), %address, %mac, "{}", kind.advice());
            let (kind, instance, mac) = (kind.name().to_owned(), instance.to_owned(), mac.to_string());
            self.events.publish(&Occurrence::Alarm { kind, instance, address, mac });
        } else {
            self.unlogged += 1;
        }
    }

    /// Ends those that were not seen for long.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        if self.unlogged > 0 && self.may_log(now) {
            let more = std::mem::take(&mut self.unlogged);
            tracing::warn!(more, "further alarms were raised than are logged: see `vip-agent status`");
        }
        for Alarm { kind, instance, address, mac, count, .. } in self.ended(now) {
            tracing::info!(instance, kind = kind.name(), %address, %mac, count, "not seen any more: this alarm has ended");
        }
    }

    /// Forgets all about an instance that is gone.
    pub(super) fn forget(&mut self, instance: &str) {
        self.list.retain(|alarm| alarm.instance != instance);
    }

    /// As status shows them.
    pub(super) fn list(&self) -> Vec<status::Alarm> {
        self.list.iter().map(Alarm::status).collect()
    }

    /// How often each kind was raised since the agent started.
    pub(super) fn totals(&self) -> BTreeMap<String, u64> {
        self.totals.iter().map(|(&kind, &count)| (kind.to_owned(), count)).collect()
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
    fn note(&mut self, seen: Seen<'_>, now: Instant) -> bool {
        *self.totals.entry(seen.kind.name()).or_default() += 1;
        let (time, ends) = (SystemTime::now(), now + lasting(seen.instance));
        if let Some(known) = self.list.iter_mut().find(|alarm| alarm.is(&seen)) {
            known.count += 1;
            (known.last_seen, known.ends) = (time, ends);
            return false;
        }
        self.make_room(&seen);
        let Seen { kind, instance, address, mac } = seen;
        let instance = instance.name.as_str().to_owned();
        self.list.push(Alarm { kind, instance, address, mac, since: time, last_seen: time, ends, count: 1 });
        true
    }

    fn make_room(&mut self, seen: &Seen<'_>) {
        let alike = |alarm: &Alarm| alarm.kind == seen.kind && alarm.instance == seen.instance.name.as_str();
        let crowded = self.list.iter().filter(|alarm| alike(alarm)).count() >= KEPT_OF_A_KIND;
        if !crowded && self.list.len() < KEPT {
            return;
        }
        let among = self.list.iter().enumerate().filter(|(_, alarm)| !crowded || alike(alarm));
        if let Some((quietest, _)) = among.min_by_key(|(_, alarm)| alarm.ends) {
            self.list.remove(quietest);
        }
    }

    fn ended(&mut self, now: Instant) -> Vec<Alarm> {
        self.list.extract_if(.., |alarm| alarm.ends <= now).collect()
    }
}

impl Alarm {
    fn is(&self, seen: &Seen<'_>) -> bool {
        self.kind == seen.kind
            && self.instance == seen.instance.name.as_str()
            && self.address == seen.address
            && self.mac == seen.mac
    }

    fn status(&self) -> status::Alarm {
        status::Alarm {
            kind: self.kind.name().to_owned(),
            instance: self.instance.clone(),
            address: self.address,
            mac: self.mac.to_string(),
            since: rfc3339(self.since),
            last_seen: rfc3339(self.last_seen),
            count: self.count,
        }
    }
}

/// A time as status shows it: RFC 3339, UTC, microseconds, as moves are to be compared with captures.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::edge as instance;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn seen(instance: &config::Instance, kind: Kind, mac: MacAddr) -> Seen<'_> {
        Seen { kind, instance, address: IpAddr::from([10, 0, 0, 50]), mac }
    }

    fn mac(n: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, n])
    }

    #[test]
    fn the_same_rogue_is_counted_not_listed_again() {
        let (edge, now) = (instance(""), Instant::now());
        let mut alarms = Alarms::default();
        assert!(alarms.note(seen(&edge, Kind::ForeignOwner, MAC), now));
        assert!(!alarms.note(seen(&edge, Kind::ForeignOwner, MAC), now));
        assert!(alarms.note(seen(&edge, Kind::Advert(Discard::VridClash), MAC), now));
        let list = alarms.list();
        assert_eq!(list.iter().map(|alarm| alarm.count).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(alarms.totals(), BTreeMap::from([("foreign_owner".into(), 2), ("vrid_clash".into(), 1)]));
    }

    #[test]
    fn a_spoofer_displaces_its_own_alarms_and_no_others() {
        let (edge, now) = (instance(""), Instant::now());
        let mut alarms = Alarms::default();
        alarms.note(seen(&edge, Kind::Advert(Discard::WrongPassword), MAC), now);
        for n in 0..=255 {
            alarms.note(seen(&edge, Kind::ForeignOwner, mac(n)), now + Duration::from_secs(n.into()));
        }
        let list = alarms.list();
        assert_eq!(list.len(), 1 + KEPT_OF_A_KIND);
        assert_eq!(list[0].kind, "wrong_password");
        assert_eq!(list[KEPT_OF_A_KIND].mac, "02:00:00:00:00:ff");
        assert_eq!(alarms.totals()["foreign_owner"], 256);
    }

    #[test]
    fn the_list_has_an_end() {
        let (mut edge, now) = (instance(""), Instant::now());
        let mut alarms = Alarms::default();
        for n in 0..=255 {
            edge.name = config::InstanceName::new(&format!("edge-{n}")).unwrap();
            for kind in [Kind::ForeignOwner, Kind::Advert(Discard::BadTtl)] {
                alarms.note(seen(&edge, kind, MAC), now);
            }
        }
        assert_eq!(alarms.list().len(), KEPT);
    }

    #[test]
    fn an_alarm_ends_ten_minutes_after_it_was_last_seen_and_may_be_raised_again() {
        let (edge, begun) = (instance(""), Instant::now());
        let mut alarms = Alarms::default();
        alarms.note(seen(&edge, Kind::ForeignOwner, MAC), begun);
        let again = begun + Duration::from_secs(500);
        alarms.note(seen(&edge, Kind::ForeignOwner, MAC), again);
        assert!(alarms.ended(again + QUIET - Duration::from_millis(1)).is_empty());
        assert_eq!(alarms.ended(again + QUIET).len(), 1);
        assert!(alarms.list().is_empty());
        assert!(alarms.note(seen(&edge, Kind::ForeignOwner, MAC), again + QUIET), "it is new");
    }

    #[test]
    fn an_alarm_outlasts_two_rounds_of_what_shows_it() {
        assert_eq!(lasting(&instance("")), QUIET);
        assert_eq!(lasting(&instance(", announce: {refresh: 1h}")), Duration::from_secs(7200));
        assert_eq!(lasting(&instance(", announce: {refresh: 0s}")), QUIET);
    }

    #[test]
    fn the_alarms_of_an_instance_go_with_it() {
        let edge = instance("");
        let mut alarms = Alarms::default();
        alarms.note(seen(&edge, Kind::ForeignOwner, MAC), Instant::now());
        alarms.forget("other");
        assert_eq!(alarms.list().len(), 1);
        alarms.forget("edge");
        assert!(alarms.list().is_empty());
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
