//! A virtual router on a node, whoever's: started, killed, told to end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use vip_lab::agent::{Agent, Takeover};
use vip_lab::keepalived::Keepalived;
use vip_lab::{Lab, Node, Stamp, WEB_PORT};

use crate::record::{Cell, Contender};

/// Longer than the agent's grace time and keepalived's farewell.
const PATIENCE: Duration = Duration::from_secs(15);

/// One running (or killed) router.
pub(crate) enum Router {
    /// Ours.
    Viplane(Agent),
    /// The peer.
    Keepalived(Keepalived),
}

/// How routers are to be started.
#[derive(Clone, Copy)]
pub(crate) struct Starter<'a> {
    /// Where.
    pub(crate) lab: &'a Lab,
    /// The `vip-agent` to run.
    pub(crate) agent: &'a Path,
    /// Lines for keepalived's `global_defs`.
    pub(crate) keepalived_lines: &'a [String],
    /// Whose.
    pub(crate) contender: Contender,
    /// Whether ours runs with fast detection.
    pub(crate) detect: bool,
    /// Whether it looks at its node's web server.
    pub(crate) probed: bool,
    /// With which interval.
    pub(crate) cell: Cell,
}

/// How long an owner is silent before it is taken for dead: 4 x 1 ms.
const DETECTION: Duration = Duration::from_millis(4);

impl Starter<'_> {
    /// How long the death of a host takes to be found, without the skew, if by fast detection.
    pub(crate) fn detection(&self) -> Option<Duration> {
        (self.detect && self.contender == Contender::Viplane).then_some(DETECTION)
    }

    /// Starts one on node `number`.
    pub(crate) fn start(&self, number: usize, priority: u8) -> Result<Router> {
        match self.contender {
            Contender::Viplane => {
                let agent =
                    self.lab.agent(number, self.agent).interval(self.cell.interval).priority(priority);
                let settings = json!({ "interval": "1ms", "multiplier": 4 });
                let agent = if self.detect { agent.set_instance("detect", settings) } else { agent };
                let url = format!("http://127.0.0.1:{WEB_PORT}/");
                let web = json!({ "name": "web", "http": { "url": url }, "interval": "100ms", "fall": 2 });
                let agent = if self.probed {
                    agent.set("probes", json!([web])).set_instance("track", json!(["web"]))
                } else {
                    agent
                };
                agent.start().map(Router::Viplane)
            }
            Contender::Keepalived => {
                let keepalived =
                    self.lab.keepalived(number).terse().interval(self.cell.interval).priority(priority);
                let keepalived =
                    if self.probed { keepalived.track("web", &self.check(number)?) } else { keepalived };
                let lines = self.keepalived_lines.iter();
                lines.fold(keepalived, |builder, line| builder.global(line)).start().map(Router::Keepalived)
            }
        }
    }
}

impl Starter<'_> {
    /// A script that asks a node's own web server, as small as one can be.
    fn check(&self, number: usize) -> Result<PathBuf> {
        let (node, path) = (self.lab.node(number), self.lab.node(number).file_path("check-web"));
        node.write_file(&path, format!("#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{WEB_PORT}\n"))?;
        node.command("chmod").arg("755").arg(&path).read()?;
        Ok(path)
    }
}

impl Router {
    /// Waits until it owns the VIPs, by its own account.
    pub(crate) fn wait_until_active(&self, patience: Duration) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.wait_state("active", patience).map(drop),
            Self::Keepalived(keepalived) => keepalived.wait_state("MASTER", patience),
        }
    }

    /// Waits until it watches an owner, by its own account.
    pub(crate) fn wait_until_backup(&self, patience: Duration) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.wait_state("backup", patience).map(drop),
            Self::Keepalived(keepalived) => keepalived.wait_state("BACKUP", patience),
        }
    }

    /// Kills its processes at once.
    pub(crate) fn crash(&self) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.crash(),
            Self::Keepalived(keepalived) => keepalived.crash(),
        }
    }

    /// Kills the process that the other one watches over: the agent, or keepalived's parent.
    pub(crate) fn lose_one(&self) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.kill(),
            Self::Keepalived(keepalived) => keepalived.process().kill(),
        }
    }

    /// Waits until the other one has ended, too: a new one would be in its way.
    pub(crate) fn wait_for_the_rest(&self) -> Result<()> {
        match self {
            Self::Viplane(_) => Ok(()),
            Self::Keepalived(keepalived) => keepalived.wait_child_end(PATIENCE),
        }
    }

    /// Tells it to end, and does not wait for that.
    pub(crate) fn terminate(&self) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.signal(Signal::SIGTERM),
            Self::Keepalived(keepalived) => keepalived.signal(Signal::SIGTERM),
        }
    }

    /// Waits until it has ended.
    pub(crate) fn wait_for_end(&self) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.wait(PATIENCE).map(drop),
            Self::Keepalived(keepalived) => keepalived.process().wait(PATIENCE).map(drop),
        }
    }

    /// Hands over and stays.
    pub(crate) fn drain(&self) -> Result<()> {
        self.ours()?.drain()
    }

    /// Takes part again.
    pub(crate) fn undrain(&self) -> Result<()> {
        self.ours()?.undrain()
    }

    /// What it says of its last takeover, and since when it owns, if it says anything.
    pub(crate) fn last_takeover(&self) -> Result<Option<(Takeover, Stamp)>> {
        let Self::Viplane(agent) = self else { return Ok(None) };
        let instance = agent.status()?.instances.into_iter().next();
        let Some((takeover, since)) = instance.and_then(|own| Some((own.last_takeover?, own.since))) else {
            return Ok(None);
        };
        let since =
            humantime::parse_rfc3339(&since).with_context(|| format!("`since` of status: {since}"))?;
        Ok(Some((takeover, Stamp::from(since))))
    }

    /// From the last bad answer of its probe to its priority 0, by its own account, in microseconds.
    pub(crate) fn verdict_to_word_us(&self) -> Result<Option<f64>> {
        let Self::Viplane(agent) = self else { return Ok(None) };
        let status = agent.status()?.raw;
        let release = &status["instances"][0]["last_release"];
        let phases = ["detect_us", "decide_us", "flip_us", "announce_us"];
        Ok(phases.iter().map(|phase| release[phase].as_f64()).sum())
    }

    /// All that it logged.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::Viplane(agent) => agent.log(),
            Self::Keepalived(keepalived) => keepalived.log(),
        }
    }

    /// Removes what a killed one left on its node, where that would disturb the next: after a real crash there is nothing
    /// either. (Ours finds its way through that by itself.)
    pub(crate) fn clear_traces(&self, lab: &Lab) -> Result<()> {
        if let Self::Keepalived(keepalived) = self { take_off_vips(keepalived.node(), lab) } else { Ok(()) }
    }

    /// Kills it and removes all that it left: for a round that went wrong.
    pub(crate) fn abandon(&self, lab: &Lab) -> Result<()> {
        match self {
            Self::Viplane(agent) => {
                // It may be dead already.
                let _ = agent.crash();
                let config = agent.builder().config_path().display().to_string();
                agent.builder().command(&["cleanup", "--config", &config]).read().map(drop)
            }
            Self::Keepalived(keepalived) => {
                // It may be dead already.
                let _ = keepalived.crash();
                take_off_vips(keepalived.node(), lab)
            }
        }
    }

    fn ours(&self) -> Result<&Agent> {
        if let Self::Viplane(agent) = self { Some(agent) } else { None }.context("keepalived has no drain")
    }
}

/// All in one run of `ip`; those that are not there are no error.
fn take_off_vips(node: &Node, lab: &Lab) -> Result<()> {
    let line = |vip: &std::net::IpAddr| {
        format!("address delete {vip}/{} dev eth0\n", if vip.is_ipv4() { lab.prefix4() } else { 64 })
    };
    let script: String = lab.vips().iter().map(line).collect();
    node.write_file(node.file_path("take-off"), script)?;
    node.command("ip").args(["-force", "-batch"]).arg(node.file_path("take-off")).output().map(drop)
}
