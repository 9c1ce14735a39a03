//! What is done when the agent is dead: silence first, then priority 0 for every router that was owned.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use vip_common::maps::MAX_ROUTERS;

use super::plan::{Plan, Said};
use crate::dataplane::{Deadlines, RouterSlot};
use crate::types::MonotonicTime;

/// Priority 0 is said again after this time, in case that the first was lost. Soon, because each one starts a Backup's
/// skew anew. An heir of a 10 ms interval may have taken over by then: it answers with an advert, as to any rival.
const AGAIN_AFTER: Duration = Duration::from_micros(500);

/// Everything that it takes, kept ready.
pub(super) struct Resignation {
    deadlines: Deadlines,
    /// By router slot.
    plans: Vec<Option<Plan>>,
    /// Whether another agent has taken charge.
    succeeded: Box<dyn Fn() -> bool + Send>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// The names of the routers whose word lay in the future; `?` for one without a plan.
    pub(super) silenced: Vec<String>,
    /// Their adverts, both times together.
    pub(super) said: Said,
    /// Another agent has taken charge: nothing more was said.
    pub(super) succeeded: bool,
}

impl Resignation {
    /// With nothing to say yet. `succeeded` tells whether another agent than the dead one has taken charge.
    pub(super) fn new(deadlines: Deadlines, succeeded: impl Fn() -> bool + Send + 'static) -> Self {
        let mut plans = Vec::new();
        plans.resize_with(MAX_ROUTERS as usize, || None);
        Self { deadlines, plans, succeeded: Box::new(succeeded) }
    }

    /// Says this for the router in this slot from now on.
    pub(super) fn plan(&mut self, slot: u16, plan: Option<Plan>) {
        if let Some(place) = self.plans.get_mut(usize::from(slot)) {
            *place = plan;
        }
    }

    /// Does it. No allocation before all is said, and no waiting but for the pause before everything is said again. A
    /// second time there is nothing left to do.
    ///
    /// Nobody answers for what was silenced before the first word is said, so that an heir cannot be too quick. What is
    /// said is true only as long as the lease that it ends would have run, and as long as no other agent has begun: an
    /// advert of its own would be followed by our priority 0.
    pub(super) fn carry_out(&self) -> Done {
        let former = self.deadlines.release_all();
        let now = MonotonicTime::now();
        let mut done = Done::default();
        if former.iter().all(|until| *until <= now) {
            return done;
        }
        for again in [false, true] {
            if again {
                pause(AGAIN_AFTER);
            }
            done.succeeded = (self.succeeded)();
            if done.succeeded {
                break;
            }
            self.say(&former, &mut done.said);
        }
        let silenced = self.plans.iter().zip(&former).filter(|(_, until)| now < **until);
        let name =
            |plan: &Option<Plan>| plan.as_ref().map_or_else(|| "?".to_owned(), |plan| plan.name.clone());
        done.silenced = silenced.map(|(plan, _)| name(plan)).collect();
        done
    }

    /// Carries out what changes nothing: by a router of its own, with words that nobody reads and a socket that is none.
    pub(super) fn rehearse(mut self, no_socket: OwnedFd) {
        if let Some(slot) = RouterSlot::all().next() {
            self.deadlines.store(slot, MonotonicTime::now() + Duration::from_secs(60));
            self.plan(slot.get(), Some(Plan::of_one("rehearsal", no_socket, &[0; 16], &[0; 16])));
        }
        std::hint::black_box(self.carry_out());
    }

    fn say(&self, former: &[MonotonicTime], total: &mut Said) {
        for (plan, until) in self.plans.iter().zip(former) {
            if let Some(plan) = plan
                && MonotonicTime::now() < *until
            {
                let said = plan.say();
                total.sent += said.sent;
                total.refused += said.refused;
            }
        }
    }
}

/// Goes on where a signal has interrupted it.
fn pause(span: Duration) {
    let mut left = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(span.subsec_nanos()) };
    while let NanosleepRelativeResult::Interrupted(rest) = nanosleep(&left) {
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;
    use crate::vrrp::socket::address_bytes;

    /// Deadlines beside which nobody runs, and a socket that hears what is said.
    struct Rig {
        resignation: Resignation,
        hears: UdpSocket,
        slots: Vec<RouterSlot>,
    }

    fn rig(plans: &[&str]) -> Rig {
        succeeded_rig(plans, || false)
    }

    fn succeeded_rig(plans: &[&str], succeeded: impl Fn() -> bool + Send + 'static) -> Rig {
        let map = memfd_create("deadlines", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&map, u64::from(MAX_ROUTERS) * 8).unwrap();
        let hears = UdpSocket::bind("127.0.0.1:0").unwrap();
        hears.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut resignation = Resignation::new(Deadlines::map(map.as_fd()).unwrap(), succeeded);
        let slots: Vec<RouterSlot> = RouterSlot::all().take(plans.len()).collect();
        for (slot, name) in slots.iter().zip(plans) {
            let says = UdpSocket::bind("127.0.0.1:0").unwrap();
            let to = socket2::SockAddr::from(hears.local_addr().unwrap());
            let plan = Plan::of_one(name, says.into(), address_bytes(&to), name.as_bytes());
            resignation.plan(slot.get(), Some(plan));
        }
        Rig { resignation, hears, slots }
    }

    impl Rig {
        fn own(&self, index: usize, span: Duration) {
            self.resignation.deadlines.store(self.slots[index], MonotonicTime::now() + span);
        }

        fn heard(&self) -> Vec<String> {
            let mut heard = Vec::new();
            let mut bytes = [0; 64];
            while let Ok(len) = self.hears.recv(&mut bytes) {
                heard.push(String::from_utf8_lossy(&bytes[..len]).into_owned());
            }
            heard
        }
    }

    fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
        names.map(str::to_owned).into()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_owned_is_silenced_and_said_twice_and_nothing_else_is() {
        let rig = rig(&["owned", "watched", "owned too"]);
        rig.own(0, MINUTE);
        rig.own(2, MINUTE);
        let done = rig.resignation.carry_out();
        assert_eq!((done.silenced, done.said), (names(["owned", "owned too"]), Said { sent: 4, refused: 0 }));
        assert_eq!(rig.heard(), ["owned", "owned too", "owned", "owned too"]);
        assert!(rig.resignation.deadlines.release_all().iter().all(|until| *until == MonotonicTime::ZERO));
    }

    #[test]
    fn a_lease_that_has_run_out_leaves_nothing_to_say() {
        let rig = rig(&["owned once"]);
        rig.own(0, Duration::ZERO);
        assert_eq!(rig.resignation.carry_out(), Done::default());
        assert!(rig.heard().is_empty());
    }

    #[test]
    fn the_second_time_there_is_nothing_to_do() {
        let rig = rig(&["owned"]);
        rig.own(0, MINUTE);
        assert_eq!(rig.resignation.carry_out().silenced, names(["owned"]));
        assert_eq!(rig.resignation.carry_out(), Done::default());
    }

    #[test]
    fn nothing_is_said_in_the_place_of_an_agent_that_has_a_successor() {
        let rig = succeeded_rig(&["owned"], || true);
        rig.own(0, MINUTE);
        let done = rig.resignation.carry_out();
        assert_eq!(done, Done { silenced: names(["owned"]), said: Said::default(), succeeded: true });
        assert!(rig.heard().is_empty());
    }

    #[test]
    fn a_successor_that_comes_in_between_ends_it() {
        let asked = std::cell::Cell::new(false);
        let rig = succeeded_rig(&["owned"], move || asked.replace(true));
        rig.own(0, MINUTE);
        let done = rig.resignation.carry_out();
        assert_eq!((done.said.sent, done.succeeded), (1, true));
    }

    #[test]
    fn an_owned_router_without_a_plan_is_silenced_all_the_same() {
        let mut rig = rig(&["forgotten"]);
        rig.resignation.plan(rig.slots[0].get(), None);
        rig.own(0, MINUTE);
        assert_eq!(rig.resignation.carry_out(), Done { silenced: names(["?"]), ..Done::default() });
    }
}
