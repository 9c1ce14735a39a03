//! `vrrp_script`, `vrrp_track_process` and `track_*` become probes.

use std::collections::{HashMap, HashSet};

use super::super::yaml;
use super::notes::{Notes, remark};
use super::tree::Statement;
use super::values::Names;
use crate::config::InterfaceName;

/// What an instance or a group can track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Script,
    Process,
    Interface,
}

impl Kind {
    /// Of a `track_*` block.
    pub(super) fn of(keyword: &str) -> Option<Self> {
        match keyword {
            "track_script" => Some(Self::Script),
            "track_process" => Some(Self::Process),
            "track_interface" => Some(Self::Interface),
            _ => None,
        }
    }
}

/// What becomes of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weights {
    Kept,
    /// Of a member of a sync group that keeps weights: they move the priority that it has in common with the others.
    Common,
    /// Of a member of a sync group.
    Grouped,
    /// Of the address owner, whose priority does not change.
    Owner,
}

impl Weights {
    /// What is to be said of a weight.
    fn remark(self) -> Option<&'static str> {
        match self {
            Self::Kept => None,
            Self::Common => Some(
                "counts for all members of the sync group, which have one priority here; keepalived moves this one's alone",
            ),
            Self::Grouped => Some(
                "keepalived gives members of a sync group no weights: down is a fault, and so it is here; let the group \
                 track it, or write another probe with this weight",
            ),
            Self::Owner => {
                Some("the address owner's priority does not change: down is a fault, as with keepalived")
            }
        }
    }
}

/// How a probe finds out.
#[derive(Clone, Debug)]
pub(super) enum Check {
    Exec(Vec<String>),
    Tcp(String),
    Interface(String),
}

/// A `vrrp_script` or `vrrp_track_process`.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// `None`: it cannot be a probe; a remark says why.
    pub(super) check: Option<Check>,
    /// Lines of the probe behind its check.
    pub(super) lines: Vec<String>,
    pub(super) weight: i64,
    pub(super) reverse: bool,
    /// Remarks, until a probe has shown them.
    pub(super) remarks: Vec<String>,
}

/// A definition and what is to be said if nothing tracks it.
#[derive(Debug)]
struct Defined {
    key: (Kind, String),
    source: Source,
    unused: String,
}

/// What is defined, and the probes that are made of it.
#[derive(Debug, Default)]
pub(super) struct Probes {
    sources: Vec<Defined>,
    index: HashMap<(Kind, String), usize>,
    made: HashMap<(Kind, String, i64), String>,
    names: Names,
    /// As YAML.
    pub(super) lines: Vec<String>,
}

/// Weights that keepalived takes.
const WEIGHTS: std::ops::RangeInclusive<i64> = -253..=253;

impl Probes {
    /// Adds a definition; the first one of a name counts.
    pub(super) fn define(&mut self, kind: Kind, block: &Statement, mut source: Source) {
        let name = block.argument().unwrap_or_default().to_owned();
        if name.is_empty() {
            source.remarks.push(remark(&block.at, &block.echo(), "has no name: it is left out"));
        }
        let key = (kind, name);
        if let Some(&first) = self.index.get(&key) {
            let again = remark(&block.at, &block.echo(), "stands a second time: it is left out");
            self.sources[first].source.remarks.push(again);
            return;
        }
        self.index.insert(key.clone(), self.sources.len());
        let why = "is tracked by no instance: keepalived does not run it either, and no probe was made of it";
        self.sources.push(Defined { key, source, unused: remark(&block.at, &block.echo(), why) });
    }

    /// A line of a `track_*` block: the name of the probe that it becomes.
    pub(super) fn track<K: Ord + Copy>(
        &mut self,
        kind: Kind,
        line: &Statement,
        weights: Weights,
        notes: &mut Notes<K>,
        at: K,
    ) -> Option<String> {
        let name = line.keyword();
        if let (Kind::Interface, Err(error)) = (kind, InterfaceName::new(name)) {
            notes.add(at, line, error);
            return None;
        }
        let source = match (kind, self.index.get(&(kind, name.to_owned()))) {
            (Kind::Interface, _) => Source {
                check: Some(Check::Interface(name.to_owned())),
                lines: Vec::new(),
                weight: 0,
                reverse: false,
                remarks: Vec::new(),
            },
            (_, Some(&index)) => self.sources[index].source.clone(),
            (_, None) => {
                notes.add(at, line, "is defined nowhere: keepalived ignores it as well");
                return None;
            }
        };
        let (mut weight, reverse) = options(line, &source, notes, at);
        if let (Some(why), true) = (weights.remark(), weight != 0) {
            notes.add(at, line, why);
        }
        if matches!(weights, Weights::Grouped | Weights::Owner) {
            weight = 0;
        }
        let Some(check) = source.check else {
            notes.add(at, line, "could not become a probe: see the remark at its definition");
            return None;
        };
        if reverse {
            let why = "`reverse` has no equivalent: not tracked; write a probe that is up while this is down, with the \
                       opposite weight";
            notes.add(at, line, why);
            return None;
        }
        Some(self.probe(kind, name, weight, &check, &source.lines))
    }

    /// The probe of this weight, made at its first use.
    fn probe(&mut self, kind: Kind, name: &str, weight: i64, check: &Check, lines: &[String]) -> String {
        let key = (kind, name.to_owned(), weight);
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let source = self.index.get(&(kind, name.to_owned())).map(|&index| &mut self.sources[index].source);
        let default = source.as_ref().map_or(0, |source| source.weight);
        let base = if kind == Kind::Interface { format!("link-{name}") } else { name.to_owned() };
        let suffix = match weight {
            _ if weight == default => String::new(),
            0 => "-fault".to_owned(),
            1.. => format!("-plus{weight}"),
            _ => format!("-minus{}", weight.unsigned_abs()),
        };
        let made = self.names.make(&format!("{base}{suffix}"));
        let remarks = source.map(|source| std::mem::take(&mut source.remarks)).unwrap_or_default();
        self.lines.extend(remarks.into_iter().map(|remark| format!("  {remark}")));
        if !made.starts_with(&base) {
            self.lines.push(format!("  {}", yaml::comment(&format!("{name:?} in keepalived.conf"))));
        }
        self.lines.push(format!("  - name: {}", yaml::scalar(&made)));
        self.lines.push(match check {
            Check::Exec(command) => format!("    exec: {{ command: {} }}", yaml::list(command)),
            Check::Tcp(address) => format!("    tcp: {{ address: {} }}", yaml::quoted(address)),
            Check::Interface(name) => format!("    interface: {{ name: {} }}", yaml::scalar(name)),
        });
        self.lines.extend(lines.iter().map(|line| format!("    {line}")));
        self.lines.push(format!("    weight: {weight}"));
        self.made.insert(key, made.clone());
        made
    }

    /// Remarks of what nobody tracks.
    pub(super) fn leftovers(&mut self) -> Vec<String> {
        let used: HashSet<_> = self.made.keys().map(|(kind, name, _)| (*kind, name.as_str())).collect();
        let mut remarks = Vec::new();
        for Defined { key: (kind, name), source, unused } in &mut self.sources {
            remarks.append(&mut source.remarks);
            if !used.contains(&(*kind, name.as_str())) && source.check.is_some() {
                remarks.push(std::mem::take(unused));
            }
        }
        remarks
    }
}

/// `weight N [reverse]` behind a name.
fn options<K: Ord + Copy>(line: &Statement, source: &Source, notes: &mut Notes<K>, at: K) -> (i64, bool) {
    let (mut weight, mut reverse) = (source.weight, source.reverse);
    let mut words = line.arguments().iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "weight" => match words.next().and_then(|word| word.parse().ok()).filter(|n| WEIGHTS.contains(n))
            {
                Some(number) => weight = number,
                None => notes.add(at, line, "keepalived takes weights of -253 to 253: this one is left out"),
            },
            "reverse" => reverse = true,
            "noreverse" | "no_reverse" => reverse = false,
            _ => {
                let why =
                    "keepalived reads one name per line, then `weight N [reverse]`: the rest is left out";
                notes.add(at, line, why);
                break;
            }
        }
    }
    (weight, reverse)
}
