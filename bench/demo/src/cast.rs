//! The nodes' daemons: our agent, or keepalived.

use std::time::Duration;

use anyhow::{Result, bail};
use vip_lab::Lab;
use vip_lab::agent::{Agent, Takeover};
use vip_lab::keepalived::Keepalived;

use crate::options::Plan;

/// What runs on a node.
pub(crate) enum Member {
    Agent(Agent),
    Keepalived(Keepalived),
}

impl Member {
    /// Starts node `number`'s daemon. Only node1 takes the VIP back from a lower priority: so the others, once they are
    /// well again, stand by, and each event has one heir.
    pub(crate) fn start(lab: &Lab, plan: &Plan, number: usize) -> Result<Self> {
        let priority = plan.priority(number);
        if plan.keepalived == Some(number) {
            let keepalived = lab.keepalived(number).priority(priority).interval(plan.advert).nopreempt();
            // As our agents have it: at 10 ms a busy machine makes it flap otherwise.
            let keepalived = keepalived.global("vrrp_rt_priority 50");
            return Ok(Self::Keepalived(keepalived.start()?));
        }
        let agent = lab.agent(number, &plan.agent).priority(priority).interval(plan.advert);
        Ok(Self::Agent(agent.preempt(number == 1).start()?))
    }

    /// # Errors
    /// It is not Active after `timeout`.
    pub(crate) fn wait_active(&self, timeout: Duration) -> Result<()> {
        match self {
            Self::Agent(agent) => agent.wait_state("active", timeout).map(drop),
            Self::Keepalived(keepalived) => keepalived.wait_state("MASTER", timeout),
        }
    }

    /// # Errors
    /// It is not Backup after `timeout`.
    pub(crate) fn wait_backup(&self, timeout: Duration) -> Result<()> {
        match self {
            Self::Agent(agent) => agent.wait_state("backup", timeout).map(drop),
            Self::Keepalived(keepalived) => keepalived.wait_state("BACKUP", timeout),
        }
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&self) -> Result<()> {
        match self {
            Self::Agent(agent) => agent.crash(),
            Self::Keepalived(keepalived) => keepalived.crash(),
        }
    }

    /// Phases of its last takeover, if it tells them.
    pub(crate) fn takeover(&self) -> Result<Option<Takeover>> {
        let Self::Agent(agent) = self else { return Ok(None) };
        Ok(agent.status()?.instances.into_iter().next().and_then(|instance| instance.last_takeover))
    }

    /// The agent, for what keepalived cannot do.
    pub(crate) fn agent(&self) -> Result<&Agent> {
        match self {
            Self::Agent(agent) => Ok(agent),
            Self::Keepalived(keepalived) => bail!("{} runs keepalived", keepalived.node().name()),
        }
    }
}
