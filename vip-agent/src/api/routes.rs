//! From a request to its response: method, path, token, endpoint.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::header::{ALLOW, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};

use super::respond::{self, Body};
use super::{Shared, Token, events, health, metrics, page, status};

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Page,
    Metrics,
    Healthz,
    Readyz,
    Status,
    Events,
}

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Healthz,
            "/readyz" => Self::Readyz,
            "/status" => Self::Status,
            "/events" => Self::Events,
            _ => return None,
        })
    }

    /// A kubelet has no token for its probes: these two answer anybody, but give reasons only to who may know them.
    const fn answers_anybody(self) -> bool {
        matches!(self, Self::Healthz | Self::Readyz)
    }
}

/// Answers a request, whatever it is.
pub(super) async fn answer<B: hyper::body::Body>(
    request: Request<B>,
    token: Option<&Token>,
    shared: &Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    let (endpoint, trusted) = match admit(&request, token) {
        Ok(admitted) => admitted,
        Err(refusal) => return Ok(*refusal),
    };
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    Ok(match endpoint {
        Endpoint::Page => page::page(shared).await,
        Endpoint::Metrics => metrics::metrics(header("accept").unwrap_or_default(), shared).await,
        Endpoint::Healthz => health::healthz(shared, trusted),
        Endpoint::Readyz => health::readyz(shared, trusted).await,
        Endpoint::Status => status::status(shared).await,
        Endpoint::Events => events::events(request.method(), header("last-event-id"), shared),
    })
}

/// Which endpoint a request is for, and whether it showed the token (or none is needed); or why it is refused.
fn admit<B: hyper::body::Body>(
    request: &Request<B>,
    token: Option<&Token>,
) -> Result<(Endpoint, bool), Box<Response<Body>>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = respond::line(
            StatusCode::METHOD_NOT_ALLOWED,
            "this API shows and changes nothing: GET and HEAD only",
        );
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Err(refusal.into());
    }
    if !request.body().is_end_stream() {
        return Err(respond::line(StatusCode::PAYLOAD_TOO_LARGE, "no request here has a body").into());
    }
    let Some(endpoint) = Endpoint::at(request.uri().path()) else {
        let there_is = "there is /, /metrics, /healthz, /readyz, /status and /events";
        return Err(respond::line(StatusCode::NOT_FOUND, there_is).into());
    };
    let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let trusted = token.is_none_or(|token| shown.is_some_and(|shown| token.is_shown_by(shown)));
    if !trusted && !endpoint.answers_anybody() {
        let mut refusal =
            respond::line(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN");
        refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"viplane\""));
        return Err(refusal.into());
    }
    Ok((endpoint, trusted))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::body::Bytes;

    use super::*;

    fn request(
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: &'static str,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::from_static(body.as_bytes())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.parse().unwrap());
        }
        request
    }

    fn refused(request: &Request<Full<Bytes>>, token: Option<&Token>) -> StatusCode {
        admit(request, token).expect_err("refused").status()
    }

    #[test]
    fn only_reading_is_offered_and_only_what_there_is() {
        for method in
            [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE, Method::CONNECT]
        {
            assert_eq!(refused(&request(method, "/status", None, ""), None), StatusCode::METHOD_NOT_ALLOWED);
        }
        for path in ["/drain", "/metrics/", "//metrics", "/..", "/%6detrics"] {
            assert_eq!(refused(&request(Method::GET, path, None, ""), None), StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(refused(&request(Method::GET, "/status", None, "x"), None), StatusCode::PAYLOAD_TOO_LARGE);
        let query = request(Method::HEAD, "/status?pretty", None, "");
        assert_eq!(admit(&query, None).unwrap(), (Endpoint::Status, true));
    }

    #[test]
    fn without_the_token_only_the_two_answers_for_probes_are_given_and_no_reasons() {
        let token = Token::new("0123456789abcdef").unwrap();
        for path in ["/", "/metrics", "/status", "/events"] {
            for shown in [None, Some("Bearer fedcba9876543210"), Some("Basic 0123456789abcdef")] {
                assert_eq!(
                    refused(&request(Method::GET, path, shown, ""), Some(&token)),
                    StatusCode::UNAUTHORIZED
                );
            }
            let shown = request(Method::GET, path, Some("Bearer 0123456789abcdef"), "");
            assert!(admit(&shown, Some(&token)).unwrap().1);
        }
        for path in ["/healthz", "/readyz"] {
            assert!(!admit(&request(Method::GET, path, None, ""), Some(&token)).unwrap().1);
        }
    }
}
