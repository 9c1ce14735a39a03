//! `/status`: the JSON of `vip-agent status --json`.

use hyper::{Response, StatusCode};

use super::Shared;
use super::respond::{Body, JSON, line, with};

/// The same as over the control socket.
pub(super) async fn status(shared: &Shared) -> Response<Body> {
    match shared.agent.status().await {
        Ok(status) => match serde_json::to_string_pretty(&*status) {
            Ok(text) => with(StatusCode::OK, JSON, text + "\n"),
            Err(error) => line(StatusCode::INTERNAL_SERVER_ERROR, error),
        },
        Err(error) => line(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}
