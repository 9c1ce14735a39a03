//! `ports`: one, a range, or all of a transport protocol, and the backends' ports that stand for them.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::super::field::Field;
use super::super::tree::Value;

/// What has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260. Its ports cannot be changed on the way: its checksum covers the whole packet.
    Sctp,
}

impl Transport {
    /// All, by their words in the file.
    pub const ALL: [(&str, Self); 3] = [("tcp", Self::Tcp), ("udp", Self::Udp), ("sctp", Self::Sctp)];

    /// Its word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Its number in IP headers.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ports of one protocol that follow each other and are mapped one to one to as many of the backends; or all of them, which
/// are not mapped, and of which services with ports of their own have theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    transport: Transport,
    /// 0 = all.
    first: u16,
    last: u16,
    target: u16,
}

impl PortRange {
    /// All ports.
    pub const fn all(transport: Transport) -> Self {
        Self { transport, first: 0, last: 0, target: 0 }
    }

    /// These ports, the first of which is the backends' `target`; `None` if there are none, or the backends' would go beyond
    /// 65535.
    pub const fn new(
        transport: Transport,
        first: NonZeroU16,
        last: NonZeroU16,
        target: NonZeroU16,
    ) -> Option<Self> {
        let (first, last, target) = (first.get(), last.get(), target.get());
        if first > last || target.checked_add(last - first).is_none() {
            return None;
        }
        Some(Self { transport, first, last, target })
    }

    /// Whose ports they are.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether they are all ports.
    pub const fn is_all(&self) -> bool {
        self.first == 0
    }

    /// The numbers; of all ports 0 alone, as in the program's table.
    pub const fn numbers(&self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// What is added to a port, modulo 2^16, to get the backends'.
    pub const fn shift(&self) -> u16 {
        self.target.wrapping_sub(self.first)
    }

    /// Whether the two cannot belong to two services.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.transport as u8 == other.transport as u8
            && self.is_all() == other.is_all()
            && self.first <= other.last
            && other.first <= self.last
    }

    fn written(&self) -> String {
        match (self.first, self.last) {
            (0, _) => "all".to_owned(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        }
    }
}

/// As status has it: `80/tcp`, `8000-8100/udp`, `all/sctp`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.written(), self.transport)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut range = serializer.serialize_struct("PortRange", 3)?;
        match (self.first, self.last) {
            (first, last) if first == last && first != 0 => range.serialize_field("port", &first)?,
            _ => range.serialize_field("port", &self.written())?,
        }
        if !self.is_all() {
            range.serialize_field("target", &self.target)?;
        }
        range.serialize_field("protocol", self.transport.as_str())?;
        range.end()
    }
}

/// An entry of `ports`: `{port: 80, target: 8080, protocol: tcp}`, or a port alone: `80`, `"8000-8100"`, `all`, each also with
/// its protocol, `53/udp`. All ports without a protocol are those of every protocol.
pub(super) fn entry(field: &Field<'_>) -> Option<Vec<PortRange>> {
    if !matches!(field.node.value, Value::Mapping(_)) {
        let (numbers, transport) = numbers(field)?;
        return Some(ranges(numbers, transport, None)).and_then(|ranges| fitting(field, ranges));
    }
    let mapping = field.mapping(&["port", "target", "protocol"])?;
    let port = mapping.required("port").and_then(|field| Some((numbers(&field)?, field)));
    let target = mapping.or("target", None, |field| target(field).map(Some));
    let transport = mapping.or("protocol", None, |field| field.choice(&Transport::ALL).map(Some));
    let (((numbers, suffix), port_field), target, transport) = (port?, target?, transport?);
    if let (Some(suffix), Some(transport)) = (suffix, transport)
        && suffix != transport
    {
        return port_field.refuse(format_args!("names {suffix}, and `protocol` {transport}"));
    }
    let first = match (&target, mapping.get("target")) {
        (Some(target), Some(field)) => Some(first_target(&field, &numbers, target)?),
        _ => None,
    };
    fitting(field, ranges(numbers, transport.or(suffix), first))
}

/// What was written of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    All,
    Range(NonZeroU16, NonZeroU16),
}

fn ranges(
    numbers: Numbers,
    transport: Option<Transport>,
    target: Option<NonZeroU16>,
) -> Vec<Option<PortRange>> {
    match (numbers, transport) {
        (Numbers::All, Some(transport)) => vec![Some(PortRange::all(transport))],
        (Numbers::All, None) => {
            Transport::ALL.into_iter().map(|(_, transport)| Some(PortRange::all(transport))).collect()
        }
        (Numbers::Range(first, last), transport) => {
            let transport = transport.unwrap_or(Transport::Tcp);
            vec![PortRange::new(transport, first, last, target.unwrap_or(first))]
        }
    }
}

fn fitting(field: &Field<'_>, ranges: Vec<Option<PortRange>>) -> Option<Vec<PortRange>> {
    let all: Option<Vec<_>> = ranges.into_iter().collect();
    all.or_else(|| field.refuse("the backends' ports would go beyond 65535"))
}

const EXPECTED: &str = "a port (1-65535), a range of them as in \"8000-8100\", or `all`";

/// `80`, `8000-8100`, `all`, with or without `/tcp`.
fn numbers(field: &Field<'_>) -> Option<(Numbers, Option<Transport>)> {
    let text = match &field.node.value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        other => return field.refuse(format_args!("must be {EXPECTED}, not {other}")),
    };
    let wrong = || field.refuse(format_args!("must be {EXPECTED}, not {text:?}"));
    let (ports, transport) = match text.split_once('/') {
        None => (text.as_str(), None),
        Some((ports, word)) => match Transport::ALL.into_iter().find(|(known, _)| *known == word) {
            Some((_, transport)) => (ports, Some(transport)),
            None => return wrong(),
        },
    };
    if ports == "all" {
        return Some((Numbers::All, transport));
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Some((Numbers::Range(first, last), transport)),
        (Some(first), Some(last)) => {
            field.refuse(format_args!("ends at {last}, before it begins at {first}"))
        }
        _ => wrong(),
    }
}

fn number(text: &str) -> Option<NonZeroU16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// `8080`, or a range of as many ports as there are.
fn target(field: &Field<'_>) -> Option<Numbers> {
    match numbers(field)? {
        (numbers, None) => Some(numbers),
        (_, Some(_)) => field.refuse("must be a port without a protocol, which is that of `port`"),
    }
}

/// The first port of the backends.
fn first_target(field: &Field<'_>, ports: &Numbers, target: &Numbers) -> Option<NonZeroU16> {
    match (ports, target) {
        (Numbers::All, _) => field.refuse("must be left out: all ports stay as they are"),
        (Numbers::Range(..), Numbers::All) => {
            field.refuse("must be a port (1-65535), the first of the backends'")
        }
        (Numbers::Range(first, last), Numbers::Range(from, to)) => {
            let (ports, targets) = (last.get() - first.get(), to.get() - from.get());
            // A single one is where the backends' begin.
            if targets != 0 && targets != ports {
                let (ports, targets) = (u32::from(ports) + 1, u32::from(targets) + 1);
                return field
                    .refuse(format_args!("has {targets} ports for {ports}: they are mapped one to one"));
            }
            Some(*from)
        }
    }
}
