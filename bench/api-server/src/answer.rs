//! Answers to requests: lists in pages, watches, single objects, and status patches.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use crate::Shared;
use crate::store::Selection;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A path and what it asks for.
#[derive(Debug, Default)]
struct Asked {
    selection: Selection,
    /// The name of one object.
    object: Option<String>,
    watch: bool,
    since: u64,
    limit: usize,
    skip: usize,
}

impl Asked {
    /// `/api/v1/namespaces/NS/services/NAME/status?watch=true`, and the like. All of a group of the API is
    /// below `/api/v1` or `/apis/GROUP/VERSION`.
    fn of(path: &str, query: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = parts.split_at_checked(if parts.first() == Some(&"api") { 2 } else { 3 })?;
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let resource = format!("/{}/{}", group.join("/"), rest.first()?);
        let mut asked = Self {
            selection: Selection { resource, namespace, name: None },
            object: rest.get(1).map(|name| (*name).to_owned()),
            ..Self::default()
        };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "watch" => asked.watch = value == "true" || value == "1",
                "resourceVersion" => asked.since = value.parse().unwrap_or(0),
                "limit" => asked.limit = value.parse().unwrap_or(0),
                "continue" => asked.skip = value.parse().unwrap_or(0),
                "fieldSelector" => {
                    let value = value.replace("%3D", "=");
                    asked.selection.name = value.strip_prefix("metadata.name=").map(str::to_owned);
                }
                _ => {}
            }
        }
        Some(asked)
    }

    fn resource(&self) -> &str {
        self.selection.resource.rsplit('/').next().unwrap_or_default()
    }
}

pub(crate) async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    let faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !faults.delay.is_zero() {
        tokio::time::sleep(faults.delay).await;
    }
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let asked = Asked::of(uri.path(), uri.query().unwrap_or_default());
    Ok(match (faults.status, asked) {
        (Some(code), _) => status(code, "InternalError", "this server is told to fail"),
        (None, None) => status(404, "NotFound", "there is no such resource"),
        (None, Some(asked)) if faults.forbidden.as_deref() == Some(asked.resource()) => {
            let message = format!("{} is forbidden: nobody may do that", asked.resource());
            status(403, "Forbidden", &message)
        }
        (None, Some(asked)) if method == Method::PATCH => {
            let body = request
                .into_body()
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            patch(&shared, &asked, uri.path(), &body)
        }
        (None, Some(asked)) if asked.watch => watch(shared, asked),
        (None, Some(asked)) => match &asked.object {
            None => list(&shared, &asked),
            Some(name) => {
                let namespace = asked.selection.namespace.as_deref().unwrap_or_default();
                match shared.store().get(&asked.selection.resource, namespace, name) {
                    Some(object) => said(200, object),
                    None => status(404, "NotFound", "there is no such object"),
                }
            }
        },
    })
}

fn said(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = code.try_into().unwrap_or_default();
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    said(code, &failure(code, reason, message))
}

fn list(shared: &Shared, asked: &Asked) -> Response<Body> {
    let store = shared.store();
    let all = store.list(&asked.selection);
    let most = if asked.limit == 0 { all.len() } else { asked.limit };
    let rest = all.len().saturating_sub(asked.skip + most);
    let page: Vec<&Value> = all.into_iter().skip(asked.skip).take(most).collect();
    let mut meta = json!({"resourceVersion": store.revision().to_string()});
    if rest > 0 {
        meta["continue"] = json!((asked.skip + most).to_string());
    }
    said(200, &json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": page}))
}

/// A merge of `status`, and of nothing else.
fn patch(shared: &Shared, asked: &Asked, path: &str, body: &[u8]) -> Response<Body> {
    let (Some(name), Ok(patch)) = (&asked.object, serde_json::from_slice::<Value>(body)) else {
        return status(400, "BadRequest", "this server patches the status of objects");
    };
    let namespace = asked.selection.namespace.as_deref().unwrap_or_default();
    let mut store = shared.store();
    let Some(mut object) = store.get(&asked.selection.resource, namespace, name).cloned() else {
        return status(404, "NotFound", "there is no such object");
    };
    object["status"] = patch["status"].clone();
    let revision = store.put(&asked.selection.resource, object.clone());
    drop(store);
    shared.writes.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
    shared.revision.send_replace(revision);
    said(200, &object)
}

/// Changes as they come, until what has changed is forgotten.
fn watch(shared: Arc<Shared>, asked: Asked) -> Response<Body> {
    let revisions = shared.revision.subscribe();
    let from = Some((shared, asked.since, revisions));
    let events = stream::unfold(from, move |state| {
        let selection = asked.selection.clone();
        async move {
            let (shared, since, mut revisions) = state?;
            loop {
                revisions.mark_unchanged();
                let changes = shared.store().since(since, &selection);
                let Some(changes) = changes else {
                    let gone = failure(410, "Expired", "too old resource version");
                    return Some((frame(&[json!({"type": "ERROR", "object": gone})]), None));
                };
                if let Some(last) = changes.last() {
                    let events: Vec<Value> = changes
                        .iter()
                        .map(|change| json!({"type": change.kind, "object": change.object}))
                        .collect();
                    return Some((frame(&events), Some((shared, last.revision, revisions))));
                }
                if revisions.changed().await.is_err() {
                    return None;
                }
            }
        }
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

fn frame(events: &[Value]) -> Result<Frame<Bytes>, Infallible> {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    Ok(Frame::data(Bytes::from(lines)))
}
