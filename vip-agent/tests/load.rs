//! 10 ms adverts on a machine whose CPUs are all taken.

#[path = "support/agents.rs"]
mod agents;

use std::time::Duration;

use agents::{SOON, VIPS, agent, ms, pair, times};
use anyhow::{Context, Result, ensure};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::hogs::Hogs;
use vip_lab::stats::Sample;
use vip_lab::wire::Wire;
use vip_lab::{Lab, Node};

const HOGS: usize = 16;

fn how_long() -> Duration {
    Duration::from_secs(times(10, 60) as u64)
}

fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).vips(VIPS).build()
}

/// What the load did to a pair of agents.
#[derive(Debug)]
struct Outcome {
    /// Takeovers and returns, by both together.
    transitions: u64,
    /// Between one advert on the wire and the next, by whomever; milliseconds.
    gaps: Sample,
}

fn under_load(
    lab: &Lab,
    interval: Duration,
    builder: impl Fn(AgentBuilder) -> AgentBuilder,
) -> Result<(Outcome, [Agent; 2])> {
    let agents = pair(builder(agent(lab, 1).interval(interval)), builder(agent(lab, 2).interval(interval)))?;
    let wire = lab.wire()?;
    let before = transitions(&agents)?;
    {
        let _hogs = Hogs::start(HOGS)?;
        std::thread::sleep(how_long());
    }
    let after = transitions(&agents)?;
    ensure!(wire.lost() == 0, "the capture lost frames");
    let outcome = Outcome { transitions: after - before, gaps: gaps(&wire, lab.nodes()) };
    let gaps = outcome.gaps.summary().context("no adverts on the wire")?;
    println!(
        "{HOGS} hogs for {:?}, adverts each {interval:?}: {} transitions; gaps between adverts in ms: {gaps} p99.9 {:.3}",
        how_long(),
        outcome.transitions,
        outcome.gaps.quantile(0.999).unwrap_or_default()
    );
    Ok((outcome, agents))
}

fn transitions(agents: &[Agent; 2]) -> Result<u64> {
    agents.iter().map(|agent| Ok(agent.status()?.instances[0].transitions)).sum()
}

fn gaps(wire: &Wire, nodes: &[Node]) -> Sample {
    let adverts = nodes.iter().flat_map(|node| wire.adverts(node));
    let mut at: Vec<_> = adverts.filter(|(_, advert)| advert.source.is_ipv4()).map(|(at, _)| at).collect();
    at.sort();
    Sample::millis(at.windows(2).map(|pair| pair[1] - pair[0]))
}

#[test]
fn with_real_time_priority_16_hogs_cause_no_takeover() -> Result<()> {
    let lab = lab()?;
    let (outcome, agents) = under_load(&lab, ms(10), |builder| builder)?;
    for agent in &agents {
        ensure!(agent.status()?.raw["realtime"] == "fifo", "{:#}", agent.status()?.raw);
    }
    ensure!(outcome.transitions == 0, "false takeovers\n{}\n{}", agents[0].log(), agents[1].log());
    Ok(())
}

/// Adverts each `interval`, without the capability. What happens meanwhile is a figure of docs/benchmarks.md, not a
/// promise. That it ends well is one.
fn without_priority(interval: Duration) -> Result<()> {
    let lab = lab()?;
    let (_, agents) = under_load(&lab, interval, |builder| builder.without_capability("sys_nice"))?;
    for agent in &agents {
        let said = agent.status()?.raw["realtime"].clone();
        ensure!(said.as_str().is_some_and(|said| said.contains("CAP_SYS_NICE")), "status says {said}");
        agent.process().wait_log("no real-time priority", SOON)?;
    }
    agents[0].wait_state("active", SOON)?;
    agents[1].wait_state("backup", SOON)?;
    Ok(())
}

#[test]
fn without_real_time_priority_the_agent_says_so_and_one_owns_when_the_load_ends() -> Result<()> {
    without_priority(ms(10))
}

#[test]
fn without_real_time_priority_slow_adverts_suffer_less() -> Result<()> {
    without_priority(ms(200))
}
