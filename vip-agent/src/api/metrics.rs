//! `/metrics`.

use hyper::{Response, StatusCode};

use super::Shared;
use super::respond::{Body, line, with};
use crate::metrics::{Format, render};

/// The text that the scraper understands best.
pub(super) async fn metrics(accept: &str, shared: &Shared) -> Response<Body> {
    let format = Format::accepted_by(accept);
    match shared.agent.metrics().await {
        Ok(snapshot) => with(StatusCode::OK, format.content_type(), render(&snapshot, format)),
        Err(error) => line(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}
