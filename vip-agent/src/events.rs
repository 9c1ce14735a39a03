//! What happens, for whoever listens: a ring of the last events, which readers follow at their own pace.
//!
//! There is no queue per reader: each has but a place in the ring. Who publishes never waits for who reads, and a reader that
//! the ring has overtaken is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;

use crate::status::Takeover;

/// Events kept: a takeover of 255 instances makes some 500.
const KEPT: usize = 1024;

/// Bytes of a text that somebody else wrote (a probe's error, a refusal): an event stays small.
const LONGEST_TEXT: usize = 512;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Occurrence {
    /// An instance changed its state.
    Transition {
        /// Which.
        instance: String,
        /// State before.
        from: String,
        /// State after.
        to: String,
        /// Cause and phases.
        #[serde(flatten)]
        takeover: Takeover,
    },
    /// A new alarm; one that is repeated is not told again, and of a flood only some are.
    Alarm {
        /// As in status.
        kind: String,
        /// The instance concerned.
        instance: String,
        /// The VIP, or the other router's address.
        address: std::net::IpAddr,
        /// The other's MAC.
        mac: String,
    },
    /// A probe has another verdict.
    Verdict {
        /// Which.
        probe: String,
        /// The verdict.
        up: bool,
        /// Why it is down.
        error: Option<String>,
    },
    /// The configuration was read again.
    Reload {
        /// Whether all of it was applied.
        applied: bool,
        /// Why it was not, or what was not.
        error: Option<String>,
    },
}

impl Occurrence {
    /// Its name in the stream.
    const fn name(&self) -> &'static str {
        match self {
            Self::Transition { .. } => "transition",
            Self::Alarm { .. } => "alarm",
            Self::Verdict { .. } => "verdict",
            Self::Reload { .. } => "reload",
        }
    }

    /// A text of others, not longer than an event may be.
    pub fn text(text: &str) -> String {
        let end = text.floor_char_boundary(LONGEST_TEXT);
        if end == text.len() { text.to_owned() } else { format!("{}…", &text[..end]) }
    }
}

/// The ring; clones are the same one.
#[derive(Clone, Debug)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Tells this process's events from those of earlier ones.
    epoch: u64,
    ring: Mutex<Ring>,
    /// How many there were.
    published: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Number of the first one kept.
    first: u64,
    frames: VecDeque<Arc<str>>,
}

impl Default for Events {
    fn default() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self(Arc::new(Inner { epoch, ring: Mutex::default(), published: watch::Sender::new(0) }))
    }
}

impl Events {
    /// Adds one; the oldest makes room for it.
    pub fn publish(&self, event: &Occurrence) {
        let data = serde_json::to_string(event).unwrap_or_else(|error| format!("\"{error}\""));
        let mut ring = self.ring();
        let number = ring.first + ring.frames.len() as u64;
        if ring.frames.len() == KEPT {
            ring.frames.pop_front();
            ring.first += 1;
        }
        let frame = format!("id: {}-{number}\nevent: {}\ndata: {data}\n\n", self.0.epoch, event.name());
        ring.frames.push_back(frame.into());
        drop(ring);
        self.0.published.send_replace(number + 1);
    }

    /// A reader of what is yet to come, or, if it says what it had last (`Last-Event-ID`), of all that came after that. One of an
    /// earlier process gets all that is kept.
    pub fn reader(&self, last: Option<&str>) -> Reader {
        let ring = self.ring();
        let end = ring.first + ring.frames.len() as u64;
        let next = match last.and_then(|last| last.split_once('-')) {
            None => end,
            Some((epoch, number)) => match number.parse::<u64>() {
                Ok(number) if epoch.parse() == Ok(self.0.epoch) => number.saturating_add(1).min(end),
                _ => ring.first,
            },
        };
        drop(ring);
        Reader { events: self.clone(), published: self.0.published.subscribe(), next }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the ring.
#[derive(Debug)]
pub struct Reader {
    events: Events,
    published: watch::Receiver<u64>,
    /// Number of the event that it reads next.
    next: u64,
}

/// The ring has overtaken a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("you read too slowly: {missed} events were lost to you; connect again, and look at /status")]
pub struct Overtaken {
    /// Events that it cannot have any more.
    pub missed: u64,
}

impl Reader {
    /// The next event, as a frame of a server-sent stream. Waits until there is one.
    ///
    /// # Errors
    /// It is not kept any more.
    pub async fn next(&mut self) -> Result<Arc<str>, Overtaken> {
        loop {
            if let Some(frame) = self.at_hand()? {
                return Ok(frame);
            }
            let next = self.next;
            // The sender lives in the ring that this reader holds.
            let _ = self.published.wait_for(|&published| published > next).await;
        }
    }

    fn at_hand(&mut self) -> Result<Option<Arc<str>>, Overtaken> {
        let ring = self.events.ring();
        let missed = ring.first.saturating_sub(self.next);
        if missed > 0 {
            return Err(Overtaken { missed });
        }
        let place = usize::try_from(self.next - ring.first).unwrap_or(usize::MAX);
        let frame = ring.frames.get(place).cloned();
        self.next += u64::from(frame.is_some());
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(probe: &str) -> Occurrence {
        Occurrence::Verdict { probe: probe.into(), up: false, error: Some("a\nb".into()) }
    }

    fn read(reader: &mut Reader) -> Option<String> {
        reader.at_hand().unwrap().map(|frame| frame.to_string())
    }

    #[test]
    fn an_event_is_one_frame_whatever_its_texts_hold() {
        let events = Events::default();
        let mut reader = events.reader(None);
        events.publish(&verdict("ingress"));
        let frame = read(&mut reader).unwrap();
        let id = format!("id: {}-0\n", events.0.epoch);
        let rest = "event: verdict\ndata: {\"event\":\"verdict\",\"probe\":\"ingress\",\"up\":false,\"error\":\"a\\nb\"}\n\n";
        assert_eq!(frame, format!("{id}{rest}"));
        assert_eq!(read(&mut reader), None);
    }

    #[test]
    fn a_reader_goes_on_behind_what_it_had_last() {
        let events = Events::default();
        (0..5).for_each(|n| events.publish(&verdict(&n.to_string())));
        let epoch = events.0.epoch;
        let first = |last: &str| read(&mut events.reader(Some(last)));
        assert!(first(&format!("{epoch}-2")).unwrap().contains("\"probe\":\"3\""));
        assert_eq!(first(&format!("{epoch}-4")), None);
        assert_eq!(first(&format!("{epoch}-99")), None);
        // Of an earlier process, or nonsense with a dash.
        assert!(first("12-4").unwrap().contains("\"probe\":\"0\""));
        assert!(first("-").unwrap().contains("\"probe\":\"0\""));
        assert_eq!(read(&mut events.reader(Some("nonsense"))), None);
    }

    #[test]
    fn who_was_overtaken_is_told_how_much_is_lost() {
        let events = Events::default();
        let mut slow = events.reader(None);
        (0..KEPT).for_each(|_| events.publish(&verdict("a")));
        assert!(slow.at_hand().unwrap().is_some());
        (0..3).for_each(|_| events.publish(&verdict("b")));
        assert_eq!(slow.at_hand(), Err(Overtaken { missed: 2 }));
        assert_eq!(events.ring().frames.len(), KEPT);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(Occurrence::text("short"), "short");
        let cut = Occurrence::text(&"é".repeat(600));
        assert_eq!(cut.chars().count(), 257);
        assert!(cut.ends_with('…'));
    }
}
