//! The loop: wait, take commands, drain the sockets, then act on timers.

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
use super::{Command, InstanceId, Report, Retired, Router, Shared, Snapshot};
use crate::types::{Family, MonotonicTime};
use crate::vrrp::discard::Discard;
use crate::vrrp::machine::Event;
use crate::vrrp::receive::Packet;
use crate::vrrp::socket::PacketReceiver;
use crate::vrrp::sync_group::{self, Before};

/// Frames read from one socket per wake-up. More than a default receive buffer (212 992 bytes) holds of frames this
/// small, so that all that was waiting is read before a timer is acted on; and a bound, so that a flood cannot keep the
/// timers waiting.
const FRAMES_PER_WAKE: usize = 512;

/// Commands taken per wake-up.
const COMMANDS_PER_WAKE: usize = 64;

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
    armed_for: MonotonicTime,
    routers: Vec<Option<Box<Router>>>,
    groups: Groups,
    detecting: Detecting,
    listeners: Vec<Option<Listener>>,
    pulse: Pulse,
    rehearsed: MonotonicTime,
    stopping: bool,
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
            routers: Vec::new(),
            groups: Groups::default(),
            detecting: Detecting::default(),
            listeners: Vec::new(),
            pulse: Pulse { next: MonotonicTime::now() + PULSE, last_beats: 0, silent: 0 },
            rehearsed: MonotonicTime::ZERO,
            stopping: false,
        })
    }

    /// Until it is told to stop; false if it broke.
    pub(super) fn run(mut self) -> bool {
        while !self.stopping {
            if let Err(error) = self.turn() {
                self.shared.report(Report::Died(format!("the VRRP driver's event loop: {error}")));
                return false;
            }
        }
        true
    }

    fn turn(&mut self) -> io::Result<()> {
        self.arm()?;
        self.wait()?;
        self.take_commands();
        self.rehearse();
        // Before any timer: an advertisement that waits in a queue may be the reason not to act on it.
        self.drain_listeners();
        // So may a sign of life be.
        self.detect();
        self.act_on_timers();
        self.look_for_pulse();
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        let (events, _) = match epoll::wait(&self.epoll, &mut events, None) {
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
        self.detecting.say(moved, self.routers.iter().flatten().map(|router| &**router));
        if late {
            let routers = self.routers.iter_mut().flatten();
            routers.for_each(|router| self.detecting.tell(router, &self.shared));
        }
    }

    fn arm(&mut self) -> io::Result<()> {
        let now = MonotonicTime::now();
        let timers = self.routers.iter().flatten().map(|router| {
            let rehearsal = router.takes_over_at().before(REHEARSAL_LEAD);
            let rehearsal = if now < rehearsal { rehearsal } else { MonotonicTime::NEVER };
            // A member's timer is its group's.
            if router.membership().is_none() { router.next_timer().min(rehearsal) } else { rehearsal }
        });
        let mut next = timers.min().unwrap_or(MonotonicTime::NEVER).min(self.pulse.next);
        next = next.min(self.detecting.next_timer());
        self.groups.each(&mut self.routers, &self.shared, |group| {
            next = next.min(sync_group::next_timer(group));
        });
        if next == self.armed_for {
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
        if now.since(self.rehearsed) < REHEARSED_FOR {
            return;
        }
        let is_near = |at: MonotonicTime| at.before(REHEARSAL_LEAD) <= now && now + REHEARSAL_NEEDS <= at;
        let routers = self.routers.iter().flatten();
        let Some(router) = routers
            .filter(|router| is_near(router.takes_over_at()))
            .min_by_key(|router| router.takes_over_at())
        else {
            return;
        };
        router.rehearse();
        let due = router.takes_over_at();
        while MonotonicTime::now() < due {
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
                    let route = routes[usize::from(packet.virtual_router_id.get())];
                    let Some(id) = route else { continue };
                    let Some(router) = self.routers[usize::from(id.0)].as_mut() else { continue };
                    if frame.truncated {
                        router.discarded(&packet, Discard::Truncated, &self.shared);
                        continue;
                    }
                    let before = Before::of(router.machine());
                    let Some(advert) = router.receive(&packet, frame.arrival, &self.shared) else { continue };
                    self.groups.with(id, &mut self.routers, &self.shared, |group, member| {
                        sync_group::heard(group, member, before, advert, MonotonicTime::now());
                    });
                }
            }
        }
    }

    fn act_on_timers(&mut self) {
        let now = MonotonicTime::now();
        for router in self.routers.iter_mut().flatten() {
            if router.membership().is_none() && router.next_timer() <= now {
                router.tell(Event::Timer, &self.shared);
            }
        }
        self.groups.each(&mut self.routers, &self.shared, |group| {
            if sync_group::next_timer(group) <= now {
                sync_group::on_timer(group, now);
            }
        });
    }

    fn look_for_pulse(&mut self) {
        let now = MonotonicTime::now();
        if now < self.pulse.next {
            return;
        }
        self.pulse.next = now + PULSE;
        let beats = self.shared.beats.load(Ordering::Relaxed);
        self.pulse.silent =
            if beats == self.pulse.last_beats { self.pulse.silent.saturating_add(1) } else { 0 };
        self.pulse.last_beats = beats;
        let silent = self.pulse.silent >= SILENT_PULSES;
        for router in self.routers.iter_mut().flatten() {
            router.runtime_is_silent(silent, &self.shared);
        }
        self.groups.each(&mut self.routers, &self.shared, |group| sync_group::share_faults(group));
    }

    fn take_commands(&mut self) {
        for _ in 0..COMMANDS_PER_WAKE {
            let Some(command) = self.shared.commands.pop() else { return };
            self.take(command);
        }
        // The rest with the next turn, after sockets and timers have had theirs.
        let _ = rustix::io::write(&self.shared.command_waits, &1u64.to_ne_bytes());
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Add(id, router) => {
                let index = usize::from(id.0);
                if self.routers.len() <= index {
                    self.routers.resize_with(index + 1, || None);
                }
                self.routers[index] = Some(router);
                self.reroute();
                self.regroup();
            }
            Command::Remove(id) => {
                if let Some(router) = self.routers.get_mut(usize::from(id.0)).and_then(Option::take) {
                    self.reroute();
                    self.regroup();
                    self.shared.report(Report::Retired(Retired::Router(router)));
                }
            }
            Command::Bind(id, binding) => {
                let former = self.router(id).and_then(|router| router.bind(binding));
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
                let snapshot = self.routers.get(usize::from(id.0)).and_then(Option::as_ref).map(|router| {
                    Snapshot { covered: self.detecting.covered(router), ..router.snapshot() }
                });
                self.shared.answer(number, snapshot);
            }
            Command::Announce(id) => self.with(id, Router::announce_again),
            Command::Reconfigure(id, parameters, grace) => {
                let before = self.router(id).map(|router| Before::of(router.machine()));
                self.with(id, |router, shared| router.reconfigure(parameters, grace, shared));
                self.groups.with(id, &mut self.routers, &self.shared, |group, member| {
                    before.into_iter().for_each(|before| sync_group::follow(group, member, before));
                });
            }
            Command::Tell(id, event) => self.tell(id, event),
        }
    }

    /// An instance is told something by the runtime, and so is its sync group what follows from it.
    fn tell(&mut self, id: InstanceId, event: Event) {
        let Some(router) = self.routers.get_mut(usize::from(id.0)).and_then(Option::as_mut) else { return };
        let tells = router.note_condition(event);
        if router.membership().is_some() && event == Event::Shutdown {
            // What it does from here on is no longer the group's.
            router.leave_group();
            self.regroup();
            return self.with(id, |router, shared| router.tell(event, shared));
        }
        if router.membership().is_none() {
            if tells {
                router.tell(event, &self.shared);
            }
            return;
        }
        self.groups.with(id, &mut self.routers, &self.shared, |group, member| match event {
            Event::Fault | Event::Recovered => sync_group::share_faults(group),
            _ => sync_group::tell(group, member, event),
        });
    }

    /// Works out who is in which sync group.
    fn regroup(&mut self) {
        self.groups.regroup(&mut self.routers);
        self.groups.each(&mut self.routers, &self.shared, |group| sync_group::share_faults(group));
    }

    fn router(&mut self, id: InstanceId) -> Option<&mut Router> {
        self.routers.get_mut(usize::from(id.0))?.as_deref_mut()
    }

    fn with(&mut self, id: InstanceId, act: impl FnOnce(&mut Router, &Shared)) {
        if let Some(router) = self.routers.get_mut(usize::from(id.0)).and_then(Option::as_mut) {
            act(router, &self.shared);
        }
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
            for (index, router) in self.routers.iter().enumerate() {
                let Some(router) = router.as_ref().filter(|router| router.listens_on(ifindex, family)) else {
                    continue;
                };
                let id = u16::try_from(index).expect("instance ids are u16");
                listener.routes[usize::from(router.virtual_router_id().get())] = Some(InstanceId(id));
            }
        }
    }
}
