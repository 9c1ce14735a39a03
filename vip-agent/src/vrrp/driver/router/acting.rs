//! The hands of a router: sockets, ownership word and reports, by which [`conduct`] carries out actions.

use super::super::{Report, Shared, Unstage};
use super::{REPORT_GAP, Router, Stopwatch};
use crate::types::{MacAddr, MonotonicTime};
use crate::vrrp::conduct::{self, Message};
use crate::vrrp::machine::{Machine, Transition};
use crate::vrrp::socket::SendError;

/// A router while it carries out what one event led to.
pub(super) struct Acting<'a> {
    pub(super) router: &'a mut Router,
    pub(super) stopwatch: Stopwatch,
    pub(super) shared: &'a Shared,
}

impl conduct::Effects for Acting<'_> {
    /// `None` = there are no sockets at present, or it is too late.
    type Refusal = Option<SendError>;

    fn machine(&mut self) -> &mut Machine {
        &mut self.router.machine
    }

    fn now(&self) -> MonotonicTime {
        MonotonicTime::now()
    }

    fn families(&self) -> Result<usize, Option<SendError>> {
        Ok(self.router.binding.as_ref().ok_or(None)?.families.len())
    }

    fn refused_family(&mut self) -> &mut usize {
        &mut self.router.refused_family
    }

    fn send(&mut self, message: Message, family: usize) -> Result<(), Option<SendError>> {
        let binding = self.router.binding.as_ref().ok_or(None)?;
        let family = binding.families.get(family).ok_or(None)?;
        let adverts = match message {
            Message::Advert | Message::Yielding => &family.adverts,
            Message::Leaving => &family.leaving,
        };
        family.sender.send(adverts).map_err(Some)
    }

    fn too_late() -> Option<SendError> {
        None
    }

    fn renew(&mut self, until: MonotonicTime) {
        self.router.words.store(self.router.slot, until);
        self.stopwatch.flip();
        self.router.adverts.sent += 1;
        self.router.refusal = None;
    }

    fn hold(&mut self, until: MonotonicTime) {
        self.router.words.store(self.router.slot, until);
    }

    fn cap(&mut self, until: MonotonicTime) {
        self.router.words.cap(self.router.slot, until);
    }

    fn release(&mut self) {
        self.router.words.store(self.router.slot, MonotonicTime::ZERO);
        self.stopwatch.flip();
    }

    fn refused(&mut self, refusal: Option<SendError>) {
        let router = &mut *self.router;
        router.adverts.refused += 1;
        router.refusal.clone_from(&refusal);
        let now = MonotonicTime::now();
        if let Some(error) = refusal
            && now.since(router.refusal_reported) >= REPORT_GAP
        {
            router.refusal_reported = now;
            self.shared.report(Report::Refused(router.id, error));
        }
    }

    fn decided_anew(&mut self, at: MonotonicTime) {
        self.stopwatch = Stopwatch::start(at, at, at);
    }

    fn forward_to_former(&mut self) {
        self.router.forward_to_former();
    }

    fn forward_nothing(&mut self) {
        self.router.words.hand_over(self.router.slot, MacAddr::default(), MonotonicTime::ZERO);
    }

    fn announce(&mut self, at_takeover: bool) {
        self.router.announce(!at_takeover, &mut self.stopwatch);
    }

    fn stage(&mut self) {
        self.shared.report(Report::Stage(self.router.id));
    }

    fn unstage(&mut self) {
        self.shared.report(Report::Unstage(self.router.id, Unstage::Now));
    }

    fn unstage_after_grace(&mut self) {
        self.shared.report(Report::Unstage(self.router.id, Unstage::AfterGrace));
    }

    fn moved(&mut self, transition: Transition) {
        let (phases, at) = (self.stopwatch.phases(), self.stopwatch.decided);
        self.shared.report(Report::Moved { id: self.router.id, transition, phases, at });
    }
}
