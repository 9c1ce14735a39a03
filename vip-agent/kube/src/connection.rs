//! The way to the API server.

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use vip_kube_protocol::Kubernetes;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// The kubeconfig.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// Which.
        path: String,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// No kubeconfig, and no pod.
    #[error(
        "neither `kubernetes.kubeconfig` nor a pod's service account says how to reach the API server: {0}"
    )]
    NoPod(#[from] InClusterError),
    /// `apiserver`.
    #[error("kubernetes.apiserver: {0}")]
    Server(String),
    /// The client.
    #[error("{0}")]
    Client(#[from] kube::Error),
}

/// A client as configured. Asks nobody yet.
pub(super) async fn client(kubernetes: &Kubernetes) -> Result<Client, ConnectionError> {
    let mut config = match &kubernetes.kubeconfig {
        None => Config::incluster()?,
        Some(path) => {
            let broken = |source| ConnectionError::Kubeconfig { path: path.display().to_string(), source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(broken)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(broken)?
        }
    };
    if let Some(server) = &kubernetes.apiserver {
        config.cluster_url = server.parse().map_err(|error| ConnectionError::Server(format!("{error}")))?;
    }
    Ok(Client::try_from(config)?)
}
