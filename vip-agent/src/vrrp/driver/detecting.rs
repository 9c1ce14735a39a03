//! Fast detection in the driver: its sockets and stamps, and what it tells the routers.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::epoll;
use rustix::fd::OwnedFd;
use vip_common::heartbeat::{Claims, Key, Kind, Message, Owned, Succession};

use super::routers::Routers;
use super::{Report, Retired, Router, Shared};
use crate::dataplane::PeerWords;
use crate::types::MonotonicTime;
use crate::vrrp::detect::{self, Covered, Frame};
use crate::vrrp::machine::State;
use crate::vrrp::socket::HeartbeatSocket;

/// What tells in epoll that some socket of this part has frames.
pub(super) const EVENT: u64 = u64::MAX;

/// Frames read from one socket per turn: a flood delays nothing by more.
const FRAMES_PER_TURN: usize = 64;

/// Frames sent per turn: a heartbeat, claims, a question, and what may be due again.
const SENT_PER_TURN: usize = 4;

/// Fast detection on one interface, prepared beforehand.
#[derive(Debug)]
pub struct Detection {
    socket: HeartbeatSocket,
    words: PeerWords,
    key: Key,
    link: detect::Link,
}

impl Detection {
    /// On the socket's interface, for the node with this number.
    pub fn new(socket: HeartbeatSocket, words: PeerWords, key: Key, node: u64) -> Self {
        let link = detect::Link::new(node, MonotonicTime::now());
        Self { socket, words, key, link }
    }

    fn ifindex(&self) -> u32 {
        self.socket.interface().index
    }

    /// Takes in what the program passed up.
    fn receive(&mut self) {
        let Self { socket, words, key, link } = self;
        let mut buffer = HeartbeatSocket::buffer();
        for _ in 0..FRAMES_PER_TURN {
            let Some(payload) = socket.receive(&mut buffer) else { return };
            let now = MonotonicTime::now();
            match Message::kind(payload, 0) {
                Some(Kind::Claims) => {
                    if let Some(claims) = Claims::open(payload, 0, *key) {
                        let ifindex = socket.interface().index;
                        link.hear(claims, now, |node| words.follow(node, ifindex), |slot| words.forget(slot));
                    }
                }
                // Only what has our seal tells anything about the program: it drops what has not.
                Some(kind) => {
                    let message = Message::read(payload, 0, kind).and_then(|message| message.verify(*key));
                    if message.is_some_and(|message| message.node != link.node()) {
                        link.is_blind(now);
                    }
                }
                None => {}
            }
        }
    }

    /// What the routers here own, would take over, and how often they want to say so.
    fn ask_routers(&mut self, routers: &Routers, now: MonotonicTime) {
        let (mut owned, mut succession) = (Owned::default(), Succession::default());
        let (mut interval, mut multiplier) = (Duration::MAX, u8::MAX);
        let ifindex = self.ifindex();
        for (_, router) in routers.iter() {
            let Some(settings) = router.detects_on(ifindex) else { continue };
            if router.answers(now) {
                router.add_to(&mut owned);
                interval = interval.min(settings.interval);
            } else if router.machine().state() == State::Backup && !router.is_paused() {
                router.add_to_succession(&mut succession);
                multiplier = multiplier.min(settings.multiplier);
            }
        }
        if owned.is_empty() {
            interval = detect::IDLE;
        }
        self.link.own(owned, interval, now);
        self.link.watch(succession, multiplier, now);
    }

    fn look(&mut self, now: MonotonicTime) -> bool {
        let words = &self.words;
        self.link.look(now, |slot| words.signs(slot), |slot| words.forget(slot))
    }

    fn send(&mut self) {
        for _ in 0..SENT_PER_TURN {
            // Anew for each: what is judged by it was not sent before.
            match self.link.next_frame(MonotonicTime::now()) {
                Some(Frame::Message(message)) => self.socket.send(&message.sealed(self.key)),
                Some(Frame::Claims(claims)) => self.socket.send(&claims.sealed(self.key)),
                None => return,
            }
        }
    }
}

/// All interfaces.
#[derive(Debug, Default)]
pub(super) struct Detecting {
    /// Boxed as they came, and go: the driver thread does not allocate.
    links: Vec<Box<Detection>>,
    /// Some socket has frames.
    readable: bool,
    /// Somebody's silence was told, so that its end must be, too.
    told: bool,
}

impl Detecting {
    /// A socket has frames.
    pub(super) fn is_readable(&mut self) {
        self.readable = true;
    }

    pub(super) fn start(&mut self, epoll: &OwnedFd, detection: Box<Detection>, shared: &Shared) {
        self.stop(epoll, detection.ifindex(), shared);
        let data = epoll::EventData::new_u64(EVENT);
        // Without it nobody is ever known, and adverts decide.
        let _ = epoll::add(epoll, detection.socket.as_fd(), data, epoll::EventFlags::IN);
        self.links.push(detection);
    }

    pub(super) fn stop(&mut self, epoll: &OwnedFd, ifindex: u32, shared: &Shared) {
        let Some(index) = self.links.iter().position(|link| link.ifindex() == ifindex) else { return };
        let mut detection = self.links.swap_remove(index);
        let now = MonotonicTime::now();
        detection.link.own(Owned::default(), detect::IDLE, now);
        detection.send();
        let _ = epoll::delete(epoll, detection.socket.as_fd());
        detection.link.forget_all(|slot| detection.words.forget(slot));
        self.told = true;
        shared.report(Report::Retired(Retired::Detection(detection)));
    }

    pub(super) fn next_timer(&self) -> MonotonicTime {
        let now = MonotonicTime::now();
        self.links.iter().map(|link| link.link.next_timer(now)).min().unwrap_or(MonotonicTime::NEVER)
    }

    /// Whether the driver must not sleep now.
    pub(super) fn stays_awake(&self) -> bool {
        let now = MonotonicTime::now();
        self.links.iter().any(|link| link.link.stays_awake(now))
    }

    /// Says what is due; to be called after [`Self::look`], or the living would be asked. `moved`: routers may own other VIPs
    /// than before.
    pub(super) fn say(&mut self, moved: bool, routers: &Routers) {
        for detection in &mut self.links {
            let now = MonotonicTime::now();
            if moved || detection.link.next_timer(now) <= now {
                detection.ask_routers(routers, now);
                detection.send();
            }
        }
    }

    /// Looks at the stamps. Whether routers are to be told ([`Self::tell`]): of somebody's silence, or of its end.
    pub(super) fn look(&mut self) -> bool {
        let readable = std::mem::take(&mut self.readable);
        let now = MonotonicTime::now();
        let mut late = false;
        for detection in &mut self.links {
            if readable {
                detection.receive();
            }
            late |= detection.look(now);
        }
        std::mem::replace(&mut self.told, late) || late
    }

    /// Tells one router how its owner is.
    pub(super) fn tell(&self, router: &mut Router, shared: &Shared) {
        let now = MonotonicTime::now();
        let life = self.of(router).map(|(detection, settings)| {
            let (family, id) = router.watches();
            detection.link.life(family, id, settings.multiplier, router.last_advert(), now)
        });
        router.owner_is(life.unwrap_or_default(), shared);
    }

    /// The owner of a router's VIPs, if it is watched.
    pub(super) fn covered(&self, router: &Router) -> Option<Covered> {
        let (detection, _) = self.of(router)?;
        let (family, id) = router.watches();
        detection.link.covered(family, id, MonotonicTime::now())
    }

    fn of(&self, router: &Router) -> Option<(&Detection, detect::Settings)> {
        self.links.iter().find_map(|link| Some((&**link, router.detects_on(link.ifindex())?)))
    }
}
