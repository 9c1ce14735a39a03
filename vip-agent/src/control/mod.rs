//! The control socket: one JSON line asks, one JSON line answers.
//!
//! The socket has mode 0600: whoever may open it may move VIPs.

mod client;
mod server;
pub(crate) mod succession;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::client::{ControlError, ask};
pub use self::server::{ControlServer, Pending};

/// Longest line that is read: a status of 255 instances with 4096 VIPs stays far below.
const MAX_LINE: u64 = 4 << 20;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How everything is; answered with a [`crate::status::Status`].
    Status,
    /// The effective configuration; answered with its YAML text.
    Config,
    /// Hand an instance (or all) over and keep it out.
    Drain {
        /// `None` = all.
        instance: Option<String>,
    },
    /// Let it take part again.
    Undrain {
        /// `None` = all.
        instance: Option<String>,
    },
    /// Read the configuration file again.
    Reload,
    /// The flows of services; answered with a [`crate::status::FlowList`].
    Flows {
        /// Of this VIP; `None` = of all.
        vip: Option<IpAddr>,
        /// To this backend; `None` = to all.
        backend: Option<IpAddr>,
    },
    /// Hand everything over to the process that asks, by this protocol (`succession`); the connection is its from then on.
    TakeOver {
        /// That of who asks.
        protocol: u32,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Ok(serde_json::Value),
    /// Not done; the text is for people.
    Error(String),
}
