//! The loop: wait, take commands, drain the sockets, then act on timers ([`conduct::turn`]).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::detecting::{self, Detecting};
use super::groups::Groups;
use super::outbox::{self, Outbox};
use super::routers::Routers;
use super::{Command, InstanceId, Report, Retired, Router, Shared, Snapshot};
use crate::types::{Family, MonotonicTime};
use crate::vrrp::conduct::{self, FRAMES_PER_WAKE};
use crate::vrrp::discard::Discard;
use crate::vrrp::machine::Event;
use crate::vrrp::receive::Packet;
use crate::vrrp::socket::PacketReceiver;
use crate::vrrp::sync_group::{self, Before, Members as _};

/// Commands taken per wake-up.
const COMMANDS_PER_WAKE: usize = 64;

/// Timers and commands acted on between two announcements of a driver that has no rest: of 255 instances that took over at
/// once all have announced after eight rounds of adverts.
const BETWEEN_ANNOUNCEMENTS: usize = 8;

/// How long before a takeover its way is rehearsed: a rehearsal takes 0.1 to 0.3 ms.
const REHEARSAL_LEAD: Duration = Duration::from_micros(500);

/// What a rehearsal must have before the takeover, or it would delay that.
const REHEARSAL_NEEDS: Duration = Duration::from_micros(300);

/// How long a rehearsal serves other instances as well.
const REHEARSED_FOR: Duration = Duration::from_millis(2);

/// How often the runtime's sign of life is looked for.
const PULSE: Duration = Duration::from_millis(500);

/// Pulses without a sign of life that make a fault: 3 s of a driver that does run.
const SILENT_PULSES: u32 = 6;

const COMMANDS: u64 = 0;
const TIMER: u64 = 1;
const FIRST_LISTENER: u64 = 2;

/// Room for events of one wake-up; what does not fit comes with the next.
const EVENTS: usize = 64;

/// One socket and the instances that it serves.
struct Listener {
    receiver: Box<PacketReceiver>,
    /// By virtual router id.
    routes: [Option<InstanceId>; 256],
}

pub(super) struct EventLoop {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    timer: OwnedFd,
    /// When the timer expires, or before: see [`EventLoop::arm`].
    armed_for: MonotonicTime,
    routers: Routers,
    groups: Groups,
    detecting: Detecting,
    outbox: Outbox,
    /// Timers and commands acted on since announcements were made.
    acted: usize,
    listeners: Vec<Option<Listener>>,
    pulse: Pulse,
    rehearsed: MonotonicTime,
    stopping: bool,
    /// All instances are silent: another process may go on in their place.
    paused: bool,
}

/// The watch over the runtime. It counts its own pulses, not time: a process that was stopped as a whole is no silent
/// runtime.
struct Pulse {
    next: MonotonicTime,
    last_beats: u64,
    silent: u32,
}

impl EventLoop {
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(
            &epoll,
            &shared.command_waits,
            epoll::EventData::new_u64(COMMANDS),
            epoll::EventFlags::IN,
        )?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        Ok(Self {
            shared,
            epoll,
            timer,
            armed_for: MonotonicTime::NEVER,
            routers: Routers::default(),
            groups: Groups::default(),
            detecting: Detecting::default(),
            outbox: Outbox::default(),
            acted: 0,
            listeners: Vec::new(),
            pulse: Pulse { next: MonotonicTime::now() + PULSE, last_beats: 0, silent: 0 },
            rehearsed: MonotonicTime::ZERO,
            stopping: false,
            paused: false,
        })
    }

    /// Until it is told to stop; false if it broke.
    pub(super) fn run(mut self) -> bool {
        while !self.stopping {
            if let Err(error) = self.turn() {
                self.shared.report(Report::Died(format!("the VRRP driver's event loop: {error}")));
                self.shared.wake_runtime();
                return false;
            }
        }
        true
    }

    fn turn(&mut self) -> io::Result<()> {
        let busy = self.routers.is_announcing() || self.detecting.stays_awake();
        if !busy {
            self.arm()?;
        }
        self.wait(busy)?;
        conduct::turn(self);
        self.announce();
        self.look_for_pulse();
        self.shared.wake_runtime();
        Ok(())
    }

    /// Waits for something to do, or only looks: `busy`.
    fn wait(&mut self, busy: bool) -> io::Result<()> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        let not_at_all = Timespec { tv_sec: 0, tv_nsec: 0 };
        let (events, _) = match epoll::wait(&self.epoll, &mut events, busy.then_some(&not_at_all)) {
            Ok(events) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            let mut count = [0u8; 8];
            match event.data.u64() {
                // Both only count; EAGAIN means that there was nothing to count.
                COMMANDS => {
                    let _ = rustix::io::read(&self.shared.command_waits, &mut count);
                }
                TIMER => {
                    let _ = rustix::io::read(&self.timer, &mut count);
                    self.armed_for = MonotonicTime::NEVER;
                }
                detecting::EVENT => self.detecting.is_readable(),
                _ => {}
            }
        }
        Ok(())
    }

    fn detect(&mut self) {
        let late = self.detecting.look();
        let moved = self.shared.moved.swap(false, Ordering::Relaxed);
        self.detecting.say(moved, &self.routers);
        if late && !self.paused {
            self.routers.each(|router| self.detecting.tell(router, &self.shared));
        }
    }

    /// Sets the timer, unless it expires early enough: most adverts put off what is next by less than that is away, and a
    /// wake-up for nothing once in a while is cheaper than a system call for each of them.
    fn arm(&mut self) -> io::Result<()> {
        let rehearsal = self.routers.next_takeover().0.before(REHEARSAL_LEAD);
        let rehearsal = if MonotonicTime::now() < rehearsal { rehearsal } else { MonotonicTime::NEVER };
        let next = self.next_due().min(rehearsal).min(self.pulse.next).min(self.detecting.next_timer());
        if self.armed_for <= next {
            return Ok(());
        }
        self.armed_for = next;
        // A time of zero would disarm the timer.
        let nanos = next.0.clamp(1, i64::MAX.unsigned_abs());
        let value = Timespec {
            tv_sec: (nanos / 1_000_000_000).cast_signed(),
            tv_nsec: (nanos % 1_000_000_000).cast_signed(),
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec { it_interval: never, it_value: value },
        )?;
        Ok(())
    }

    /// Rehearses a takeover that is about to come, and stays awake until then: a CPU that sleeps in between takes another
    /// 0.1 ms to wake, and forgets.
    fn rehearse(&mut self) {
        let now = MonotonicTime::now();
        let (due, Some(router)) = self.routers.next_takeover() else { return };
        let is_near = due.before(REHEARSAL_LEAD) <= now && now + REHEARSAL_NEEDS <= due;
        if !is_near || now.since(self.rehearsed) < REHEARSED_FOR {
            return;
        }
        router.rehearse();
        // Others may be due before.
        let next = self.routers.next().min(due);
        while MonotonicTime::now() < next {
            std::hint::spin_loop();
        }
        self.rehearsed = due;
    }

    fn drain_listeners(&mut self) {
        for listener in self.listeners.iter_mut().flatten() {
            let Listener { receiver, routes } = listener;
            let mut read = 0;
            while read < FRAMES_PER_WAKE {
                // Down, or gone: the runtime hears of it from the kernel, too.
                let Ok(frames) = receiver.receive() else { break };
                if frames.len() == 0 {
                    break;
                }
                read += frames.len();
                for frame in frames {
                    // What is no advertisement at all belongs to no instance, nor does a frame longer than any.
                    let Ok(packet) = Packet::parse(frame.bytes) else { continue };
                    let Some(id) = routes[usize::from(packet.virtual_router_id.get())] else { continue };
                    let heard = self.routers.with(id, |router| {
                        if frame.truncated {
                            router.discarded(&packet, Discard::Truncated, &self.shared);
                            return None;
                        }
                        let before = Before::of(router.machine());
                        let advert = router.receive(&packet, frame.arrival, &self.shared)?;
                        Some((before, advert))
                    });
                    let Some((before, advert)) = heard.flatten() else { continue };
                    self.groups.with(id, &mut self.routers, &self.shared, |group, member| {
                        sync_group::heard(group, member, before, advert, MonotonicTime::now());
                    });
                }
            }
        }
    }

    fn act_on_timers(&mut self) {
        let now = MonotonicTime::now();
        for _ in 0..outbox::MOST {
            let Some((due, id)) = self.routers.due(now) else { break };
            self.shared.vitals.acted(due, MonotonicTime::now());
            self.acted += 1;
            if let Some(work) = self.routers.with(id, |router| router.on_timer(&self.shared)).flatten() {
                self.outbox.push(id, work);
            }
        }
        self.outbox.send(&mut self.routers, &self.shared);
        if self.paused {
            return;
        }
        let (acted, vitals) = (&mut self.acted, &self.shared.vitals);
        self.groups.each(&mut self.routers, &self.shared, |group| {
            let due = sync_group::next_timer(group);
            if due <= now {
                vitals.acted(due, now);
                *acted += group.count();
                sync_group::on_timer(group, now);
            }
        });
    }

    /// When the next timer of an instance or a group is due.
    fn next_due(&mut self) -> MonotonicTime {
        if self.paused {
            return MonotonicTime::NEVER;
        }
        self.routers.next().min(self.groups.next(&mut self.routers, &self.shared))
    }

    /// Makes some announcements, once nobody's advertisement is due: what all instances own, and until when, comes first. A
    /// loop that is never done with the rest must announce as well: once all may have had their turn, and from then on
    /// between a few of them.
    fn announce(&mut self) {
        if !self.routers.is_announcing() {
            self.acted = 0;
            return;
        }
        let more_is_due = !self.shared.commands.is_empty() || self.next_due() <= MonotonicTime::now();
        if more_is_due && self.acted < self.routers.len() {
            return;
        }
        self.acted = if more_is_due { self.acted.saturating_sub(BETWEEN_ANNOUNCEMENTS) } else { 0 };
        self.routers.announce(&self.shared);
    }

    fn look_for_pulse(&mut self) {
        let now = MonotonicTime::now();
        self.shared.vitals.turned(now);
        if now < self.pulse.next {
            return;
        }
        self.pulse.next = now + PULSE;
        let beats = self.shared.beats.load(Ordering::Relaxed);
        self.pulse.silent =
            if beats == self.pulse.last_beats { self.pulse.silent.saturating_add(1) } else { 0 };
        self.pulse.last_beats = beats;
        let silent = self.pulse.silent >= SILENT_PULSES;
        self.routers.each(|router| router.runtime_is_silent(silent, &self.shared));
        self.groups.each(&mut self.routers, &self.shared, |group| sync_group::share_faults(group));
    }

    fn take_commands(&mut self) {
        for _ in 0..COMMANDS_PER_WAKE {
            let Some(command) = self.shared.commands.pop() else { return };
            self.acted += 1;
            self.take(command);
        }
        // The rest with the next turn, after sockets and timers have had theirs.
        let _ = rustix::io::write(&self.shared.command_waits, &1u64.to_ne_bytes());
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Add(id, router) => {
                self.routers.add(id, router);
                self.reroute();
                self.regroup();
            }
            Command::Remove(id) => {
                if let Some(router) = self.routers.remove(id) {
                    self.reroute();
                    self.regroup();
                    self.shared.report(Report::Retired(Retired::Router(router)));
                }
            }
            Command::Bind(id, binding) => {
                let former = self.routers.with(id, |router| router.bind(binding)).flatten();
                self.reroute();
                if let Some(binding) = former {
                    self.shared.report(Report::Retired(Retired::Binding(binding)));
                }
            }
            Command::Found(id, address, mac) => self.with(id, |router, _| router.learn(address, mac)),
            Command::Listen(receiver) => self.listen(receiver),
            Command::Unlisten(ifindex, family) => self.unlisten(ifindex, family),
            Command::Detect(detection) => self.detecting.start(&self.epoll, detection, &self.shared),
            Command::Undetect(ifindex) => self.detecting.stop(&self.epoll, ifindex, &self.shared),
            Command::Stop => self.stopping = true,
            Command::Inspect(id, number) => {
                let snapshot = self
                    .routers
                    .get(id)
                    .map(|router| Snapshot { covered: self.detecting.covered(router), ..router.snapshot() });
                self.shared.answer(number, snapshot);
            }
            Command::Resume(id, inheritance) => {
                self.with(id, |router, shared| router.resume(*inheritance, shared));
                // It may own by now.
                self.shared.moved.store(true, Ordering::Relaxed);
            }
            Command::Pause => self.pause(true),
            Command::GoOn => self.pause(false),
            Command::Announce(id) => self.with(id, Router::announce_again),
            Command::Reconfigure(id, parameters, grace) => {
                let before = self.routers.get(id).map(|router| Before::of(router.machine()));
                self.with(id, |router, shared| router.reconfigure(parameters, grace, shared));
                self.groups.with(id, &mut self.routers, &self.shared, |group, member| {
                    before.into_iter().for_each(|before| sync_group::follow(group, member, before));
                });
            }
            Command::Tell(id, event) => self.tell(id, event, None),
            Command::TellOf(id, event, since) => self.tell(id, event, Some(since)),
        }
    }

    fn pause(&mut self, paused: bool) {
        self.paused = paused;
        let shared = &self.shared;
        self.routers.each(|router| if paused { router.pause(shared) } else { router.go_on(shared) });
        // Nobody is to take a pause for the death of this host: for as long as it lasts nothing is claimed.
        self.shared.moved.store(true, Ordering::Relaxed);
    }

    /// An instance is told something by the runtime, and so is its sync group what follows from it; `since`: when it
    /// happened, if that is known.
    fn tell(&mut self, id: InstanceId, event: Event, since: Option<MonotonicTime>) {
        let shared = &self.shared;
        let told = self.routers.with(id, |router| {
            let tells = router.note_condition(event, since);
            let is_member = router.membership().is_some();
            // What a leaving member does from here on is no longer the group's.
            let leaves = is_member && event == Event::Shutdown;
            if leaves {
                router.leave_group();
            }
            if leaves || tells && !is_member {
                router.tell(event, shared);
            }
            leaves
        });
        if told == Some(true) {
            return self.regroup();
        }
        self.groups.with(id, &mut self.routers, &self.shared, |group, member| match event {
            Event::Fault | Event::Recovered => sync_group::share_faults(group),
            _ => sync_group::tell(group, member, event),
        });
        self.with(id, |router, _| router.heard_of_all());
    }

    /// Works out who is in which sync group.
    fn regroup(&mut self) {
        self.groups.regroup(&mut self.routers);
        self.groups.each(&mut self.routers, &self.shared, |group| sync_group::share_faults(group));
    }

    fn with(&mut self, id: InstanceId, act: impl FnOnce(&mut Router, &Shared)) {
        self.routers.with(id, |router| act(router, &self.shared));
    }

    fn listen(&mut self, receiver: Box<PacketReceiver>) {
        let free = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        let data = epoll::EventData::new_u64(FIRST_LISTENER + free as u64);
        if let Err(error) = epoll::add(&self.epoll, receiver.as_fd(), data, epoll::EventFlags::IN) {
            self.shared.report(Report::Died(format!("the VRRP driver cannot wait for a socket: {error}")));
            self.stopping = true;
            return;
        }
        if free == self.listeners.len() {
            self.listeners.push(None);
        }
        self.listeners[free] = Some(Listener { receiver, routes: [None; 256] });
        self.reroute();
    }

    fn unlisten(&mut self, ifindex: u32, family: Family) {
        for slot in &mut self.listeners {
            if slot.as_ref().is_some_and(|listener| {
                (listener.receiver.interface().index, listener.receiver.family()) == (ifindex, family)
            }) && let Some(listener) = slot.take()
            {
                let _ = epoll::delete(&self.epoll, listener.receiver.as_fd());
                self.shared.report(Report::Retired(Retired::Receiver(listener.receiver)));
            }
        }
    }

    /// Works out which socket's advertisements go to which instance.
    fn reroute(&mut self) {
        for listener in self.listeners.iter_mut().flatten() {
            listener.routes.fill(None);
            let (ifindex, family) = (listener.receiver.interface().index, listener.receiver.family());
            for (id, router) in self.routers.iter().filter(|(_, router)| router.listens_on(ifindex, family)) {
                listener.routes[usize::from(router.virtual_router_id().get())] = Some(id);
            }
        }
    }
}

impl conduct::Turn for EventLoop {
    fn take_commands(&mut self) {
        Self::take_commands(self);
        // Whoever announces has no time to spend.
        if !self.routers.is_announcing() {
            self.rehearse();
        }
    }

    fn drain_sockets(&mut self) {
        self.drain_listeners();
        // A sign of life may be the reason not to act on an expiry, too.
        self.detect();
    }

    fn act_on_timers(&mut self) {
        Self::act_on_timers(self);
    }
}
