//! The schema of one probe, and of the names by which instances track them.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::field::{Field, Mapping};
use super::interface::InterfaceName;
use super::model::{Check, Name, Probe};
use super::schema::UP_TO_AN_HOUR;
use super::unavailable;
use crate::health::Weight;

pub(super) const KEYS: [&str; 14] = [
    "name",
    "http",
    "tcp",
    "exec",
    "file",
    "interface",
    "preset",
    "interval",
    "timeout",
    "fall",
    "rise",
    "initial",
    "jitter",
    "weight",
];

/// What a probe may look at.
const KINDS: [&str; 6] = ["http", "tcp", "exec", "file", "interface", "preset"];

/// How a probe that has to ask does so.
const POLLING: [&str; 6] = ["interval", "timeout", "fall", "rise", "initial", "jitter"];

/// From one question to the next, and how long an answer may take.
const POLLED: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// A probe of the file: its name, which instances may use even where the rest was refused, and the whole if all was valid.
pub(super) struct Draft<'a> {
    pub(super) name: Option<(Field<'a>, Name)>,
    probe: Option<Probe>,
}

impl Draft<'_> {
    /// The probe, if nothing in it was wrong.
    pub(super) fn finish(self) -> Option<Probe> {
        self.probe
    }
}

/// All probes; `None` where the list itself was refused.
pub(super) fn probes<'a>(file: &Mapping<'a>) -> Option<Vec<Draft<'a>>> {
    let Some(field) = file.get("probes").filter(|field| !field.is_null()) else { return Some(Vec::new()) };
    Some(field.list()?.iter().map(probe).collect())
}

fn probe<'a>(field: &Field<'a>) -> Draft<'a> {
    let Some(mapping) = field.mapping(&KEYS) else { return Draft { name: None, probe: None } };
    let name = mapping.required("name").and_then(|field| {
        let name = field.accept(Name::of("a probe's name", field.text()?))?;
        Some((field, name))
    });
    let check = check(&mapping);
    let polling = polling(&mapping);
    let weight = mapping.or("weight", Weight::default(), weight);
    let whole =
        || Some(Probe { name: name.as_ref()?.1.clone(), check: check?, weight: polling.and(weight)? });
    let probe = whole();
    Draft { name, probe }
}

/// Exactly one kind.
fn check(mapping: &Mapping<'_>) -> Option<Check> {
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| mapping.get(kind).is_some()).collect();
    let [kind] = given[..] else {
        let found =
            if given.is_empty() { "has none".to_owned() } else { format!("has {}", given.join(", ")) };
        return mapping.field.refuse(format_args!("needs exactly one of {}; it {found}", KINDS.join(", ")));
    };
    let field = mapping.get(kind)?;
    if kind != "interface" {
        unavailable::not_available(&field, kind);
        return None;
    }
    for key in POLLING {
        if let Some(field) = mapping.get(key) {
            field.warn("has no effect: the kernel tells at once how an interface is");
        }
    }
    let interface = field.mapping(&["name"])?.required("name")?;
    interface.accept(InterfaceName::new(interface.text()?)).map(Check::Interface)
}

/// Checked even where it has no effect.
fn polling(mapping: &Mapping<'_>) -> Option<()> {
    let span = |key, range: RangeInclusive<Duration>| {
        mapping.or(key, (), |field| field.duration_within(range).map(drop))
    };
    let times = |key| mapping.or(key, (), |field| field.integer(1..=1000).map(drop));
    let spans = [span("interval", POLLED), span("timeout", POLLED), span("jitter", UP_TO_AN_HOUR)];
    let initial = mapping.or("initial", (), |field| field.choice(&[("up", ()), ("down", ())]));
    let all = spans.into_iter().chain([times("fall"), times("rise"), initial]);
    all.fold(Some(()), Option::and)
}

fn weight(field: &Field<'_>) -> Option<Weight> {
    let number = field.whole_number()?;
    field.accept(Weight::try_from(number))
}

/// `track`: probes by name, each once. Whether there are such probes is checked across the file.
pub(super) fn track<'a>(mapping: &Mapping<'a>) -> (Vec<(Field<'a>, Name)>, Option<Vec<Name>>) {
    let Some(field) = mapping.get("track").filter(|field| !field.is_null()) else {
        return (Vec::new(), Some(Vec::new()));
    };
    let Some(fields) = field.list() else { return (Vec::new(), None) };
    let written = fields.len();
    let mut valid: Vec<(Field<'a>, Name)> = Vec::new();
    for field in fields {
        let Some(text) = field.text() else { continue };
        let Some(name) = field.accept(Name::of("a probe's name", text)) else { continue };
        if valid.iter().any(|(_, known)| *known == name) {
            field.error(format_args!("{name} stands already in this list"));
        } else {
            valid.push((field, name));
        }
    }
    let all = (valid.len() == written).then(|| valid.iter().map(|(_, name)| name.clone()).collect());
    (valid, all)
}
