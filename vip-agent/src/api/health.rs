//! `/healthz` and `/readyz`: for liveness and readiness probes.

use hyper::{Response, StatusCode};

use super::Shared;
use super::respond::{Body, line};

/// Whether the driver thread lives, and the runtime has not been silent for very long: what a restart would mend.
///
/// Asks nobody: it answers while the runtime is busy, and when either hangs.
pub(super) fn healthz(shared: &Shared, trusted: bool) -> Response<Body> {
    let vitals = &shared.view.vitals;
    match vitals.driver().and_then(|()| vitals.runtime()) {
        Ok(()) => line(StatusCode::OK, "ok"),
        Err(silence) if trusted => line(StatusCode::SERVICE_UNAVAILABLE, silence),
        Err(_) => line(StatusCode::SERVICE_UNAVAILABLE, "not ok"),
    }
}

/// Whether all that was configured is in place ([`super::Readiness`]), and `/healthz` has nothing to say against it.
pub(super) async fn readyz(shared: &Shared, trusted: bool) -> Response<Body> {
    if let Err(silence) = shared.view.vitals.driver() {
        return unready(&[silence.to_string()], trusted);
    }
    match shared.agent.readiness().await {
        Ok(readiness) if readiness.missing.is_empty() => line(StatusCode::OK, "ok"),
        Ok(readiness) => unready(&readiness.missing, trusted),
        Err(error) => unready(&[error.to_string()], trusted),
    }
}

fn unready(why: &[String], trusted: bool) -> Response<Body> {
    let why = if trusted { why.join("\n") } else { "not ok".to_owned() };
    line(StatusCode::SERVICE_UNAVAILABLE, why)
}
