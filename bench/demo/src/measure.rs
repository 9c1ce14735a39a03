//! Numbers of one event, made of the evidence.

use crate::evidence::{Evidence, Ms, NodeNumber};

/// What is done to the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// kill -9 of the owner's agent.
    Crash,
    /// `vip-agent drain` on the owner.
    Drain,
    /// The owner's cable is pulled.
    LinkCut,
    /// The agent with the highest priority starts again.
    Return,
}

/// Something that has to move the VIP.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// From 1.
    pub(crate) round: u16,
    pub(crate) kind: Kind,
    /// When it was done.
    pub(crate) at: Ms,
    /// Who owned.
    pub(crate) from: NodeNumber,
    /// Who is to own.
    pub(crate) to: NodeNumber,
    /// What was done, in a line.
    pub(crate) did: String,
    /// Phases, as the new owner tells them; keepalived does not.
    pub(crate) takeover: Option<vip_lab::agent::Takeover>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Measures {
    /// The new owner's first answers, when all families had one.
    pub(crate) moved: Option<Ms>,
    /// Its first announcement on the wire.
    pub(crate) announced: Option<Ms>,
    /// The former owner's last advert on the wire before that.
    pub(crate) last_advert: Option<Ms>,
    /// For how long both answered: from the new owner's first answer to the former one's last, in milliseconds.
    pub(crate) overlap: Option<Ms>,
    /// Questions that two nodes answered.
    pub(crate) double_answers: usize,
    /// Answers of anybody else.
    pub(crate) foreign_answers: usize,
    /// The longest time in which the client had no answer of one family, about the move.
    pub(crate) gap: Option<(Ms, Ms)>,
    /// Requests started between this event and the next.
    pub(crate) requests: usize,
    /// Those of them that got no answer.
    pub(crate) lost: usize,
    /// Those of the lost that started after the move was over.
    pub(crate) lost_later: usize,
}

/// Requests in flight at the event belong to it.
const BEFORE: Ms = 50.0;
/// Resends and late answers about a move: what comes later is not its doing.
pub(crate) const AFTER: Ms = 250.0;

impl Kind {
    /// Whether the former owner lives to hand over: then nothing may be lost, and both may answer for an instant.
    pub(crate) fn is_planned(self) -> bool {
        matches!(self, Self::Drain | Self::Return)
    }
}

impl Event {
    /// Who was acted on.
    pub(crate) fn acted_on(&self) -> NodeNumber {
        if self.kind == Kind::Return { self.to } else { self.from }
    }

    /// A few words.
    pub(crate) fn title(&self) -> String {
        let node = self.acted_on();
        match self.kind {
            Kind::Crash => format!("kill -9 node{node}"),
            Kind::Drain => format!("drain node{node}"),
            Kind::LinkCut => format!("cut node{node}"),
            Kind::Return => format!("node{node} returns"),
        }
    }

    /// What the evidence says about it, until the next event.
    pub(crate) fn measure(&self, evidence: &Evidence, next: Ms) -> Measures {
        let first_by_heir = |family: &crate::evidence::Family| {
            family
                .between(self.at, next)
                .iter()
                .find(|answer| answer.by == Some(self.to))
                .map(|answer| answer.at)
        };
        let firsts: Option<Vec<Ms>> = evidence.families.iter().map(first_by_heir).collect();
        let moved = firsts.as_ref().and_then(|firsts| firsts.iter().copied().reduce(f64::max));
        let sent_by = |list: &[crate::evidence::Sent], node: NodeNumber| -> Vec<Ms> {
            list.iter().filter(|sent| sent.by == node).map(|sent| sent.at).collect()
        };
        let announced =
            sent_by(&evidence.announcements, self.to).into_iter().find(|at| (self.at..next).contains(at));
        let before = announced.or(moved).unwrap_or(next);
        let last_advert = sent_by(&evidence.adverts, self.from).into_iter().rfind(|&at| at < before);
        let requests = evidence.asked_between(self.at - BEFORE, next - BEFORE);
        let lost = || requests.iter().filter(|asked| asked.by.is_none());
        let over = moved.map_or(next, |moved| moved + AFTER);
        let known = [Some(self.from), Some(self.to)];
        Measures {
            moved,
            announced,
            last_advert,
            overlap: self.overlap(evidence, firsts.as_deref().unwrap_or_default(), next),
            double_answers: evidence
                .families
                .iter()
                .flat_map(|family| &family.double)
                .filter(|&&at| (self.at..next).contains(&at))
                .count(),
            foreign_answers: evidence
                .families
                .iter()
                .flat_map(|family| family.between(self.at, next))
                .filter(|answer| !known.contains(&answer.by))
                .count(),
            gap: evidence.gap(self.at - BEFORE, over),
            requests: requests.len(),
            lost: lost().count(),
            lost_later: lost().filter(|asked| asked.start > over).count(),
        }
    }

    fn overlap(&self, evidence: &Evidence, firsts: &[Ms], next: Ms) -> Option<Ms> {
        let both = evidence.families.iter().zip(firsts).filter_map(|(family, &first)| {
            let last = family.between(first, next).iter().rfind(|answer| answer.by == Some(self.from))?;
            Some(last.at - first)
        });
        both.reduce(f64::max)
    }
}

/// The longest time in which the client had no answer although nothing was done: its own unsteadiness, in milliseconds.
pub(crate) fn jitter(evidence: &Evidence, events: &[(Event, Measures)], end: Ms) -> Ms {
    let begin = evidence.requests.first().map_or(0.0, |asked| asked.end);
    let mut quiet_from = begin;
    let mut longest = 0.0_f64;
    let mut look = |from: Ms, to: Ms| {
        if from < to
            && let Some((from, to)) = evidence.gap(from, to)
        {
            longest = longest.max(to - from);
        }
    };
    for (event, measures) in events {
        look(quiet_from, event.at - BEFORE);
        quiet_from = measures.moved.map_or(end, |moved| moved + AFTER);
    }
    look(quiet_from, end);
    longest
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::evidence::Answer;
    use crate::evidence::tests::one_move;

    pub(crate) fn event(kind: Kind, at: Ms) -> Event {
        Event { round: 1, kind, at, from: 1, to: 2, did: "done".into(), takeover: None }
    }

    #[test]
    fn a_crash_is_measured_from_the_last_answer_to_the_first() {
        let evidence = one_move(1, 2, 1000.0, 1326.0, 4000.0);
        let measures = event(Kind::Crash, 999.5).measure(&evidence, 4000.0);
        assert_eq!((measures.moved, measures.announced), (Some(1326.0), Some(1326.0)));
        assert_eq!(measures.last_advert, Some(999.0));
        assert_eq!(measures.overlap, None);
        assert_eq!((measures.lost, measures.lost_later), (326, 0));
        let (from, to) = measures.gap.unwrap();
        assert!((325.0..=329.0).contains(&(to - from)), "{from} to {to}");
    }

    #[test]
    fn a_move_that_one_family_did_not_make_is_none() {
        let mut evidence = one_move(1, 2, 1000.0, 1000.0, 2000.0);
        evidence.families[1].answers.retain(|answer| answer.by == Some(1));
        assert_eq!(event(Kind::Drain, 1000.0).measure(&evidence, 2000.0).moved, None);
    }

    #[test]
    fn answers_of_both_and_of_strangers_are_found() {
        let mut evidence = one_move(1, 2, 1000.0, 1000.0, 2000.0);
        let late = Answer { at: 1004.5, by: Some(1) };
        let stranger = Answer { at: 1500.5, by: Some(3) };
        evidence.families[0].answers.extend([late, stranger, Answer { at: 1600.5, by: None }]);
        evidence.families[0].answers.sort_by(|a, b| a.at.total_cmp(&b.at));
        evidence.families[1].double.push(1001.0);
        let measures = event(Kind::Drain, 999.0).measure(&evidence, 2000.0);
        assert_eq!((measures.overlap, measures.double_answers, measures.foreign_answers), (Some(4.5), 1, 2));
    }

    #[test]
    fn the_clients_unsteadiness_is_that_of_quiet_times() {
        let mut evidence = one_move(1, 2, 1000.0, 1326.0, 4000.0);
        for asked in evidence.requests.iter_mut().filter(|asked| (3000.0..3010.0).contains(&asked.start)) {
            asked.end = 3012.5;
        }
        let crash = event(Kind::Crash, 1000.0);
        let measures = crash.measure(&evidence, 4000.0);
        let jitter = jitter(&evidence, &[(crash, measures)], 4000.0);
        assert_eq!(jitter, 10.5);
    }
}
