//! Three agents share a VIP: who answers for it, and what moves it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use vip_lab::Lab;
use vip_lab::agent::Agent;

const SOON: Duration = Duration::from_secs(5);
const VIPS: [&str; 2] = ["10.0.0.50", "fd00::50"];

fn agent_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vip-agent"))
}

/// Node 1 has the highest priority; all are up, and it owns.
fn three_agents(lab: &Lab, interval: Duration) -> Result<Vec<Agent>> {
    let agents: Vec<Agent> = (1..=3)
        .map(|n| {
            lab.agent(n, agent_binary()).priority(210 - 10 * n as u8).interval(interval).vips(VIPS).start()
        })
        .collect::<Result<_>>()?;
    agents[0].wait_state("active", SOON)?;
    agents[1].wait_state("backup", SOON)?;
    agents[2].wait_state("backup", SOON)?;
    Ok(agents)
}

#[test]
fn the_next_in_priority_takes_over_from_a_killed_owner() -> Result<()> {
    let lab = Lab::builder().nodes(3).clients(1).vips(VIPS).web().build()?;
    let agents = three_agents(&lab, Duration::from_millis(100))?;
    let requests = lab.requests().start()?;
    std::thread::sleep(Duration::from_millis(500));
    agents[0].crash()?;
    let status = agents[1].wait_state("active", SOON)?;
    std::thread::sleep(Duration::from_millis(500));
    let report = requests.stop();
    println!(
        "{status:#?} lost={:?} gap={:?} by={:?}",
        report.lost().count(),
        report.gap(),
        report.answered_by()
    );
    Ok(())
}
