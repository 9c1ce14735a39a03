//! Many virtual routers on a node, whoever's: configured, started, killed, told to end.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use vip_lab::agent::Agent;
use vip_lab::keepalived::Keepalived;
use vip_lab::process::cpu_time;
use vip_lab::{Lab, Node};

use crate::record::{Cell, Contender};

/// For thousands of addresses, one by one.
const PATIENCE: Duration = Duration::from_secs(120);

/// How they are started.
pub(crate) struct Starter<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) agent: &'a Path,
    pub(crate) keepalived_lines: &'a [String],
    pub(crate) contender: Contender,
    pub(crate) cell: Cell,
}

/// A process (or two) with all virtual routers of a node.
pub(crate) enum Crowd {
    Viplane(Agent),
    Keepalived(Keepalived),
}

/// CPU time so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct CpuTime {
    pub(crate) all: Duration,
    /// The thread that runs VRRP, where it is one of several.
    pub(crate) driver: Option<Duration>,
}

/// 10.0.1.0 and following.
pub(crate) fn addresses(cell: Cell) -> impl Iterator<Item = String> {
    (0..cell.vips).map(|number| address(number).to_string())
}

fn address(number: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 1, 0)) + u32::from(number))
}

/// Those of one virtual router: dealt out in turn.
fn of_router(cell: Cell, id: u8) -> impl Iterator<Item = Ipv4Addr> {
    (0..cell.vips).skip(usize::from(id) - 1).step_by(cell.instances.into()).map(address)
}

impl Starter<'_> {
    /// Starts all of a node; none takes over from a lower priority.
    pub(crate) fn start(&self, number: usize) -> Result<Crowd> {
        let (priority, prefix) = (if number == 1 { 200 } else { 190 }, self.lab.prefix4());
        match self.contender {
            Contender::Viplane => {
                let vips =
                    |id| of_router(self.cell, id).map(|vip| format!("{vip}/{prefix}")).collect::<Vec<_>>();
                let interval = format!("{}ms", self.cell.interval_ms);
                let first = self.lab.agent(number, self.agent).priority(priority).preempt(false).vrid(1);
                let first = first.interval(self.cell.interval()).vips(vips(1));
                let all = (2..=self.cell.instances).fold(first, |builder, id| {
                    builder.instance(json!({
                        "name": format!("edge{id}"), "virtual_router_id": id, "interface": "eth0",
                        "priority": priority, "preempt": false, "advert_interval": interval, "vips": vips(id),
                    }))
                });
                all.start().map(Crowd::Viplane)
            }
            Contender::Keepalived => {
                let vips = |id| of_router(self.cell, id).map(move |vip| (IpAddr::V4(vip), prefix));
                let first = self.lab.keepalived(number).terse().nopreempt().priority(priority).vrid(1);
                let first = first.interval(self.cell.interval()).vips(vips(1));
                let all = (2..=self.cell.instances).fold(first, |builder, id| builder.also(id, vips(id)));
                let lines = self.keepalived_lines.iter();
                lines.fold(all, |builder, line| builder.global(line)).start().map(Crowd::Keepalived)
            }
        }
    }
}

impl Crowd {
    pub(crate) fn node(&self) -> &Node {
        match self {
            Self::Viplane(agent) => agent.node(),
            Self::Keepalived(keepalived) => keepalived.node(),
        }
    }

    /// Waits until all own, by their own account.
    pub(crate) fn wait_until_active(&self) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.wait_state("active", PATIENCE).map(drop),
            Self::Keepalived(keepalived) => keepalived.wait_state("MASTER", PATIENCE),
        }
    }

    /// Waits until all watch an owner, by their own account.
    pub(crate) fn wait_until_backup(&self) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.wait_state("backup", PATIENCE).map(drop),
            Self::Keepalived(keepalived) => keepalived.wait_state("BACKUP", PATIENCE),
        }
    }

    /// Kills its processes at once. What a kernel after a real crash would not have is taken away.
    pub(crate) fn crash(&self) -> Result<()> {
        match self {
            Self::Viplane(agent) => agent.process().kill(),
            Self::Keepalived(keepalived) => keepalived.crash(),
        }
    }

    /// Takes off what a killed keepalived left on its node: after a real crash there would be nothing. (Ours finds its way
    /// through that by itself.)
    pub(crate) fn clear_traces(&self, lab: &Lab) -> Result<()> {
        let Self::Keepalived(keepalived) = self else { return Ok(()) };
        let node = keepalived.node();
        let line = |vip: &IpAddr| format!("address delete {vip}/{} dev eth0\n", lab.prefix4());
        node.write_file(node.file_path("take-off"), lab.vips().iter().map(line).collect::<String>())?;
        node.command("ip").args(["-force", "-batch"]).arg(node.file_path("take-off")).output().map(drop)
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

    /// Resident memory in KiB: of keepalived's two processes together.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        match self {
            Self::Viplane(agent) => agent.process().resident_kib(),
            Self::Keepalived(keepalived) => {
                let status = std::fs::read_to_string(format!("/proc/{}/status", keepalived.child()))?;
                let child = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
                let child = child.and_then(|size| size.split_whitespace().next()?.parse::<u64>().ok());
                Ok(keepalived.process().resident_kib()? + child.context("keepalived's child has no VmRSS")?)
            }
        }
    }

    pub(crate) fn cpu_time(&self) -> Result<CpuTime> {
        let threads = match self {
            Self::Viplane(agent) => agent.process().cpu_time()?,
            Self::Keepalived(keepalived) => cpu_time(keepalived.child())?,
        };
        let ours = matches!(self, Self::Viplane(_));
        let driver = threads.get("vrrp").copied().filter(|_| ours);
        Ok(CpuTime { all: threads.values().sum(), driver })
    }

    /// How often any of them has changed its state since the start, by their own account.
    pub(crate) fn transitions(&self) -> Result<u64> {
        match self {
            Self::Viplane(agent) => {
                Ok(agent.status()?.instances.iter().map(|instance| instance.transitions).sum())
            }
            Self::Keepalived(keepalived) => {
                Ok(keepalived.log().lines().filter(|line| line.contains(") Entering ")).count() as u64)
            }
        }
    }

    /// Decision to the first announcement, in milliseconds, for each (ours only).
    pub(crate) fn decide_to_announcement_ms(&self) -> Result<Vec<f64>> {
        let Self::Viplane(agent) = self else { return Ok(Vec::new()) };
        let instances = agent.status()?.instances.into_iter();
        let takeovers = instances.filter_map(|instance| instance.last_takeover);
        Ok(takeovers
            .map(|takeover| (takeover.decide_us + takeover.flip_us + takeover.announce_us) / 1e3)
            .collect())
    }
}
