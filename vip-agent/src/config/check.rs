//! What a probe looks at and how it asks: types that hold no value which a check refused, and their written form.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::Method;
use regex_lite::Regex;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};

use super::duration::Span;
use super::interface::InterfaceName;
use super::model::{Name, Probe};
use super::template::{self, ADDRESS};
use crate::health::Thresholds;
use crate::vrrp::auth::MASK;

/// What a probe looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// `interface`: whether there is an interface of that name, up and with carrier. The kernel tells.
    Interface(InterfaceName),
    /// Something that has to be asked, again and again.
    Polled(Question, Polling),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `http`: whether a server answers a request as it should.
    Http(Box<Http>),
    /// `tcp`: whether a connection is accepted.
    Tcp(SocketAddr),
    /// The same, of this port of a backend.
    TcpPort(NonZeroU16),
    /// `exec`: whether a command ends with exit status 0.
    Exec(CommandLine),
    /// `file`: whether there is something at this absolute path.
    File(PathBuf),
    /// `preset`: a request whose particulars are known.
    Preset(Preset),
}

/// How often something is asked, and what is made of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// From one question to the next: 10 ms to 1 h.
    pub interval: Duration,
    /// How long an answer may take: 10 ms to 1 h.
    pub timeout: Duration,
    /// By how much a question is put off at random: up to 1 h.
    pub jitter: Duration,
    /// `fall`, `rise` and `initial`.
    pub thresholds: Thresholds,
}

/// A program and its arguments; no shell reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// A path, or a name that is looked up in `PATH`; not empty, without NUL.
    pub program: String,
    /// Without NUL.
    pub arguments: Vec<String>,
}

/// An HTTP request and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Whom to ask for what.
    pub url: Url,
    /// Any but CONNECT.
    pub method: Method,
    /// The `Host` header, and the name that the server's certificate is for; `None`: the URL's.
    pub host: Option<HostHeader>,
    /// Further headers.
    pub headers: Headers,
    /// Status codes that are right.
    pub status: StatusSet,
    /// What the body must hold; `None`: anything.
    pub body: Option<BodyMatch>,
    /// Certificates that the server's chain may end in (PEM), absolute; `None`: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// What this node shows of itself.
    pub identity: Option<Identity>,
    /// A file of a bearer token, absolute; read for each request.
    pub token_file: Option<PathBuf>,
    /// Whether any certificate is taken.
    pub insecure: bool,
}

impl Http {
    /// GET, status 200, all else left out.
    pub fn get(url: Url) -> Self {
        Self {
            url,
            method: Method::GET,
            host: None,
            headers: Headers::default(),
            status: StatusSet::default(),
            body: None,
            ca_file: None,
            identity: None,
            token_file: None,
            insecure: false,
        }
    }
}

/// A client certificate and its key: PEM files, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those that lead from it to the authority.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// An `http` or `https` URL with a host, and without a user's name or password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    uri: Uri,
    host: String,
}

/// Why a text is no [`Url`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It does not parse.
    #[error("{0:?} is no URL: write it as in \"http://127.0.0.1:10254/healthz\"")]
    Malformed(String),
    /// Neither `http` nor `https`.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// `user:password@`. Not repeated: it may be a secret.
    #[error("must not hold a user or password: use `headers` or `token_file`")]
    User,
    /// `{address}` as a part of a host's name.
    #[error("`{{address}}` stands for a backend's address: it is the whole host, or a part of the path")]
    Backend,
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        if !template::is_whole_host(authority) {
            return Err(UrlError::Backend);
        }
        let malformed = || UrlError::Malformed(text.to_owned());
        // Any address will do to see whether the rest is right.
        let example = text.replace(&format!("[{ADDRESS}]"), ADDRESS).replace(ADDRESS, "192.0.2.1");
        let uri: Uri = example.parse().map_err(|_| malformed())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(UrlError::Scheme);
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        // A port that is none, as in "http://a:/" or "http://a:99999/".
        if uri.authority().is_some_and(|authority| authority.as_str() != host) && uri.port_u16().is_none() {
            return Err(malformed());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { text: text.to_owned(), host, uri })
    }
}

impl Url {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is asked over TLS.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The host's name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 80 or 443 where none is written.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// Host and port as they are written.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or(&self.host, |authority| authority.as_str())
    }

    /// Path and query, which may stand without a path.
    pub fn path(&self) -> Cow<'_, str> {
        match self.uri.path_and_query().map_or("/", |path| path.as_str()) {
            query if query.starts_with('?') => Cow::Owned(format!("/{query}")),
            path => Cow::Borrowed(path),
        }
    }
}

/// `host`: a name or address, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostHeader(String);

impl FromStr for HostHeader {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let malformed = || UrlError::Malformed(text.to_owned());
        let authority: hyper::http::uri::Authority = text.parse().map_err(|_| malformed())?;
        if text.contains('@') || authority.host().is_empty() {
            return Err(malformed());
        }
        Ok(Self(text.to_owned()))
    }
}

impl HostHeader {
    /// As the header has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the port.
    pub fn name(&self) -> &str {
        let end = match self.0.rfind(':') {
            Some(colon) if !self.0.ends_with(']') => colon,
            _ => self.0.len(),
        };
        self.0[..end].trim_start_matches('[').trim_end_matches(']')
    }
}

/// `headers`: names in lower case, in the order of the file. Neither their `Debug` nor their serialised form shows the
/// values of those that hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(HeaderName, HeaderValue)>);

impl Headers {
    /// Adds one.
    ///
    /// # Errors
    /// What no request may carry, or what the request decides by itself. Never repeats the value.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        let name: HeaderName = name.parse().map_err(|_| HeaderError::Name(name.to_owned()))?;
        if matches!(name.as_str(), "host" | "connection" | "content-length" | "transfer-encoding") {
            return Err(HeaderError::Decided(name.to_string()));
        }
        if value == MASK {
            return Err(HeaderError::Masked);
        }
        let mut value: HeaderValue = value.parse().map_err(|_| HeaderError::Value)?;
        value.set_sensitive(is_secret(name.as_str()));
        self.0.push((name, value));
        Ok(())
    }

    /// Name and value.
    pub fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.0.iter()
    }

    fn shown(value: &HeaderValue) -> &str {
        if value.is_sensitive() { MASK } else { value.to_str().unwrap_or(MASK) }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name.as_str(), Self::shown(value)))).finish()
    }
}

/// Why something is no header of a probe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Of other characters.
    #[error("{0:?} is no name of a header")]
    Name(String),
    /// `host` and the like.
    #[error("{0} is not to be set here: the request decides it (see `host`)")]
    Decided(String),
    /// Control characters and the like.
    #[error("is no value of a header")]
    Value,
    /// What `vip-agent config` shows in place of a secret.
    #[error("is masked: write the value itself")]
    Masked,
}

/// Whether the values of this header are nobody's business.
fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 7] = ["auth", "cookie", "token", "key", "secret", "password", "credential"];
    PARTS.iter().any(|part| name.contains(part))
}

/// `status`: one code or more, 100-999.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    /// `None` if there is no code in it, or one beyond 100-999.
    pub fn new(ranges: Vec<RangeInclusive<u16>>) -> Option<Self> {
        let valid =
            |range: &RangeInclusive<u16>| !range.is_empty() && *range.start() >= 100 && *range.end() <= 999;
        (!ranges.is_empty() && ranges.iter().all(valid)).then_some(Self(ranges))
    }

    /// Whether a code is one of them.
    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|range| range.contains(&code))
    }
}

impl Default for StatusSet {
    fn default() -> Self {
        Self(vec![200..=200])
    }
}

/// `body`: what the answer's body must hold.
#[derive(Clone, Debug)]
pub enum BodyMatch {
    /// This text, somewhere.
    Text(String),
    /// `{regex: PATTERN}`: something that it matches.
    Pattern(Regex),
}

impl BodyMatch {
    /// Whether a body has it.
    pub fn is_in(&self, body: &str) -> bool {
        match self {
            Self::Text(text) => body.contains(text.as_str()),
            Self::Pattern(pattern) => pattern.is_match(body),
        }
    }
}

impl PartialEq for BodyMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(own), Self::Text(other)) => own == other,
            (Self::Pattern(own), Self::Pattern(other)) => own.as_str() == other.as_str(),
            _ => false,
        }
    }
}

impl Eq for BodyMatch {}

/// `preset`: what Kubernetes nodes run, asked as the keepalived-ingress-vip chart does, but with TLS verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// The kubelet's own health.
    Kubelet,
    /// The API server, as a pod reaches it.
    KubeApi,
    /// The ingress controller's health.
    IngressNginx,
}

impl Preset {
    /// All, by their words in the file.
    pub const ALL: [(&str, Self); 3] =
        [("kubelet", Self::Kubelet), ("kube_api", Self::KubeApi), ("ingress_nginx", Self::IngressNginx)];

    /// Its word in the file.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, preset)| *preset == self).map_or("", |(word, _)| word)
    }
}

// === impl Serialize ===

impl Serialize for Probe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut probe = serializer.serialize_map(None)?;
        probe.serialize_entry("name", &self.name)?;
        match &self.check {
            Check::Interface(name) => probe.serialize_entry("interface", &Keyed("name", name.as_str()))?,
            Check::Polled(question, polling) => {
                match question {
                    Question::Http(http) => probe.serialize_entry("http", http)?,
                    Question::Tcp(address) => probe.serialize_entry("tcp", &Keyed("address", address))?,
                    Question::TcpPort(port) => {
                        probe.serialize_entry("tcp", &Keyed("address", format!("{ADDRESS}:{port}")))?;
                    }
                    Question::Exec(command) => probe.serialize_entry("exec", &Keyed("command", command))?,
                    Question::File(path) => probe.serialize_entry("file", &Keyed("path", path))?,
                    Question::Preset(preset) => probe.serialize_entry("preset", preset.as_str())?,
                }
                let Polling { interval, timeout, jitter, thresholds } = polling;
                probe.serialize_entry("interval", &Span(*interval).to_string())?;
                probe.serialize_entry("timeout", &Span(*timeout).to_string())?;
                probe.serialize_entry("fall", &thresholds.fall)?;
                probe.serialize_entry("rise", &thresholds.rise)?;
                probe.serialize_entry("initial", if thresholds.initially_up { "up" } else { "down" })?;
                probe.serialize_entry("jitter", &Span(*jitter).to_string())?;
            }
        }
        probe.serialize_entry("weight", &i64::from(self.weight))?;
        probe.end()
    }
}

/// A mapping of one key.
struct Keyed<T>(&'static str, T);

impl<T: Serialize> Serialize for Keyed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

impl Serialize for CommandLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(std::iter::once(&self.program).chain(&self.arguments))
    }
}

impl Serialize for Http {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut http = serializer.serialize_struct("Http", 11)?;
        http.serialize_field("url", self.url.as_str())?;
        http.serialize_field("method", self.method.as_str())?;
        http.serialize_field("host", &self.host.as_ref().map(HostHeader::as_str))?;
        http.serialize_field("headers", &self.headers)?;
        http.serialize_field("status", &self.status)?;
        http.serialize_field("body", &self.body)?;
        http.serialize_field("ca_file", &self.ca_file)?;
        http.serialize_field("cert_file", &self.identity.as_ref().map(|identity| &identity.cert_file))?;
        http.serialize_field("key_file", &self.identity.as_ref().map(|identity| &identity.key_file))?;
        http.serialize_field("token_file", &self.token_file)?;
        http.serialize_field("insecure", &self.insecure)?;
        http.end()
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name.as_str(), Self::shown(value))))
    }
}

impl Serialize for StatusSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut codes = serializer.serialize_seq(Some(self.0.len()))?;
        for range in &self.0 {
            if range.start() == range.end() {
                codes.serialize_element(range.start())?;
            } else {
                codes.serialize_element(&format!("{}-{}", range.start(), range.end()))?;
            }
        }
        codes.end()
    }
}

impl Serialize for BodyMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Pattern(pattern) => Keyed("regex", pattern.as_str()).serialize(serializer),
        }
    }
}

impl Check {
    /// How outcomes become a verdict.
    pub fn thresholds(&self) -> Thresholds {
        match self {
            Self::Interface(_) => Thresholds::AT_ONCE,
            Self::Polled(_, polling) => polling.thresholds,
        }
    }
}

impl Probe {
    /// Its name, for maps and messages.
    pub fn name(&self) -> &str {
        Name::as_str(&self.name)
    }
}
