//! What the instruments saw, in milliseconds since the start and numbers of nodes: all that numbers and pictures rest on.

/// Milliseconds since the demo's clock started.
pub(crate) type Ms = f64;

/// A node by its number, from 1.
pub(crate) type NodeNumber = usize;

/// One HTTP request of the client.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) start: Ms,
    /// When it had its answer, or gave up.
    pub(crate) end: Ms,
    pub(crate) ipv6: bool,
    /// Who answered; none if it was lost.
    pub(crate) by: Option<NodeNumber>,
    /// Why it was lost.
    pub(crate) why_lost: Option<String>,
}

/// One answer to "who has the VIP", as it arrived at the client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) at: Ms,
    /// None: a station that is no node of the lab.
    pub(crate) by: Option<NodeNumber>,
}

/// Answers for the watched VIP of one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Family {
    pub(crate) ipv6: bool,
    /// When the client asked, by time.
    pub(crate) questions: Vec<Ms>,
    /// By time.
    pub(crate) answers: Vec<Answer>,
    /// When one question had answers of two nodes.
    pub(crate) double: Vec<Ms>,
}

/// A frame of VRRP or an announcement on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) at: Ms,
    pub(crate) by: NodeNumber,
}

/// All of it, each list by time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) requests: Vec<Asked>,
    pub(crate) families: Vec<Family>,
    pub(crate) adverts: Vec<Sent>,
    /// Gratuitous ARP and unsolicited NA for a watched VIP.
    pub(crate) announcements: Vec<Sent>,
}

/// A time in which one node alone answered for a VIP.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Span {
    pub(crate) node: NodeNumber,
    pub(crate) from_ms: Ms,
    pub(crate) to_ms: Ms,
    pub(crate) answers: usize,
}

/// An owner that left so many questions in a row without an answer was silent; fewer may just be late.
const SILENCE: usize = 8;

// === impl Family ===

impl Family {
    /// Who answered, one span after another; broken where nobody did although somebody asked.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for answer in &self.answers {
            let Some(node) = answer.by else { continue };
            match spans.last_mut() {
                Some(span) if span.node == node && self.asked(span.to_ms, answer.at) < SILENCE => {
                    span.to_ms = answer.at;
                    span.answers += 1;
                }
                _ => spans.push(Span { node, from_ms: answer.at, to_ms: answer.at, answers: 1 }),
            }
        }
        spans
    }

    fn asked(&self, after: Ms, before: Ms) -> usize {
        let [after, before] = [after, before].map(|at| self.questions.partition_point(|&asked| asked < at));
        before.saturating_sub(after)
    }

    /// Answers from `from` on, before `to`.
    pub(crate) fn between(&self, from: Ms, to: Ms) -> &[Answer] {
        let [from, to] = [from, to].map(|at| self.answers.partition_point(|answer| answer.at < at));
        &self.answers[from.min(to)..to]
    }
}

// === impl Evidence ===

impl Evidence {
    /// The longest time in which requests of one family waited and none was answered, with a part in `from` to `to`.
    ///
    /// The families are asked in turn: an outage of one of them alone would not show in the sum of both. And a time in
    /// which no request waited is the client's own pause, not an outage.
    pub(crate) fn gap(&self, from: Ms, to: Ms) -> Option<(Ms, Ms)> {
        let of_family = |ipv6| self.longest_wait(ipv6, from, to);
        [false, true].into_iter().filter_map(of_family).max_by(longer)
    }

    fn longest_wait(&self, ipv6: bool, from: Ms, to: Ms) -> Option<(Ms, Ms)> {
        let of_family = || self.requests.iter().filter(|asked| asked.ipv6 == ipv6);
        let mut ends: Vec<Ms> =
            of_family().filter(|asked| asked.by.is_some()).map(|asked| asked.end).collect();
        ends.sort_by(f64::total_cmp);
        let between = ends.windows(2).map(|pair| (pair[0], pair[1]));
        let mut silences: Vec<(Ms, Ms)> =
            between.filter(|&(begin, end)| end >= from && begin <= to).collect();
        silences.sort_by(|a, b| longer(b, a));
        let mut longest: Option<(Ms, Ms)> = None;
        for (begin, end) in silences {
            // No wait is longer than the silence that it is a part of.
            if longest.is_some_and(|(from, to)| to - from >= end - begin) {
                break;
            }
            let waiting = of_family().filter(|asked| asked.start < end && asked.end > begin);
            let since = waiting.map(|asked| asked.start).fold(end, f64::min).max(begin);
            longest = longest.into_iter().chain([(since, end)]).max_by(longer);
        }
        longest
    }

    /// Requests that started from `from` on, before `to`.
    pub(crate) fn asked_between(&self, from: Ms, to: Ms) -> &[Asked] {
        let [from, to] = [from, to].map(|at| self.requests.partition_point(|asked| asked.start < at));
        &self.requests[from.min(to)..to]
    }
}

fn longer(a: &(Ms, Ms), b: &(Ms, Ms)) -> std::cmp::Ordering {
    (a.1 - a.0).total_cmp(&(b.1 - b.0))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Node `old` owns until `silent`, node `new` from `taken` to `end`; asked every millisecond, families in turn.
    pub(crate) fn one_move(old: usize, new: usize, silent: Ms, taken: Ms, end: Ms) -> Evidence {
        let owner = |at: Ms| if at < silent { Some(old) } else { (at >= taken).then_some(new) };
        let instants = || (0..end as u32).map(f64::from);
        let asked = |at: Ms| Asked {
            start: at,
            end: at + if owner(at).is_some() { 0.5 } else { 500.0 },
            ipv6: at % 2.0 == 1.0,
            by: owner(at),
            why_lost: owner(at).is_none().then(|| "timed out".into()),
        };
        let answers: Vec<Answer> =
            instants().filter_map(|at| owner(at).map(|node| Answer { at, by: Some(node) })).collect();
        let family = |ipv6| Family {
            ipv6,
            questions: instants().collect(),
            answers: answers.clone(),
            double: Vec::new(),
        };
        Evidence {
            requests: instants().map(asked).collect(),
            families: vec![family(false), family(true)],
            adverts: vec![Sent { at: silent - 1.0, by: old }, Sent { at: taken, by: new }],
            announcements: vec![Sent { at: taken, by: new }],
        }
    }

    #[test]
    fn an_outage_of_one_family_is_a_gap() {
        let mut evidence = one_move(1, 2, 100.0, 100.0, 300.0);
        for asked in
            evidence.requests.iter_mut().filter(|asked| asked.ipv6 && (150.0..180.0).contains(&asked.start))
        {
            asked.by = None;
            asked.end = asked.start + 500.0;
        }
        assert_eq!(evidence.gap(90.0, 200.0), Some((151.0, 181.5)));
        let (from, to) = evidence.gap(200.0, 300.0).unwrap();
        assert!(to - from <= 2.0, "no gap there: {from} to {to}");
    }

    #[test]
    fn a_pause_of_the_client_is_no_gap_but_a_request_that_waits_through_it_is() {
        let mut evidence = one_move(1, 1, 300.0, 300.0, 300.0);
        evidence.requests.retain(|asked| !(100.0..200.0).contains(&asked.start));
        let (from, to) = evidence.gap(90.0, 210.0).unwrap();
        assert!(to - from < 2.0, "nothing waited: {from} to {to}");
        let waiting = evidence.requests.iter_mut().find(|asked| asked.start == 99.0).unwrap();
        waiting.end = 190.0;
        assert_eq!(evidence.gap(90.0, 210.0), Some((99.0, 190.0)));
    }

    #[test]
    fn a_pause_of_the_prober_breaks_no_span() {
        let mut evidence = one_move(1, 1, 100.0, 200.0, 300.0);
        evidence.families[0].questions.retain(|at| !(100.0..200.0).contains(at));
        assert_eq!(evidence.families[0].spans().len(), 1);
    }

    #[test]
    fn silence_breaks_a_span_even_if_the_same_node_answers_again() {
        let silent_then_back = one_move(1, 1, 100.0, 200.0, 300.0);
        let spans = silent_then_back.families[0].spans();
        assert_eq!(
            spans.iter().map(|span| (span.node, span.from_ms, span.to_ms)).collect::<Vec<_>>(),
            [(1, 0.0, 99.0), (1, 200.0, 299.0)]
        );
    }
}
