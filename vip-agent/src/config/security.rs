//! `security`: what the agent gives up once it has started. For the operator whose check script needs what it gives up.

use serde::Serialize;

use super::field::{Field, Mapping};

/// `security`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Security {
    /// What becomes of the capabilities that it was started with.
    pub capabilities: Capabilities,
    /// Whether the kernel refuses system calls that neither the agent nor a check script has a use for.
    pub seccomp: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self { capabilities: Capabilities::default(), seccomp: true }
    }
}

/// `security.capabilities`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capabilities {
    /// All but [`crate::privilege::KEPT`] are given up.
    #[default]
    Drop,
    /// The agent, and the commands of its probes, keep what it was started with.
    Keep,
}

/// `security` of the file.
pub(super) fn security(file: &Mapping<'_>) -> Option<Security> {
    file.or("security", Security::default(), read)
}

fn read(field: &Field<'_>) -> Option<Security> {
    let security = field.mapping(&["capabilities", "seccomp"])?;
    let capabilities = security.or("capabilities", Capabilities::default(), |field| {
        field.choice(&[("drop", Capabilities::Drop), ("keep", Capabilities::Keep)])
    });
    let seccomp = security.or("seccomp", true, Field::boolean);
    Some(Security { capabilities: capabilities?, seccomp: seccomp? })
}
