//! Messages as lines, and lines of a stream that arrives in pieces. Pure.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the longest line: what 5000 Services in trouble and 255 virtual routers with a thousand peers each take, twice.
pub const LONGEST: usize = 16 << 20;

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No end of the line within [`LONGEST`].
    #[error("a line is longer than {LONGEST} bytes")]
    TooLong,
    /// It ended within a line.
    #[error("the last line is incomplete")]
    Truncated,
    /// What the line says is nothing that there is.
    #[error("a line says what is not understood: {0}")]
    Unknown(#[from] serde_json::Error),
}

/// A message as a line with its end.
///
/// # Errors
/// It is longer than whoever reads it would take, or cannot be written as JSON.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    if line.len() > LONGEST { Err(LineError::TooLong) } else { Ok(line) }
}

/// What has arrived and is not read yet.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Up to where there is no end of a line.
    searched: usize,
}

impl Lines {
    /// More has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message; `None`: it is not complete yet.
    ///
    /// # Errors
    /// It is too long, or not understood. Nothing can be read after that.
    pub fn message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        let end = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| self.searched + end) else {
            self.searched = self.bytes.len();
            return if self.searched >= LONGEST { Err(LineError::TooLong) } else { Ok(None) };
        };
        if end >= LONGEST {
            return Err(LineError::TooLong);
        }
        let message = serde_json::from_slice(&self.bytes[..end])?;
        self.bytes.drain(..=end);
        self.searched = 0;
        if self.bytes.is_empty() {
            // One large message is no reason to hold its room for ever.
            self.bytes = Vec::new();
        }
        Ok(Some(message))
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// Within a line.
    pub fn end(&self) -> Result<(), LineError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(LineError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Backend, Backends, Document, Kubernetes, Order, Report, Room, Steering, Telling, View};

    fn order() -> Order {
        Order {
            revision: 7,
            node: "node1".to_owned(),
            kubernetes: Kubernetes::default(),
            taken_ids: [51_u8.try_into().unwrap()].into(),
            taken_vips: ["10.0.0.50".parse().unwrap()].into(),
            steering: Steering::On(Room { services: 4096, ..Room::default() }),
            active: ["kube-configmap".to_owned()].into(),
        }
    }

    fn read<T: DeserializeOwned>(text: &str) -> Result<Option<T>, LineError> {
        let mut lines = Lines::default();
        lines.push(text.as_bytes());
        lines.message()
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        let view = View { revision: 7, in_sync: true, ..View::default() };
        let instances = serde_json::json!([{"name": "kube-configmap", "vips": ["10.0.0.50"]}]);
        let services = serde_json::json!([{"name": "kube-default.web", "vip": "10.0.0.50"}]);
        let backend = |address: [u8; 4], weight| Backend { address: address.into(), weight };
        let backends = vec![backend([10, 0, 1, 7], 1), backend([10, 0, 1, 8], 0)];
        let changed = Backends { of: 3, services: [("kube-default.web".to_owned(), backends)].into() };
        let reports = [
            Report::Alive,
            Report::View(view.clone()),
            Report::View(View {
                telling: Telling::Document(Document { number: 3, instances, services }),
                ..view.clone()
            }),
            Report::View(View { telling: Telling::Backends(changed), ..view }),
        ];
        let mut lines = Lines::default();
        for report in &reports {
            lines.push(&encode(report).unwrap());
        }
        for report in reports {
            assert_eq!(lines.message::<Report>().unwrap(), Some(report));
        }
        assert_eq!(lines.message::<Report>().unwrap(), None);
        assert!(lines.end().is_ok());
        let text = String::from_utf8(encode(&order()).unwrap()).unwrap();
        assert_eq!(read::<Order>(&text).unwrap(), Some(order()));
    }

    #[test]
    fn a_line_that_broke_off_is_no_message() {
        let line = encode(&order()).unwrap();
        for length in 0..line.len() {
            let mut lines = Lines::default();
            lines.push(&line[..length]);
            assert_eq!(lines.message::<Order>().unwrap(), None, "{length} bytes");
            assert_eq!(lines.end().is_err(), length > 0, "{length} bytes");
        }
    }

    #[test]
    fn what_one_side_alone_knows_is_refused() {
        let line = String::from_utf8(encode(&order()).unwrap()).unwrap();
        for (from, to) in [
            ("{\"revision\":7", "{\"revision\":7,\"moons\":2"),
            ("{\"revision\":7,", "{"),
            ("\"unicast\":true", "\"unicast\":true,\"moons\":2"),
            ("\"revision\":7", "\"revision\":\"seven\""),
            ("[51]", "[0]"),
            ("\"10.0.0.50\"", "\"ten\""),
        ] {
            let other = line.replace(from, to);
            assert_ne!(other, line, "{from}");
            assert!(matches!(read::<Order>(&other), Err(LineError::Unknown(_))), "{other}");
        }
        for text in ["\n", "{}\n", "\"Dead\"\n", "[1]\n", "\u{7f}\n"] {
            assert!(matches!(read::<Report>(text), Err(LineError::Unknown(_))), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_refused_when_it_is_too_long() {
        let mut lines = Lines::default();
        let piece = vec![b' '; LONGEST / 4];
        for _ in 0..3 {
            lines.push(&piece);
            assert!(matches!(lines.message::<Report>(), Ok(None)));
        }
        lines.push(&piece);
        assert!(matches!(lines.message::<Report>(), Err(LineError::TooLong)));
        // One with an end as well.
        let mut lines = Lines::default();
        lines.push(&vec![b' '; LONGEST]);
        lines.push(b"\"Alive\"\n");
        assert!(matches!(lines.message::<Report>(), Err(LineError::TooLong)));
        assert!(matches!(encode(&"x".repeat(LONGEST)), Err(LineError::TooLong)));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in prop::collection::vec(1..40_usize, 0..40)) {
            let stream = [encode(&order()).unwrap(), encode(&order()).unwrap()].concat();
            let (mut lines, mut rest, mut heard) = (Lines::default(), &stream[..], 0);
            for cut in cuts.into_iter().chain([stream.len()]) {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                lines.push(piece);
                rest = later;
                while let Some(order_again) = lines.message::<Order>().unwrap() {
                    prop_assert_eq!(order_again, order());
                    heard += 1;
                }
            }
            prop_assert_eq!(heard, 2);
            prop_assert!(lines.end().is_ok());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut lines = Lines::default();
            lines.push(&bytes);
            while let Ok(Some(_)) = lines.message::<Order>() {}
            let _ = lines.end();
        }
    }
}
