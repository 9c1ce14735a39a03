//! One connection: TLS where it is wanted, one request, one response. Bounded in time and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::events::EVENT_STREAM;
use super::{Shared, Token, routes};
use crate::config;

/// How long a request's header, and a TLS handshake before it, may take.
const HEADER: Duration = Duration::from_secs(5);

/// How long a whole connection may take that is no event stream.
const WHOLE: Duration = Duration::from_secs(15);

/// Bytes that a request's header may have, and that are kept of it: the least that hyper takes.
const LARGEST_HEADER: usize = 8 << 10;

/// Lines that it may have.
const MOST_HEADERS: usize = 64;

/// What decides who gets in.
pub(super) struct Doorman {
    tls: Option<TlsAcceptor>,
    token: Option<Token>,
}

impl Doorman {
    pub(super) fn new(wanted: &config::Api) -> Self {
        Self {
            tls: wanted.tls.as_ref().map(|tls| TlsAcceptor::from(tls.identity.config())),
            token: wanted.token.as_ref().map(|file| file.token),
        }
    }
}

/// Serves one connection to its end; `streams` is set while it is an event stream.
pub(super) async fn converse(
    stream: TcpStream,
    doorman: Arc<Doorman>,
    streams: Arc<AtomicBool>,
    shared: Arc<Shared>,
) {
    let Some(tls) = &doorman.tls else {
        return serve(stream, &doorman, &streams, &shared).await;
    };
    match timeout(HEADER, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, &doorman, &streams, &shared).await,
        Ok(Err(error)) => tracing::debug!(%error, "a client of the HTTP API fails at TLS"),
        Err(_) => tracing::debug!("a client of the HTTP API takes too long for TLS"),
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    doorman: &Doorman,
    streams: &AtomicBool,
    shared: &Arc<Shared>,
) {
    let service = service_fn(async |request: Request<Incoming>| {
        let response = routes::answer(request, doorman.token.as_ref(), shared).await;
        if let Ok(response) = &response {
            let kind = response.headers().get(CONTENT_TYPE);
            streams.store(kind.is_some_and(|kind| kind == EVENT_STREAM), Ordering::Relaxed);
        }
        response
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LARGEST_HEADER)
        // One request each: there is no idle connection to be kept an eye on.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let too_long = async {
        sleep(WHOLE).await;
        if streams.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a client of the HTTP API");
            }
        }
        () = too_long => tracing::debug!("a client of the HTTP API takes too long"),
    }
}
