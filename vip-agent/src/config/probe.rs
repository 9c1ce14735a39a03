//! The schema of one probe, and of the names by which instances track them.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{Check, CommandLine, Polling, Preset, Question};
use super::field::{Field, Mapping};
use super::http::http;
use super::interface::InterfaceName;
use super::model::{Name, Probe};
use super::schema::UP_TO_AN_HOUR;
use super::template::ADDRESS;
use crate::health::{Thresholds, Weight};

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
    /// Whether it can only be asked of backends.
    pub(super) fn is_of_backends(&self) -> bool {
        self.probe.as_ref().is_some_and(Probe::is_of_backends)
    }

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
    let question = question(&mapping);
    let defaults = question.as_ref().map(Defaults::of).unwrap_or_default();
    let polling = polling(&mapping, &defaults);
    let weight = mapping.or("weight", defaults.weight, weight);
    let whole = || {
        let check = match question? {
            Asked::Interface(interface) => Check::Interface(interface),
            Asked::Question(question) => Check::Polled(question, polling?),
        };
        Some(Probe { name: name.as_ref()?.1.clone(), check, weight: weight? })
    };
    let probe = whole().filter(|_| polling.is_some());
    Draft { name, probe }
}

/// What a probe looks at.
enum Asked {
    Interface(InterfaceName),
    Question(Question),
}

/// What holds where a probe does not say.
struct Defaults {
    interval: Duration,
    fall: NonZeroU16,
    weight: Weight,
}

const TWICE: NonZeroU16 = NonZeroU16::MIN.saturating_add(1);

impl Default for Defaults {
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), fall: TWICE, weight: Weight::Fault }
    }
}

impl Defaults {
    /// Presets keep the pace of the chart that they come from; an API server that is gone moves nothing, unless another
    /// node still reaches it.
    fn of(asked: &Asked) -> Self {
        let slow = Self {
            interval: Duration::from_secs(5),
            fall: NonZeroU16::MIN.saturating_add(4),
            weight: Weight::Fault,
        };
        match asked {
            Asked::Question(Question::Preset(Preset::Kubelet)) => slow,
            Asked::Question(Question::Preset(Preset::KubeApi)) => Self { weight: Weight::Lower(40), ..slow },
            _ => Self::default(),
        }
    }
}

/// Exactly one kind.
fn question(mapping: &Mapping<'_>) -> Option<Asked> {
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| mapping.get(kind).is_some()).collect();
    let [kind] = given[..] else {
        let found =
            if given.is_empty() { "has none".to_owned() } else { format!("has {}", given.join(", ")) };
        return mapping.field.refuse(format_args!("needs exactly one of {}; it {found}", KINDS.join(", ")));
    };
    let field = mapping.get(kind)?;
    let question = match kind {
        "interface" => {
            for key in POLLING {
                if let Some(field) = mapping.get(key) {
                    field.warn("has no effect: the kernel tells at once how an interface is");
                }
            }
            let interface = field.mapping(&["name"])?.required("name")?;
            return interface.accept(InterfaceName::new(interface.text()?)).map(Asked::Interface);
        }
        "http" => Question::Http(Box::new(http(&field)?)),
        "tcp" => {
            let address = field.mapping(&["address"])?.required("address")?;
            let text = address.text()?;
            let of_backend = text.strip_prefix(ADDRESS).and_then(|rest| rest.strip_prefix(':'));
            match (of_backend.and_then(|port| port.parse().ok()), text.parse()) {
                (Some(port), _) => Question::TcpPort(port),
                (None, Ok(address)) => Question::Tcp(address),
                (None, Err(_)) => {
                    return address.refuse(format_args!(
                        "must be IP:PORT as in \"127.0.0.1:443\" or \"[::1]:443\", not {text:?}"
                    ));
                }
            }
        }
        "exec" => Question::Exec(command(&field.mapping(&["command"])?.required("command")?)?),
        "file" => Question::File(field.mapping(&["path"])?.required("path")?.absolute_path()?),
        _ => Question::Preset(field.choice(&Preset::ALL)?),
    };
    Some(Asked::Question(question))
}

/// Warns of commands that worked as root under other programs and need what this agent gives up. A script's inside is not
/// looked at.
pub(super) fn warn_of_what_is_given_up(drafts: &[Draft<'_>]) {
    for draft in drafts {
        let Some((field, _)) = &draft.name else { continue };
        let Some(Check::Polled(Question::Exec(command), _)) = draft.probe.as_ref().map(|probe| &probe.check)
        else {
            continue;
        };
        let program = command.program.rsplit('/').next().unwrap_or_default();
        if NEED_MORE.contains(&program) {
            field.warn(format_args!(
                "`{program}` needs what the agent gives up: `setpriv` and `runuser` become another user without; for \
                 all else see `security` in docs/security.md"
            ));
        }
    }
}

/// Programs that gain privileges, or enter other namespaces.
const NEED_MORE: [&str; 4] = ["sudo", "nsenter", "unshare", "chroot"];

/// A list, because no shell takes it apart.
fn command(field: &Field<'_>) -> Option<CommandLine> {
    let fields = field.list()?;
    let words: Vec<String> = fields
        .iter()
        .filter_map(|field| match field.text()? {
            text if text.contains('\0') => field.refuse("must not hold a NUL byte"),
            text => Some(text.to_owned()),
        })
        .collect();
    if words.len() < fields.len() {
        return None;
    }
    let mut words = words.into_iter();
    match words.next() {
        Some(program) if !program.is_empty() => Some(CommandLine { program, arguments: words.collect() }),
        _ => field.refuse("needs a program: a path, or a name to be looked up in PATH"),
    }
}

/// Checked even where it has no effect.
fn polling(mapping: &Mapping<'_>, defaults: &Defaults) -> Option<Polling> {
    let span = |key, default, range: RangeInclusive<Duration>| {
        mapping.or(key, default, |field| field.duration_within(range))
    };
    let times =
        |key, default| mapping.or(key, default, |field| field.integer(1..=1000).and_then(NonZeroU16::new));
    let interval = span("interval", defaults.interval, POLLED);
    let timeout = span("timeout", Duration::from_secs(1), POLLED);
    let jitter = span("jitter", Duration::ZERO, UP_TO_AN_HOUR);
    let (fall, rise) = (times("fall", defaults.fall), times("rise", TWICE));
    let initially_up = mapping.or("initial", false, |field| field.choice(&[("up", true), ("down", false)]));
    let thresholds = Thresholds { fall: fall?, rise: rise?, initially_up: initially_up? };
    Some(Polling { interval: interval?, timeout: timeout?, jitter: jitter?, thresholds })
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
