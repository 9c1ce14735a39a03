//! `/events`: what happens, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use tokio::time::timeout;

use super::Shared;
use super::respond::{Body, line, of};
use crate::events::Reader;

pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// How often a stream says something although nothing happens: so that proxies keep it, and readers that have gone are
/// noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Readers at a time. Each holds a connection; half of those that there may be are left for who asks once.
pub(super) const MOST_READERS: usize = 32;

/// Counts the readers there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers(Arc<AtomicUsize>);

/// One of them; gives its place back when dropped.
struct Seat(Readers);

impl Readers {
    fn sit_down(&self) -> Option<Seat> {
        let more = |count| (count < MOST_READERS).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a stream does next.
enum Turn {
    Greet,
    Follow,
    End,
}

/// A stream of what happens from now on, or from behind the event that the reader had last.
pub(super) fn events(method: &Method, last: Option<&str>, shared: &Shared) -> Response<Body> {
    if method == Method::HEAD {
        return of(StatusCode::OK, EVENT_STREAM, Empty::new().boxed_unsync());
    }
    let Some(seat) = shared.readers.sit_down() else {
        let mut refusal =
            line(StatusCode::SERVICE_UNAVAILABLE, format_args!("{MOST_READERS} readers are here already"));
        refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
        return refusal;
    };
    let frames = frames(shared.view.events.reader(last), seat, KEEP_ALIVE);
    of(StatusCode::OK, EVENT_STREAM, StreamBody::new(frames).boxed_unsync())
}

fn frames(
    reader: Reader,
    seat: Seat,
    keep_alive: Duration,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    stream::unfold((reader, seat, Turn::Greet), move |(mut reader, seat, turn)| async move {
        let (text, turn) = match turn {
            Turn::Greet => (Bytes::from_static(b"retry: 3000\n: viplane events\n\n"), Turn::Follow),
            Turn::Follow => match timeout(keep_alive, reader.next()).await {
                Ok(Ok(frame)) => (Bytes::copy_from_slice(frame.as_bytes()), Turn::Follow),
                Ok(Err(overtaken)) => {
                    (Bytes::from(format!("event: overtaken\ndata: {overtaken}\n\n")), Turn::End)
                }
                Err(_) => (Bytes::from_static(b": still here\n\n"), Turn::Follow),
            },
            Turn::End => return None,
        };
        Some((Ok(Frame::data(text)), (reader, seat, turn)))
    })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::events::{Events, Occurrence};

    fn reloaded() -> Occurrence {
        Occurrence::Reload { applied: true, error: None }
    }

    async fn texts(
        frames: impl Stream<Item = Result<Frame<Bytes>, Infallible>>,
        count: usize,
    ) -> Vec<String> {
        let text = |frame: Result<Frame<Bytes>, Infallible>| {
            let Ok(frame) = frame;
            String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
        };
        frames.take(count).map(text).collect().await
    }

    #[tokio::test]
    async fn a_stream_greets_tells_what_happens_and_says_something_in_between() {
        let (events, readers) = (Events::default(), Readers::default());
        let stream = frames(events.reader(None), readers.sit_down().unwrap(), Duration::from_millis(10));
        events.publish(&reloaded());
        let texts = texts(stream, 3).await;
        assert!(texts[0].starts_with("retry: 3000\n"), "{texts:?}");
        assert!(
            texts[1].contains("\nevent: reload\ndata: {\"event\":\"reload\",\"applied\":true,"),
            "{texts:?}"
        );
        assert_eq!(texts[2], ": still here\n\n");
    }

    #[tokio::test]
    async fn a_reader_that_is_overtaken_is_told_so_and_shown_out() {
        let (events, readers) = (Events::default(), Readers::default());
        let stream = frames(events.reader(None), readers.sit_down().unwrap(), Duration::from_millis(10));
        (0..3000).for_each(|_| events.publish(&reloaded()));
        let texts = texts(stream, 10).await;
        assert_eq!(texts.len(), 2);
        assert!(
            texts[1].starts_with("event: overtaken\ndata: you read too slowly: 1976 events"),
            "{texts:?}"
        );
        assert_eq!(readers.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn there_are_so_many_seats_and_they_come_back() {
        let readers = Readers::default();
        let mut seats: Vec<_> = (0..MOST_READERS).map(|_| readers.sit_down().unwrap()).collect();
        assert!(readers.sit_down().is_none());
        seats.pop();
        assert!(readers.sit_down().is_some());
    }
}
