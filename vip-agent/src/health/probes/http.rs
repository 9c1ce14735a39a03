//! `http`: one request on a connection of its own, and whether the answer is what it should be.
//!
//! Connections are not kept for the next round: a server that accepts none any more must show. Redirects are not
//! followed. What is read of an answer is bounded.

mod polite;

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use self::polite::Polite;
use super::background::Background;
use super::tls::Tls;
use super::{Limit, tcp};
use crate::config::{HostHeader, Http, Url};

/// A longer body is no answer to a question about health.
const LARGEST_BODY: usize = 256 << 10;

/// Smaller pieces cost as much as these: each is looked at.
const SMALLEST_PIECE: usize = 16;

/// Room for the answer's head.
const LARGEST_HEAD: usize = 32 << 10;

/// A token that is longer than any.
const LARGEST_TOKEN: u64 = 16 << 10;

#[derive(Debug)]
pub(super) struct Asker {
    http: Http,
    tls: Option<Arc<Tls>>,
    background: Background,
}

/// What is looked up for each request.
struct Lookup {
    addresses: Vec<SocketAddr>,
    tls: Option<Arc<ClientConfig>>,
    token: Option<HeaderValue>,
}

impl Asker {
    pub(super) fn new(http: Http) -> Self {
        let tls = http.url.is_https().then(|| Arc::new(Tls::new(&http)));
        Self { http, tls, background: Background::default() }
    }

    pub(super) async fn ask(&self, limit: Limit) -> Result<(), String> {
        let Lookup { addresses, tls, token } = self.look_up(limit).await?;
        let request = self.request(token)?;
        let stream = connect(&addresses, limit).await?;
        let Some(config) = tls else { return self.talk(stream, request, limit).await };
        let name = self.http.host.as_ref().map_or(self.http.url.host(), HostHeader::name);
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("{name:?} is no name that a certificate could be for"))?;
        let handshake = TlsConnector::from(config).connect(server, stream);
        let stream = limit.on("in the TLS handshake", handshake).await?.map_err(|error| {
            // The latter: there is an authority of that name, but it is another one.
            let unknown = ["UnknownIssuer", "BadSignature"].iter().any(|why| error.to_string().contains(why));
            let remedy =
                if unknown { " (`ca_file` names the authority, if it is one of your own)" } else { "" };
            format!("TLS: {error}{remedy}")
        })?;
        self.talk(stream, request, limit).await
    }

    /// Addresses, certificates and token: what needs no file and no resolver is there at once.
    async fn look_up(&self, limit: Limit) -> Result<Lookup, String> {
        let url = &self.http.url;
        if let (Ok(address), None, None) = (url.host().parse::<IpAddr>(), &self.tls, &self.http.token_file) {
            let addresses = vec![SocketAddr::new(address, url.port())];
            return Ok(Lookup { addresses, tls: None, token: None });
        }
        let (url, tls) = (url.clone(), self.tls.clone());
        let token_file = self.http.token_file.clone();
        let look = self.background.run(move || {
            Ok(Lookup {
                addresses: resolve(&url)?,
                tls: tls.map(|tls| tls.config()).transpose()?,
                token: token_file.map(|file| bearer(&file)).transpose()?,
            })
        });
        limit.on("looking up the server's name, certificates or token", look).await??
    }

    fn request(&self, token: Option<HeaderValue>) -> Result<Request<Empty<Bytes>>, String> {
        let http = &self.http;
        let host = http.host.as_ref().map_or(http.url.authority(), HostHeader::as_str);
        let mut request = Request::builder()
            .method(&http.method)
            .uri(&*http.url.path())
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        for (name, value) in http.headers.iter() {
            headers.append(name, value.clone());
        }
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static("viplane-probe"));
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // RFC 9110, 12.5.3: without it the server may compress.
        headers.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
        if matches!(http.method, Method::POST | Method::PUT | Method::PATCH) {
            // RFC 9110, 8.6: the server expects a body, and is told that it is empty.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token);
        }
        Ok(request)
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        request: Request<Empty<Bytes>>,
        limit: Limit,
    ) -> Result<(), String> {
        let mut client = http1::Builder::new();
        client.max_buf_size(LARGEST_HEAD);
        let opened = client.handshake::<_, Empty<Bytes>>(TokioIo::new(Polite::new(stream))).await;
        let (mut sender, connection) = opened.map_err(|error| plainly(&error))?;
        let mut exchange = pin!(async {
            let answer = limit.on("waiting for the answer", sender.send_request(request)).await?;
            self.judge(answer.map_err(|error| plainly(&error))?, limit).await
        });
        tokio::select! {
            biased;
            judged = &mut exchange => judged,
            // What it has read by then is still to be judged.
            _ = connection => exchange.await,
        }
    }

    async fn judge(&self, answer: Response<Incoming>, limit: Limit) -> Result<(), String> {
        let status = answer.status();
        if !self.http.status.contains(status.as_u16()) {
            return Err(wrong_status(status));
        }
        let (head, body) = answer.into_parts();
        let body =
            limit.on("reading the body", self.read(body, ends_with_connection(&head.headers))).await??;
        match &self.http.body {
            Some(wanted) if !wanted.is_in(&String::from_utf8_lossy(&body)) => {
                let coding =
                    head.headers.get(header::CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
                let coding = coding.map_or(String::new(), |coding| format!(", Content-Encoding {coding}"));
                let length = body.len();
                Err(format!(
                    "status {status}, but the body ({length} bytes{coding}) is not what it should be"
                ))
            }
            _ => Ok(()),
        }
    }

    /// To its end, so that one that breaks off shows. It is kept only where it matters.
    async fn read(&self, mut body: Incoming, ends_with_connection: bool) -> Result<Vec<u8>, String> {
        let too_large = || format!("the body is larger than {} KiB", LARGEST_BODY >> 10);
        if body.size_hint().lower() > LARGEST_BODY as u64 {
            return Err(too_large());
        }
        let (mut kept, mut length, mut cost) = (Vec::new(), 0, 0);
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                // Some servers just close, without TLS's farewell.
                Err(error) if ends_with_connection && ends_without_farewell(&error) => break,
                Err(error) => return Err(format!("in the body: {}", plainly(&error))),
            };
            let Some(data) = frame.data_ref() else { continue };
            length += data.len();
            cost += data.len().max(SMALLEST_PIECE);
            if length > LARGEST_BODY {
                return Err(too_large());
            }
            if cost > LARGEST_BODY {
                return Err(format!("the body comes in small pieces, {length} bytes in all so far"));
            }
            if self.http.body.is_some() {
                kept.extend_from_slice(data);
            }
        }
        Ok(kept)
    }
}

/// One address after the other; each has its part of the time that is left.
async fn connect(addresses: &[SocketAddr], limit: Limit) -> Result<TcpStream, String> {
    let mut why = "its name has no address".to_owned();
    for (index, address) in addresses.iter().enumerate() {
        let parts = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let part = limit.until.saturating_duration_since(Instant::now()) / parts;
        match tcp::connect(*address, Limit { until: Instant::now() + part, ..limit }).await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn resolve(url: &Url) -> Result<Vec<SocketAddr>, String> {
    let found = (url.host(), url.port()).to_socket_addrs();
    Ok(found.map_err(|error| format!("cannot resolve {}: {error}", url.host()))?.collect())
}

/// `Authorization: Bearer ...` by a file's token.
fn bearer(file: &Path) -> Result<HeaderValue, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(LARGEST_TOKEN).read_to_string(&mut text));
    let wrong = |why: &dyn std::fmt::Display| format!("token_file {}: {why}", file.display());
    read.map_err(|error| wrong(&error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(wrong(&"is empty"));
    }
    let mut value: HeaderValue = format!("Bearer {token}").parse().map_err(|_| wrong(&"holds no token"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn wrong_status(status: StatusCode) -> String {
    let note = if status.is_redirection() { " (redirects are not followed)" } else { "" };
    format!("status {status}{note}")
}

/// What went wrong in the words of those who run servers.
fn plainly(error: &hyper::Error) -> String {
    if let Some(io) = io_error(error) {
        return match io.kind() {
            io::ErrorKind::ConnectionReset => "the server reset the connection".to_owned(),
            io::ErrorKind::UnexpectedEof => "the server closed the connection too early".to_owned(),
            _ => io.to_string(),
        };
    }
    if error.is_incomplete_message() {
        "the server closed the connection without an answer".to_owned()
    } else if error.is_parse() && error.to_string().contains("too large") {
        format!("the answer's head is larger than {} KiB", LARGEST_HEAD >> 10)
    } else if error.is_parse() {
        "the answer is not HTTP/1".to_owned()
    } else {
        error.to_string()
    }
}

/// RFC 9112, 6.3: a body whose length is said in neither way.
fn ends_with_connection(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::CONTENT_LENGTH) && !headers.contains_key(header::TRANSFER_ENCODING)
}

fn ends_without_farewell(error: &hyper::Error) -> bool {
    io_error(error).is_some_and(|error| error.to_string().contains("close_notify"))
}

fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        source = error.source();
    }
    None
}
