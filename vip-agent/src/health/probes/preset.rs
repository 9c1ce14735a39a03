//! `preset`: what the keepalived-ingress-vip chart asks of a Kubernetes node, at the same addresses.

use crate::config::{Http, Preset, Url};

/// Where a pod finds what it needs to speak to the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The request; `environment` looks a variable up.
///
/// # Errors
/// The agent does not run in a pod, and the preset needs what pods are told.
pub(super) fn request(preset: Preset, environment: impl Fn(&str) -> Option<String>) -> Result<Http, String> {
    let get = |url: &str| url.parse::<Url>().map(Http::get).map_err(|error| error.to_string());
    match preset {
        Preset::Kubelet => get("http://127.0.0.1:10248/healthz"),
        Preset::IngressNginx => get("http://127.0.0.1:10254/healthz"),
        Preset::KubeApi => {
            let variable = |name: &str| {
                let found = environment(name).filter(|value| !value.is_empty());
                found.ok_or_else(|| {
                    format!(
                        "{name} is not set, so this is no pod: use `http` with the API server's url, ca_file and token_file"
                    )
                })
            };
            let host = variable("KUBERNETES_SERVICE_HOST")?;
            let port = variable("KUBERNETES_SERVICE_PORT")?;
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            Ok(Http {
                ca_file: Some(format!("{SERVICE_ACCOUNT}/ca.crt").into()),
                token_file: Some(format!("{SERVICE_ACCOUNT}/token").into()),
                ..get(&format!("https://{host}:{port}/healthz"))?
            })
        }
    }
}
