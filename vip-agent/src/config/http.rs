//! The schema of an `http` probe.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use hyper::http::Method;
use regex_lite::Regex;

use super::check::{BodyMatch, Headers, HostHeader, Http, Identity, StatusSet, Url};
use super::field::{Field, Mapping};
use super::tree::Value;

pub(super) const KEYS: [&str; 11] = [
    "url",
    "method",
    "host",
    "headers",
    "status",
    "body",
    "ca_file",
    "cert_file",
    "key_file",
    "token_file",
    "insecure",
];

/// Longest text that a body may have to hold: what is read of a body is bounded, too.
const LONGEST_MATCH: usize = 4096;

pub(super) fn http(field: &Field<'_>) -> Option<Http> {
    let mapping = field.mapping(&KEYS)?;
    let url = mapping.required("url").and_then(|field| field.accept(field.text()?.parse::<Url>()));
    let method = mapping.or("method", Method::GET, method);
    let host = unless_null(&mapping, "host", |field| field.accept(field.text()?.parse::<HostHeader>()));
    let headers = mapping.or("headers", Headers::default(), headers);
    let status = mapping.or("status", StatusSet::default(), status);
    let body = unless_null(&mapping, "body", body);
    let ca_file = unless_null(&mapping, "ca_file", Field::absolute_path);
    let identity = identity(&mapping);
    let token_file = unless_null(&mapping, "token_file", Field::absolute_path);
    let insecure = mapping.or("insecure", false, Field::boolean);
    let http = Http {
        url: url?,
        method: method?,
        host: host?,
        headers: headers?,
        status: status?,
        body: body?,
        ca_file: ca_file?,
        identity: identity?,
        token_file: token_file?,
        insecure: insecure?,
    };
    if http.method == Method::HEAD
        && http.body.is_some()
        && let Some(field) = mapping.get("body")
    {
        return field.refuse("cannot match: the answer to HEAD has no body");
    }
    warn_of_tls(&mapping, &http);
    Some(http)
}

fn unless_null<'a, T>(
    mapping: &Mapping<'a>,
    key: &str,
    read: impl FnOnce(&Field<'a>) -> Option<T>,
) -> Option<Option<T>> {
    mapping.or(key, None, |field| if field.is_null() { Some(None) } else { read(field).map(Some) })
}

/// What protects nothing, or does nothing.
fn warn_of_tls(mapping: &Mapping<'_>, http: &Http) {
    let warn = |key: &str, message: &str| {
        if let Some(field) = mapping.get(key).filter(|field| !field.is_null()) {
            field.warn(message);
        }
    };
    if http.url.is_https() {
        if http.insecure {
            warn("insecure", "whoever is on the way can answer for the server");
            warn("ca_file", "has no effect: with `insecure` any certificate is taken");
            warn("token_file", "with `insecure` the token is sent to whoever answers");
        }
        return;
    }
    for key in ["ca_file", "cert_file", "key_file"] {
        warn(key, "has no effect with http://");
    }
    if http.insecure {
        warn("insecure", "has no effect with http://");
    }
    warn("token_file", "with http:// the token is sent in the clear");
}

fn method(field: &Field<'_>) -> Option<Method> {
    let text = field.text()?;
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if method != Method::CONNECT && !text.contains(|c: char| c.is_ascii_lowercase()) => {
            Some(method)
        }
        _ => field.refuse(format_args!("must be a method such as GET, HEAD or POST, not {text:?}")),
    }
}

fn headers(field: &Field<'_>) -> Option<Headers> {
    if field.is_null() {
        return Some(Headers::default());
    }
    let (mut headers, mut all) = (Headers::default(), true);
    for (name, field) in field.entries()? {
        // Never by `text`, whose complaint would repeat the value.
        let Value::Text(value) = &field.node.value else {
            field.error("must be a text: put it in quotes");
            all = false;
            continue;
        };
        all &= field.accept(headers.push(name, value)).is_some();
    }
    all.then_some(headers)
}

fn status(field: &Field<'_>) -> Option<StatusSet> {
    let fields = match field.node.value {
        Value::List(_) => field.list()?,
        _ => vec![field.clone()],
    };
    let written = fields.len();
    let ranges: Vec<_> = fields.iter().filter_map(codes).collect();
    if ranges.len() < written {
        return None;
    }
    StatusSet::new(ranges).or_else(|| field.refuse("needs at least one status code"))
}

/// A code, or a range of them.
fn codes(field: &Field<'_>) -> Option<RangeInclusive<u16>> {
    let range = match &field.node.value {
        Value::Integer(code) => u16::try_from(*code).ok().map(|code| code..=code),
        Value::Text(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let code = |text: &str| text.trim().parse::<u16>().ok();
            code(first).zip(code(last)).map(|(first, last)| first..=last)
        }
        _ => None,
    };
    match range {
        Some(range) if StatusSet::new(vec![range.clone()]).is_some() => Some(range),
        _ => field.refuse(format_args!(
            "must be a status code, 100-999, or a range of them as in \"200-299\", not {}",
            field.node.value
        )),
    }
}

/// A text, or `{regex: PATTERN}`.
fn body(field: &Field<'_>) -> Option<BodyMatch> {
    let within = |field: &Field<'_>, text: &str| {
        let valid = (1..=LONGEST_MATCH).contains(&text.len());
        valid.then_some(()).or_else(|| field.refuse(format_args!("must be of 1-{LONGEST_MATCH} bytes")))
    };
    if !matches!(field.node.value, Value::Mapping(_)) {
        let text = field.text()?;
        within(field, text)?;
        return Some(BodyMatch::Text(text.to_owned()));
    }
    let pattern = field.mapping(&["regex"])?.required("regex")?;
    let text = pattern.text()?;
    within(&pattern, text)?;
    match Regex::new(text) {
        Ok(regex) => Some(BodyMatch::Pattern(regex)),
        Err(error) => pattern.refuse(format_args!("{text:?} is not a regular expression: {error}")),
    }
}

fn identity(mapping: &Mapping<'_>) -> Option<Option<Identity>> {
    let cert_file: Option<PathBuf> = unless_null(mapping, "cert_file", Field::absolute_path)?;
    let key_file: Option<PathBuf> = unless_null(mapping, "key_file", Field::absolute_path)?;
    let lonely = |key: &str, other: &str| {
        mapping.get(key).and_then(|field| field.refuse(format_args!("needs `{other}` beside it")))
    };
    match (cert_file, key_file) {
        (None, None) => Some(None),
        (Some(cert_file), Some(key_file)) => Some(Some(Identity { cert_file, key_file })),
        (Some(_), None) => lonely("cert_file", "key_file"),
        (None, Some(_)) => lonely("key_file", "cert_file"),
    }
}
