//! A run as it is written to demo.json; docs/demo.md explains the keys.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use vip_lab::stats::Summary;

use crate::evidence::{Evidence, Ms, NodeNumber, Span};
use crate::expect::{self, Limits};
use crate::measure::{self, Event, Kind, Measures};
use crate::options::Plan;

/// Version of the keys and their meaning.
const SCHEMA: u32 = 1;
/// Lost requests that are listed one by one.
const MOST_LISTED: usize = 1000;

/// All of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    schema: u32,
    /// Whether everything was as it has to be.
    pub(crate) ok: bool,
    /// What was not, each in a line.
    pub(crate) failures: Vec<String>,
    pub(crate) options: Settings,
    pub(crate) nodes: Vec<NodeRecord>,
    pub(crate) duration_ms: Ms,
    pub(crate) client: Client,
    pub(crate) events: Vec<EventRecord>,
    /// What was done beside: it must not move the VIP.
    pub(crate) asides: Vec<Aside>,
    /// When nodes were kept from owning.
    pub(crate) outages: Vec<Outage>,
    ownership: Vec<Ownership>,
    lost_requests: Vec<Lost>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) advert_ms: Ms,
    pub(crate) vips: usize,
    pub(crate) watched_vips: Vec<IpAddr>,
    pub(crate) rounds: u16,
    pub(crate) pause_ms: Ms,
    pub(crate) request_every_ms: Ms,
    pub(crate) patience_ms: Ms,
}

#[derive(Debug, Serialize)]
pub(crate) struct NodeRecord {
    pub(crate) name: String,
    /// `vip-agent` or `keepalived`.
    pub(crate) runs: &'static str,
    pub(crate) priority: u8,
    pub(crate) active_down_ms: Ms,
}

#[derive(Debug, Serialize)]
pub(crate) struct Client {
    pub(crate) requests: usize,
    pub(crate) lost: usize,
    /// The longest gap while nothing was done.
    pub(crate) jitter_ms: Ms,
    /// Of answered requests.
    latency_ms: Option<Summary>,
}

/// One event: what was done, what came of it, what was allowed.
#[derive(Debug, Serialize)]
pub(crate) struct EventRecord {
    pub(crate) round: u16,
    pub(crate) kind: Kind,
    pub(crate) did: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) at_ms: Ms,
    pub(crate) detect_us: Option<f64>,
    pub(crate) decide_us: Option<f64>,
    pub(crate) flip_us: Option<f64>,
    pub(crate) announce_us: Option<f64>,
    pub(crate) event_to_announcement_ms: Option<Ms>,
    pub(crate) last_advert_to_announcement_ms: Option<Ms>,
    pub(crate) event_to_answer_ms: Option<Ms>,
    pub(crate) gap_ms: Option<Ms>,
    pub(crate) gap_limit_ms: Option<Ms>,
    pub(crate) requests: usize,
    pub(crate) lost: usize,
    pub(crate) lost_limit: Option<usize>,
    pub(crate) overlap_ms: Ms,
    pub(crate) overlap_limit_ms: Ms,
    pub(crate) double_answers: usize,
    pub(crate) foreign_answers: usize,
    pub(crate) failures: Vec<String>,
    #[serde(skip)]
    pub(crate) event: Event,
    #[serde(skip)]
    pub(crate) measures: Measures,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Aside {
    pub(crate) at_ms: Ms,
    pub(crate) did: String,
}

/// A time in which a node could not own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Outage {
    pub(crate) node: NodeNumber,
    /// killed, drained or cable out.
    pub(crate) why: &'static str,
    pub(crate) from_ms: Ms,
    pub(crate) to_ms: Option<Ms>,
}

#[derive(Debug, Serialize)]
struct Ownership {
    family: &'static str,
    #[serde(flatten)]
    span: Span,
}

#[derive(Debug, Serialize)]
struct Lost {
    at_ms: Ms,
    family: &'static str,
    why: String,
}

/// What the story leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<Event>,
    pub(crate) asides: Vec<Aside>,
    pub(crate) outages: Vec<Outage>,
    /// When it ended.
    pub(crate) end: Ms,
    /// Why it ended early, and what the instruments themselves got wrong.
    pub(crate) failures: Vec<String>,
}

impl Run {
    /// Measures and judges.
    pub(crate) fn new(plan: &Plan, told: Told, evidence: &Evidence) -> Self {
        let next = |index: usize| told.events.get(index + 1).map_or(told.end, |event| event.at);
        let measured: Vec<(Event, Measures)> = told
            .events
            .iter()
            .enumerate()
            .map(|(index, event)| (event.clone(), event.measure(evidence, next(index))))
            .collect();
        let jitter = measure::jitter(evidence, &measured, told.end);
        let mut failures = told.failures;
        if let Some((first, _)) = measured.first() {
            failures.extend(expect::breaches_before(evidence, first.from, first.at));
        }
        let events: Vec<EventRecord> = measured
            .into_iter()
            .map(|(event, measures)| {
                let limits = expect::limits(&event, plan, jitter);
                EventRecord::new(event, measures, &limits)
            })
            .collect();
        failures.extend(events.iter().flat_map(|event| {
            let (round, title) = (event.round, event.event.title());
            event.failures.iter().map(move |failure| format!("round {round}, {title}: {failure}"))
        }));
        Self {
            schema: SCHEMA,
            ok: failures.is_empty(),
            failures,
            options: Settings::new(plan),
            nodes: (1..=usize::from(plan.nodes)).map(|number| NodeRecord::new(plan, number)).collect(),
            duration_ms: told.end,
            client: Client::new(evidence, jitter),
            events,
            asides: told.asides,
            outages: told.outages,
            ownership: ownership(evidence),
            lost_requests: lost(evidence),
        }
    }
}

impl EventRecord {
    fn new(event: Event, measures: Measures, limits: &Limits) -> Self {
        let takeover = event.takeover.as_ref();
        let since = |start: Option<Ms>, end: Option<Ms>| Some(end? - start?);
        let Event { round, kind, at, from, to, .. } = event;
        Self {
            round,
            kind,
            did: event.did.clone(),
            from: format!("node{from}"),
            to: format!("node{to}"),
            at_ms: at,
            detect_us: takeover.map(|takeover| takeover.detect_us),
            decide_us: takeover.map(|takeover| takeover.decide_us),
            flip_us: takeover.map(|takeover| takeover.flip_us),
            announce_us: takeover.map(|takeover| takeover.announce_us),
            event_to_announcement_ms: since(Some(at), measures.announced),
            last_advert_to_announcement_ms: since(measures.last_advert, measures.announced),
            event_to_answer_ms: since(Some(at), measures.moved),
            gap_ms: measures.gap.map(|(from, to)| to - from),
            gap_limit_ms: limits.gap,
            requests: measures.requests,
            lost: measures.lost,
            lost_limit: limits.lost,
            overlap_ms: measures.overlap.unwrap_or(0.0),
            overlap_limit_ms: limits.overlap,
            double_answers: measures.double_answers,
            foreign_answers: measures.foreign_answers,
            failures: expect::breaches(&event, &measures, limits),
            event,
            measures,
        }
    }
}

impl Settings {
    fn new(plan: &Plan) -> Self {
        Self {
            advert_ms: millis(plan.advert),
            vips: plan.vips.len(),
            watched_vips: plan.watched(),
            rounds: plan.rounds,
            pause_ms: millis(plan.pause),
            request_every_ms: millis(plan.every),
            patience_ms: millis(plan.patience),
        }
    }
}

impl NodeRecord {
    fn new(plan: &Plan, number: NodeNumber) -> Self {
        Self {
            name: format!("node{number}"),
            runs: if plan.keepalived == Some(number) { "keepalived" } else { "vip-agent" },
            priority: plan.priority(number),
            active_down_ms: millis(plan.active_down(number)),
        }
    }
}

impl Client {
    fn new(evidence: &Evidence, jitter_ms: Ms) -> Self {
        let requests = &evidence.requests;
        let answered = requests.iter().filter(|asked| asked.by.is_some());
        let latency: vip_lab::stats::Sample = answered.map(|asked| asked.end - asked.start).collect();
        Self {
            requests: requests.len(),
            lost: requests.len() - latency.len(),
            jitter_ms,
            latency_ms: latency.summary(),
        }
    }
}

fn ownership(evidence: &Evidence) -> Vec<Ownership> {
    let of_family = |family: &crate::evidence::Family| {
        let name = family_name(family.ipv6);
        family.spans().into_iter().map(move |span| Ownership { family: name, span })
    };
    evidence.families.iter().flat_map(of_family).collect()
}

fn lost(evidence: &Evidence) -> Vec<Lost> {
    let lost = evidence.requests.iter().filter_map(|asked| {
        let why = asked.why_lost.clone()?;
        Some(Lost { at_ms: asked.start, family: family_name(asked.ipv6), why })
    });
    lost.take(MOST_LISTED).collect()
}

fn family_name(ipv6: bool) -> &'static str {
    if ipv6 { "ipv6" } else { "ipv4" }
}

fn millis(span: Duration) -> Ms {
    span.as_secs_f64() * 1e3
}
