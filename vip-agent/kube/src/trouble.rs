//! What keeps parts of the work from being done, in words, for status and log.

use std::collections::BTreeMap;

use tokio::sync::watch::Sender;

/// By part.
pub(super) type Said = BTreeMap<&'static str, String>;

/// Where parts say it.
#[derive(Clone, Debug)]
pub(super) struct Troubles(pub(super) Sender<Said>);

impl Troubles {
    /// What keeps a part from its work; `None`: nothing.
    pub(super) fn set(&self, part: &'static str, why: Option<String>) {
        self.0.send_if_modified(|said| {
            let differs = said.get(part) != why.as_ref();
            match why {
                None => drop(said.remove(part)),
                Some(why) => drop(said.insert(part, why)),
            }
            differs
        });
    }
}

/// A write's refusal; `what`: as a role has to grant it.
pub(super) fn refusal(what: &str, object: &str, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "the API server does not allow this agent to {what}: grant it by a ClusterRole ({})",
            status.message
        ),
        error => format!("{object} cannot be written: {error}"),
    }
}
