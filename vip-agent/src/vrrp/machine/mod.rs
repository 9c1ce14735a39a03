//! The state machine of one VRRP instance (RFC 9568, 6.4; RFC 3768, 6.4): a pure function of state, event and time.
//!
//! No sockets, no clock, no allocation: the driver thread feeds events in and carries actions out; tests and
//! simulated networks do the same with clocks of their own.
//!
//! What goes past the RFC:
//! - **The lease.** An Active router answers for its VIPs only while its lease runs: three intervals from the last
//!   advertisement that was accepted for sending. A router that was stopped, starved or muted for longer is fenced: it
//!   is Backup again before it acts on anything else ([`Cause::LeaseExpired`]).
//! - **Make before break.** A leaving owner says priority 0 but goes on answering, for one interval + 100 ms at most,
//!   until it hears the new owner ([`State::Draining`]). One second + 100 ms in version 2, whose skews do not grow with
//!   the interval.
//! - **Staging.** The VIPs' local addresses are put in place before a takeover that is foreseeable, and taken away if an
//!   advertisement comes after all.
//! - **An owner that falls.** An owner that held a Backup and now says less than it did, and less than that Backup's own
//!   priority, wants to be replaced: the Backup waits a skew and not for the rest of Active_Down.
//! - **Asking before taking.** A router that must not preempt, and has heard nobody since it began, says priority 1 before
//!   it takes over: an owner answers that at once ([`Action::Ask`]). If a former owner is met all the same, soon after,
//!   the VIPs go back to it ([`Cause::HandBack`]).
//! - **A dead host.** Fast detection ([`super::detect`]) may know that the owner's host gives no sign of life. It is no reason
//!   to promote: it ends the wait for adverts early, and the skew stays, scaled to what was waited instead
//!   ([`OwnerLife::Dead`]).
//! - **The last resort.** An owner that is unwell, as its probes say, offers the VIPs by priority 0 and goes on answering. If
//!   nobody takes them it keeps them, by the lowest priority, so that any node that becomes well takes over
//!   ([`Event::Unwell`], `all_failed: open`).
//! - **Sync groups.** What happens to one member is made to happen to the others by [`super::sync_group`].

mod active;
mod backup;
mod carrying;
mod draining;
#[cfg(test)]
mod tests;
mod timing;
mod unwell;

use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use serde::Serialize;

use self::active::Active;
use self::backup::Backup;
pub use self::backup::{DownTimer, STAGING_PATIENCE};
pub use self::carrying::{Carried, longer};
use self::draining::{Draining, Then};
pub use self::timing::AdvertPhase;
use crate::types::{AdvertInterval, MonotonicTime, Priority, Version};

/// How long a leaving owner goes on answering beyond the longest skew: time for the heir's staging and its first frame.
pub const DRAIN_MARGIN: Duration = Duration::from_millis(100);

/// Intervals that one accepted advertisement keeps an owner answering. Backups wait for three and a skew, so the owner
/// is silent before anyone else begins.
pub const LEASE_INTERVALS: u32 = 3;

/// How long after such a takeover a router that must not preempt, and has heard nobody since it began, gives the VIPs back
/// to an owner that it meets: its port may have been the one that was closed. A spanning tree port opens within 50 s.
pub const SETTLING: Duration = Duration::from_secs(60);

/// What an operator sets for one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Priority in the election.
    pub priority: Priority,
    /// Interval of our own advertisements; tells the version.
    pub interval: AdvertInterval,
    /// When regular advertisements go out; `None` = every interval from the takeover on.
    pub phase: Option<AdvertPhase>,
    /// Whether a lower-priority owner is replaced.
    pub preempt: bool,
    /// How long a lower-priority owner is seen before it is replaced.
    pub preempt_delay: Duration,
    /// How long after start the instance keeps out of the election.
    pub hold_down: Duration,
    /// Whether local addresses are staged before a takeover (`local_address: active`).
    pub staging: bool,
    /// Announcements after the one at takeover.
    pub announce_repeat: u16,
    /// Time between those.
    pub announce_interval: Duration,
    /// Time between announcements after those; `None` = never again.
    pub announce_refresh: Option<Duration>,
}

impl Parameters {
    /// Whether an owner of lower priority keeps the VIPs. The address owner always preempts (RFC 9568, 6.1).
    fn defers(&self) -> bool {
        !self.preempt && self.priority != Priority::OWNER
    }

    /// The version that this router speaks.
    pub const fn version(&self) -> Version {
        self.interval.version()
    }

    /// When the regular advertisement after one at `now` goes out: in an interval at the latest, so that no Backup waits
    /// for longer than it should.
    fn next_advert(&self, now: MonotonicTime) -> MonotonicTime {
        let interval = self.interval.duration();
        self.phase.map_or(now + interval, |phase| phase.next(interval, now))
    }
}

/// States of RFC 9568, 6.3, and two of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not taking part: before start (and its hold-down) and after shutdown.
    Initialize,
    /// Watching the owner.
    Backup,
    /// Owning the VIPs.
    Active,
    /// Leaving, or kept out by an operator; may still answer until the heir is heard.
    Draining,
    /// Not able to own: interface down, for example.
    Fault,
}

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Begin taking part.
    Startup,
    /// Leave for good, handing over first.
    Shutdown,
    /// A valid advertisement of this virtual router by another router.
    Advert(PeerAdvert),
    /// The time of [`Machine::next_timer`] has come, and the receive queues were read before.
    Timer,
    /// The advertisement that the last [`Action::Advertise`] asked for was accepted for sending; the time is the `now` of
    /// the event that asked.
    AdvertSent(MonotonicTime),
    /// It was refused (EPERM, ENETDOWN, ENOBUFS, ...): nothing was renewed, and what followed it was not carried out.
    /// Or priority 0 was, before an [`Action::HoldLease`].
    AdvertFailed,
    /// The local addresses asked for by [`Action::Stage`] are in place.
    Staged,
    /// The instance can no longer serve.
    Fault,
    /// It can again.
    Recovered,
    /// The instance should not serve if another can (`all_failed: open`).
    Unwell,
    /// It may again.
    Well,
    /// What fast detection knows of the owner has changed.
    Owner(OwnerLife),
    /// An operator takes the instance out.
    Drain,
    /// And in again.
    Undrain,
    /// Another member of the sync group lost the VIPs: this one gives its own up.
    GroupLost,
    /// Another member of the sync group has heard its heir: this one does not take its VIPs back for want of one.
    GroupHandedOver,
}

/// What fast detection knows of the owner's host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnerLife {
    /// It gives signs of life; or nothing is known, which is the same: adverts decide.
    #[default]
    Alive,
    /// They are late: a takeover is foreseeable.
    Suspected,
    /// There was none for long enough.
    Dead {
        /// When that was so: the detection time after the last sign of life.
        since: MonotonicTime,
        /// What the skew is a fraction of: the detection time.
        longest_skew: Duration,
        /// How much longer others are given, which live and come first.
        others_first: Duration,
    },
}

/// An advertisement as the machine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAdvert {
    /// 0 = "I am leaving", 255 = address owner.
    pub priority: u8,
    /// The interval that the sender announces; tells the version that it speaks.
    pub interval: AdvertInterval,
    /// The sender's address compared with ours, unsigned and in network order: breaks ties between Active routers.
    pub address: Ordering,
    /// Where it came from: tells routers apart.
    pub sender: IpAddr,
}

impl PeerAdvert {
    /// Whether it may be a question ([`Action::Ask`]): an owner with the lowest priority says the same.
    fn is_question(&self) -> bool {
        self.priority == Priority::LOWEST.get()
    }
}

/// What the driver has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send our advertisement; if it was accepted store the lease ([`LEASE_INTERVALS`] x interval from the `now` of the
    /// event that led here) and report [`Event::AdvertSent`], otherwise report [`Event::AdvertFailed`] and drop what
    /// follows. From that `now` and not from the send: a thread that is stopped in between must not resume as an owner.
    Advertise,
    /// Send an advertisement with priority 0. Its failure is of no consequence.
    AdvertiseLeaving,
    /// Send our advertisement without renewing anything: the winner of a healed split announces only if it hears that
    /// there was another owner. Its failure is of no consequence.
    AdvertiseYielding,
    /// Send an advertisement with priority 1: whoever owns answers it at once (RFC 9568, 6.4.3: the lower priority is
    /// told who is Active) and announces again; nobody yields to it. Its failure is of no consequence.
    Ask,
    /// If the [`Action::AdvertiseLeaving`] before it was accepted, the ownership word becomes this time, be it earlier
    /// or later than it was: peers now wait for us to hear them, not for our lease. Otherwise they do wait for the
    /// lease: the word must not become later, and [`Event::AdvertFailed`] is reported.
    HoldLease(MonotonicTime),
    /// Clear the ownership word.
    Release,
    /// Forward the frames of connections that the former owner still serves to it.
    ForwardToFormer,
    /// Forward nothing.
    ForwardNothing,
    /// Send gratuitous ARPs and unsolicited neighbour advertisements for all VIPs.
    Announce,
    /// Put the VIPs' local addresses in place and report [`Event::Staged`].
    Stage,
    /// Take them away.
    Unstage,
    /// Take them away after the grace time, so that open connections can end.
    UnstageAfterGrace,
}

/// Why a state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The instance started.
    Startup,
    /// No advertisement for Active_Down.
    Timeout,
    /// No sign of life of the owner's host for the detection time.
    OwnerDead,
    /// The owner said priority 0.
    PriorityZero,
    /// A lower-priority owner is replaced.
    Preempt,
    /// A router with higher priority (or equal and a greater address) owns.
    HigherPriority,
    /// Our lease had run out: stopped, starved or muted for three intervals.
    LeaseExpired,
    /// Our first advertisement could not be sent.
    AdvertRefused,
    /// Interface or health.
    Fault,
    /// The fault has gone.
    Recovered,
    /// An operator drained the instance.
    Drain,
    /// An operator put it back.
    Undrain,
    /// The heir was heard, or never needed.
    HandedOver,
    /// Nobody took over from a draining owner.
    NoHeir,
    /// An owner of lower priority was there before, and must not be preempted.
    HandBack,
    /// Another member of the sync group lost.
    SyncGroup,
    /// The agent ends.
    Shutdown,
}

/// A change of state, for log, status and metrics; from Draining to itself when the heir of a drain was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Why.
    pub cause: Cause,
}

/// What one event leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// To be carried out in order.
    pub actions: ArrayVec<Action, 8>,
    /// The change of state, if there was one. Both a fence and what follows it can happen in one event: the last counts.
    pub transition: Option<Transition>,
}

/// One virtual router, for all of its families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    parameters: Parameters,
    phase: Phase,
    /// An operator keeps the instance out; survives a fault.
    drained: bool,
    /// The instance cannot serve; survives a drain.
    faulty: bool,
    /// It should not, if another can.
    unwell: bool,
    /// It owns all the same, for want of another, or did when its lease ran out.
    last_resort: bool,
    /// The priority in the election but for that.
    priority: Priority,
    /// The interval that another owner announced last, even before a restart.
    remembered: Option<AdvertInterval>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Takes part from this time on; NEVER before start and after shutdown.
    Initialize {
        begins: MonotonicTime,
    },
    Backup(Backup),
    Active(Active),
    Draining(Draining),
    Fault,
}

impl Machine {
    /// A machine in Initialize.
    pub fn new(parameters: Parameters) -> Self {
        Self {
            parameters,
            phase: Phase::Initialize { begins: MonotonicTime::NEVER },
            drained: false,
            faulty: false,
            unwell: false,
            last_resort: false,
            priority: parameters.priority,
            remembered: None,
        }
    }

    /// Tells it what interval another owner announced before this machine was made: without preemption the first wait
    /// is by that, if it is the longer one.
    #[must_use]
    pub fn remembering(self, interval: Option<AdvertInterval>) -> Self {
        Self { remembered: interval, ..self }
    }

    /// The parameters in force: the priority is what we advertise, even as a last resort.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The state in the words of RFC 9568.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Initialize { .. } => State::Initialize,
            Phase::Backup(_) => State::Backup,
            Phase::Active(_) => State::Active,
            Phase::Draining(_) => State::Draining,
            Phase::Fault => State::Fault,
        }
    }

    /// Whether this router may be answering for the VIPs at `now`.
    pub fn owns(&self, now: MonotonicTime) -> bool {
        match &self.phase {
            Phase::Active(active) => now < active.lease_until,
            Phase::Draining(draining) => draining.answers_until.is_some_and(|until| now < until),
            _ => false,
        }
    }

    /// Whether this router is leaving and goes on answering until its heir is heard.
    pub fn is_handing_over(&self) -> bool {
        matches!(&self.phase, Phase::Draining(draining) if draining.answers_until.is_some())
    }

    /// Whether it cannot serve, as told by [`Event::Fault`]; also before it has begun.
    pub fn is_faulty(&self) -> bool {
        self.faulty
    }

    /// Whether this is a Backup that an owner has held within the last interval.
    pub fn has_heard_an_owner(&self, now: MonotonicTime) -> bool {
        matches!(&self.phase, Phase::Backup(backup) if backup.is_held(now))
    }

    /// The interval by which a Backup waits: its owner's, or our own.
    pub fn interval(&self) -> AdvertInterval {
        match &self.phase {
            Phase::Backup(backup) => backup.interval(),
            _ => self.parameters.interval,
        }
    }

    /// When [`Event::Timer`] is due; `NEVER` if it is not.
    pub fn next_timer(&self) -> MonotonicTime {
        match &self.phase {
            Phase::Initialize { begins } => *begins,
            Phase::Backup(backup) => backup.next_timer(&self.parameters),
            Phase::Active(active) => active.next_timer(),
            Phase::Draining(draining) => draining.next_timer(),
            Phase::Fault => MonotonicTime::NEVER,
        }
    }

    /// When this router takes over unless something is heard before; `None` if it is not Backup.
    pub fn takes_over_at(&self) -> Option<MonotonicTime> {
        match &self.phase {
            Phase::Backup(backup) => Some(backup.take_over_at(&self.parameters)),
            _ => None,
        }
    }

    /// Takes one event in.
    pub fn handle(&mut self, event: Event, now: MonotonicTime) -> Output {
        let mut output = Output::default();
        if let Event::AdvertSent(at) = event {
            if let Phase::Active(active) = &mut self.phase {
                active.renew(at, &self.parameters);
            }
            return output;
        }
        self.fence(event == Event::AdvertFailed, now, &mut output);
        match event {
            Event::Startup => self.startup(now, &mut output),
            Event::Shutdown => self.shutdown(now, &mut output),
            Event::Advert(advert) => self.advert(advert, now, &mut output),
            Event::Timer => self.timer(now, &mut output),
            Event::AdvertSent(_) => {}
            Event::AdvertFailed => self.leaving_refused(),
            Event::Staged => self.staged(),
            Event::Fault => self.fault(&mut output),
            Event::Recovered => self.recovered(now, &mut output),
            Event::Unwell => self.unwell(now, &mut output),
            Event::Well => self.well(now, &mut output),
            Event::Owner(life) => self.owner_life(life, now, &mut output),
            Event::Drain => self.drain(now, &mut output),
            Event::Undrain => self.undrain(now, &mut output),
            Event::GroupLost => self.group_lost(now, &mut output),
            Event::GroupHandedOver => self.group_handed_over(),
        }
        output
    }

    /// Takes new parameters in, in whatever state the machine is. An owner tells its peers at once.
    pub fn reconfigure(&mut self, parameters: Parameters, now: MonotonicTime) -> Output {
        let mut output = Output::default();
        self.fence(false, now, &mut output);
        let before = std::mem::replace(&mut self.parameters, parameters);
        self.priority = parameters.priority;
        self.be_last_resort(self.last_resort);
        let parameters = self.parameters;
        if before == parameters {
            return output;
        }
        let first_interval = self.first_interval();
        match &mut self.phase {
            Phase::Backup(backup) => {
                backup.reconfigure(&before, &parameters, first_interval, now, &mut output);
            }
            Phase::Active(active) => active.reconfigure(&before, &parameters, now, &mut output),
            Phase::Initialize { .. } | Phase::Draining(_) | Phase::Fault => {}
        }
        output
    }

    /// Announces the VIPs out of turn: some were added, or a neighbour cache is known to be wrong.
    pub fn announce_again(&mut self, now: MonotonicTime) -> Output {
        let mut output = Output::default();
        if let Phase::Active(active) = &mut self.phase
            && now < active.lease_until
        {
            active.announce(now, &self.parameters, &mut output);
        }
        output
    }

    fn startup(&mut self, now: MonotonicTime, output: &mut Output) {
        let Phase::Initialize { begins: begins @ MonotonicTime::NEVER } = &mut self.phase else { return };
        *begins = now + self.parameters.hold_down;
        if self.parameters.hold_down.is_zero() {
            self.begin(Cause::Startup, now, output);
        }
    }

    /// Leaves Initialize, Fault or Draining for the state that the node's condition allows.
    fn begin(&mut self, cause: Cause, now: MonotonicTime, output: &mut Output) {
        self.be_last_resort(false);
        if self.faulty || self.unwell {
            self.enter(Phase::Fault, cause, output);
        } else if self.drained {
            self.enter(Phase::Draining(Draining::drained()), cause, output);
        } else if self.parameters.priority == Priority::OWNER {
            self.become_active(cause, now, output);
        } else {
            self.watch(cause, now, output);
        }
    }

    /// Becomes a Backup that has heard nobody yet.
    fn watch(&mut self, cause: Cause, now: MonotonicTime, output: &mut Output) {
        self.enter(Phase::Backup(Backup::arm(self.first_interval(), now)), cause, output);
    }

    /// The interval to wait by until an owner is heard. One that is not to be preempted is given its own time to speak.
    fn first_interval(&self) -> AdvertInterval {
        let own = self.parameters.interval;
        match self.remembered {
            // Version 2 knows no other interval than our own.
            Some(owners @ AdvertInterval::V3(_))
                if self.parameters.defers()
                    && owners.version() == own.version()
                    && owners.duration() > own.duration() =>
            {
                owners
            }
            _ => own,
        }
    }

    fn shutdown(&mut self, now: MonotonicTime, output: &mut Output) {
        match &mut self.phase {
            Phase::Active(_) => self.leave(Then::End, now, output),
            Phase::Draining(draining) if draining.answers_until.is_some() => draining.then = Then::End,
            _ => {
                output.actions.push(Action::Unstage);
                let from = self.state();
                self.phase = Phase::Initialize { begins: MonotonicTime::NEVER };
                // Told also by one that has not begun yet: somebody waits for its end.
                output.transition = Some(Transition { from, to: State::Initialize, cause: Cause::Shutdown });
            }
        }
    }

    fn advert(&mut self, advert: PeerAdvert, now: MonotonicTime, output: &mut Output) {
        if advert.interval.version() != self.parameters.version() {
            return;
        }
        if advert.priority > 0 {
            self.remembered = Some(advert.interval);
        }
        match self.phase {
            Phase::Backup(_) => self.advert_while_backup(advert, now, output),
            Phase::Active(_) => self.advert_while_active(advert, now, output),
            Phase::Draining(_) => self.advert_while_draining(advert, now, output),
            Phase::Initialize { .. } | Phase::Fault => {}
        }
    }

    fn timer(&mut self, now: MonotonicTime, output: &mut Output) {
        match self.phase {
            Phase::Initialize { begins } if begins <= now => self.begin(Cause::Startup, now, output),
            Phase::Backup(_) => self.timer_while_backup(now, output),
            Phase::Active(_) => self.timer_while_active(now, output),
            Phase::Draining(_) => self.timer_while_draining(now, output),
            Phase::Initialize { .. } | Phase::Fault => {}
        }
    }

    fn fault(&mut self, output: &mut Output) {
        self.faulty = true;
        self.be_last_resort(false);
        match &self.phase {
            Phase::Fault | Phase::Initialize { .. } => return,
            Phase::Backup(_) => output.actions.push(Action::Unstage),
            Phase::Draining(draining) if draining.answers_until.is_none() => {}
            Phase::Active(_) | Phase::Draining(_) => {
                // Silent first: the heir may be quicker than our next instruction.
                output.actions.extend([
                    Action::Release,
                    Action::AdvertiseLeaving,
                    Action::ForwardNothing,
                    Action::UnstageAfterGrace,
                ]);
            }
        }
        let gone_for_good = matches!(&self.phase, Phase::Draining(draining) if draining.then == Then::End);
        let next =
            if gone_for_good { Phase::Initialize { begins: MonotonicTime::NEVER } } else { Phase::Fault };
        self.enter(next, Cause::Fault, output);
    }

    fn recovered(&mut self, now: MonotonicTime, output: &mut Output) {
        self.faulty = false;
        if self.phase == Phase::Fault && !self.unwell {
            self.begin(Cause::Recovered, now, output);
        }
    }

    fn enter(&mut self, phase: Phase, cause: Cause, output: &mut Output) {
        let from = self.state();
        self.phase = phase;
        let to = self.state();
        if from != to {
            output.transition = Some(Transition { from, to, cause });
        }
    }
}
