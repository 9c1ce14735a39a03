//! What each event must and must not do; every breach is one line.

use std::time::Duration;

use crate::evidence::{Evidence, Ms};
use crate::measure::{Event, Kind, Measures};
use crate::options::Plan;

/// What the scheduler of a busy machine may add to a gap, beside the client's own unsteadiness.
const MARGIN: Ms = 30.0;
/// Past one advert interval a leaving owner answers for no longer than this without having heard its heir.
const DRAIN_MARGIN: Duration = Duration::from_millis(100);

/// What is allowed, all in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// The client's longest gap; none where no request may be lost, which says more.
    pub(crate) gap: Option<Ms>,
    /// How long both may answer.
    pub(crate) overlap: Ms,
    /// Requests that may be lost.
    pub(crate) lost: Option<usize>,
}

/// The limits of an event, with a client whose gaps in quiet times were up to `jitter` milliseconds.
pub(crate) fn limits(event: &Event, plan: &Plan, jitter: Ms) -> Limits {
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    let silence = ms(plan.active_down(event.to)) + MARGIN + jitter;
    let by_keepalived = plan.keepalived == Some(event.to);
    match event.kind {
        Kind::Crash | Kind::LinkCut => Limits { gap: Some(silence), overlap: 0.0, lost: None },
        // keepalived takes over after its skew and forwards nothing to the former owner.
        Kind::Drain if by_keepalived => {
            Limits { gap: Some(silence), overlap: ms(plan.advert + DRAIN_MARGIN), lost: None }
        }
        Kind::Drain | Kind::Return => {
            Limits { gap: None, overlap: ms(plan.advert + DRAIN_MARGIN), lost: Some(0) }
        }
    }
}

/// What was wrong with an event, each in a line.
pub(crate) fn breaches(event: &Event, measures: &Measures, limits: &Limits) -> Vec<String> {
    let Event { from, to, .. } = event;
    let mut wrong = Vec::new();
    let Some(moved) = measures.moved else {
        wrong.push(format!("the VIP did not move from node{from} to node{to}"));
        return wrong;
    };
    match (limits.gap, measures.gap) {
        (Some(_), None) => wrong.push("the client had no answers".into()),
        (Some(limit), Some((from, to))) if to - from > limit => {
            wrong.push(format!("the client had no answer for {:.1} ms, allowed are {limit:.1}", to - from));
        }
        _ => {}
    }
    if let Some(limit) = limits.lost
        && measures.lost > limit
    {
        wrong.push(format!(
            "{} of {} requests were lost, allowed are {limit}",
            measures.lost, measures.requests
        ));
    } else if measures.lost_later > 0 {
        let since = moved - event.at;
        wrong.push(format!(
            "{} requests were lost although the VIP had moved after {since:.1} ms",
            measures.lost_later
        ));
    }
    if measures.requests == 0 {
        wrong.push("the client asked nothing".into());
    }
    if !event.kind.is_planned() && measures.double_answers > 0 {
        wrong.push(format!("{} ARP or ND questions had two answers", measures.double_answers));
    }
    if let Some(overlap) = measures.overlap
        && overlap > limits.overlap
    {
        wrong.push(format!(
            "node{from} still answered {overlap:.1} ms after node{to} did, allowed are {:.1}",
            limits.overlap
        ));
    }
    if measures.foreign_answers > 0 {
        wrong.push(format!("{} answers came from neither node{from} nor node{to}", measures.foreign_answers));
    }
    wrong
}

/// What was wrong before the first event: one owner only, and nothing lost.
pub(crate) fn breaches_before(evidence: &Evidence, owner: usize, first_event: Ms) -> Vec<String> {
    let mut wrong = Vec::new();
    let answers = || evidence.families.iter().flat_map(|family| family.between(0.0, first_event));
    let others = answers().filter(|answer| answer.by != Some(owner)).count();
    if others > 0 {
        wrong.push(format!("before the first event: {others} answers came from another than node{owner}"));
    }
    if answers().next().is_none() {
        wrong.push("before the first event: nobody answered for the VIP".into());
    }
    let lost =
        evidence.asked_between(0.0, first_event - 50.0).iter().filter(|asked| asked.by.is_none()).count();
    if lost > 0 {
        wrong.push(format!("before the first event: {lost} requests were lost"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::one_move;
    use crate::measure::tests::event;
    use crate::options::tests::plan;

    fn good() -> Measures {
        Measures {
            moved: Some(1326.0),
            gap: Some((1000.0, 1326.0)),
            requests: 4000,
            lost: 326,
            ..Measures::default()
        }
    }

    fn verdict(kind: Kind, measures: &Measures) -> Vec<String> {
        let event = event(kind, 1000.0);
        breaches(&event, measures, &limits(&event, &plan(100), 5.0))
    }

    #[test]
    fn a_crash_may_take_active_down_and_a_margin() {
        assert_eq!(verdict(Kind::Crash, &good()), [""; 0]);
        // 341.4 + 30 + 5
        let slow = Measures { gap: Some((1000.0, 1377.0)), ..good() };
        assert_eq!(verdict(Kind::Crash, &slow), ["the client had no answer for 377.0 ms, allowed are 376.4"]);
    }

    #[test]
    fn a_planned_move_may_lose_nothing() {
        let one = Measures { lost: 1, ..good() };
        for kind in [Kind::Drain, Kind::Return] {
            assert_eq!(verdict(kind, &one), ["1 of 4000 requests were lost, allowed are 0"]);
            assert_eq!(verdict(kind, &Measures { lost: 0, ..good() }), [""; 0]);
        }
    }

    #[test]
    fn a_drain_to_keepalived_may_lose_what_it_does_not_forward() {
        let mut plan = plan(100);
        plan.keepalived = Some(2);
        let event = event(Kind::Drain, 1000.0);
        assert_eq!(breaches(&event, &good(), &limits(&event, &plan, 0.0)), [""; 0]);
    }

    #[test]
    fn two_owners_are_wrong_where_nobody_handed_over() {
        let both = Measures { double_answers: 1, overlap: Some(0.2), lost: 0, ..good() };
        assert_eq!(
            verdict(Kind::LinkCut, &both),
            [
                "1 ARP or ND questions had two answers",
                "node1 still answered 0.2 ms after node2 did, allowed are 0.0"
            ]
        );
        assert_eq!(verdict(Kind::Drain, &both), [""; 0]);
        let long = Measures { overlap: Some(201.0), ..both };
        assert_eq!(
            verdict(Kind::Drain, &long),
            ["node1 still answered 201.0 ms after node2 did, allowed are 200.0"]
        );
    }

    #[test]
    fn strangers_late_losses_and_a_vip_that_stays_are_wrong() {
        assert_eq!(verdict(Kind::Crash, &Measures { foreign_answers: 2, ..good() }).len(), 1);
        assert_eq!(verdict(Kind::Crash, &Measures { lost_later: 3, ..good() }).len(), 1);
        assert_eq!(verdict(Kind::Crash, &Measures { gap: None, ..good() }), ["the client had no answers"]);
        assert_eq!(
            verdict(Kind::Crash, &Measures { moved: None, ..good() }),
            ["the VIP did not move from node1 to node2"]
        );
    }

    #[test]
    fn before_the_first_event_all_is_quiet_and_one_owns() {
        let evidence = one_move(1, 2, 1000.0, 1326.0, 4000.0);
        assert_eq!(breaches_before(&evidence, 1, 1000.0), [""; 0]);
        assert_eq!(breaches_before(&evidence, 2, 1000.0).len(), 1);
        assert_eq!(breaches_before(&evidence, 1, 2000.0).len(), 2, "the loss, and the other owner");
        assert_eq!(breaches_before(&Evidence::default(), 1, 1000.0).len(), 1);
    }
}
