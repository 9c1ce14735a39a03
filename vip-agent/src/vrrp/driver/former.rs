//! Where frames of open connections go after a planned move: the real MAC of the owner that we watch, on the link of the
//! VIPs.
//!
//! Mostly its adverts tell. They do not if they come from a virtual MAC, or by another interface than the VIPs': then the
//! runtime is asked, which has the neighbour table; this thread has no time for netlink.

use std::net::IpAddr;
use std::time::Duration;

use crate::types::{MacAddr, MonotonicTime};

/// A new owner announces itself right after its first advert: before that, the neighbour table knows the one before.
const SETTLING: Duration = Duration::from_millis(300);

/// How often what is known is asked for again: the owner may get another NIC.
const REFRESH: Duration = Duration::from_secs(10);

/// The router whose adverts were heard last: whoever advertises owns, or owned until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) address: IpAddr,
    /// Source of its adverts.
    pub(super) mac: MacAddr,
    pub(super) heard: MonotonicTime,
}

/// What is known of an owner whose adverts do not tell its MAC.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Former {
    asked: Option<Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    address: IpAddr,
    again: MonotonicTime,
    mac: Option<MacAddr>,
}

impl Former {
    /// An owner was heard whose adverts do not tell its MAC; whether the runtime is to be asked for it now.
    pub(super) fn must_ask(&mut self, owner: Owner) -> bool {
        match &mut self.asked {
            Some(asked) if asked.address == owner.address => {
                let due = asked.again <= owner.heard;
                if due {
                    asked.again = owner.heard + if asked.mac.is_some() { REFRESH } else { SETTLING };
                }
                due
            }
            _ => {
                let again = owner.heard + SETTLING;
                self.asked = Some(Asked { address: owner.address, again, mac: None });
                false
            }
        }
    }

    /// What the runtime has found; `None` = nothing that could be used.
    pub(super) fn learn(&mut self, address: IpAddr, mac: Option<MacAddr>) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.address == address) {
            asked.mac = mac;
        }
    }

    /// The owner's real MAC, if it is known; `told`: its adverts tell.
    pub(super) fn mac_of(&self, owner: Owner, told: bool) -> Option<MacAddr> {
        let asked = self.asked.filter(|asked| asked.address == owner.address);
        let mac = if told { Some(owner.mac) } else { asked.and_then(|asked| asked.mac) };
        // A virtual MAC is by now our own, or nobody's.
        mac.filter(|mac| mac.is_unicast() && !mac.is_virtual())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIRTUAL: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 51]);
    const REAL: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn owner(last: u8, milliseconds: u64) -> Owner {
        let heard = MonotonicTime::ZERO + Duration::from_millis(milliseconds);
        Owner { address: [10, 0, 0, last].into(), mac: VIRTUAL, heard }
    }

    #[test]
    fn the_runtime_is_asked_when_an_owner_has_settled_until_it_knows_and_then_rarely() {
        let mut former = Former::default();
        let asked: Vec<u64> = (0..1_000).step_by(100).filter(|&at| former.must_ask(owner(1, at))).collect();
        assert_eq!(asked, [300, 600, 900]);
        former.learn(owner(1, 0).address, Some(REAL));
        let asked: Vec<u64> =
            (1_000..23_000).step_by(100).filter(|&at| former.must_ask(owner(1, at))).collect();
        assert_eq!(asked, [1_200, 11_200, 21_200]);
    }

    #[test]
    fn what_is_known_of_one_owner_is_not_believed_of_another() {
        let mut former = Former::default();
        former.must_ask(owner(1, 0));
        former.learn(owner(2, 0).address, Some(REAL));
        assert_eq!(former.mac_of(owner(1, 0), false), None);
        former.learn(owner(1, 0).address, Some(REAL));
        assert_eq!(former.mac_of(owner(1, 0), false), Some(REAL));
        assert_eq!(former.mac_of(owner(2, 0), false), None);
        former.must_ask(owner(2, 100));
        assert_eq!(former.mac_of(owner(1, 200), false), None);
    }

    #[test]
    fn owners_that_take_turns_are_no_flood_of_questions() {
        let mut former = Former::default();
        assert!((0..1_000).all(|at| !former.must_ask(owner((at % 2) as u8, at))));
    }

    #[test]
    fn nothing_is_forwarded_to_a_virtual_mac_or_a_group() {
        let mut former = Former::default();
        former.must_ask(owner(1, 0));
        for unusable in [VIRTUAL, MacAddr::BROADCAST, MacAddr::default()] {
            former.learn(owner(1, 0).address, Some(unusable));
            assert_eq!(former.mac_of(owner(1, 0), false), None);
            assert_eq!(former.mac_of(Owner { mac: unusable, ..owner(1, 0) }, true), None);
        }
        assert_eq!(former.mac_of(Owner { mac: REAL, ..owner(1, 0) }, true), Some(REAL));
    }
}
