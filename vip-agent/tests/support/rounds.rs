//! Rounds in which the owner fails, with questions for the VIPs all the time: at no instant two answer.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::time::Duration;

use anyhow::{Result, ensure};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::{Lab, Mac};

use crate::agents::{Ask as _, SOON, VIPS, agent, ms, pair};
use crate::watch::Watch;

/// Short, for many rounds; long enough that only a machine that stands still for 150 ms makes an owner lose its lease.
pub const INTERVAL: Duration = ms(50);

/// Two nodes and a client.
pub fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).clients(1).vips(VIPS).build()
}

/// Whoever owns goes on owning when the other comes back: each round has one move, and it is the one under test.
pub fn stays(lab: &Lab, number: usize) -> AgentBuilder {
    agent(lab, number).interval(INTERVAL).preempt(false)
}

/// How an owner fails.
#[derive(Clone, Copy)]
pub struct Failure<B, F, R> {
    /// How the agents run.
    pub builder: B,
    /// What is done to the owner.
    pub fail: F,
    /// How it is brought back.
    pub bring_back: R,
    /// Why the heir takes over.
    pub cause: &'static str,
}

/// Fails the owner, `rounds` times in turn, and brings it back. All the time, at no instant, two answer for the VIPs.
pub fn the_owner_fails<B, F, R>(rounds: usize, failure: Failure<B, F, R>) -> Result<()>
where
    B: Fn(&Lab, usize) -> AgentBuilder,
    F: Fn(&Agent) -> Result<()>,
    R: Fn(&mut Agent) -> Result<()>,
{
    let Failure { builder, fail, bring_back, cause } = failure;
    let lab = lab()?;
    let mut agents = pair(builder(&lab, 1), builder(&lab, 2))?;
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(1), SOON)?;
    for round in 0..rounds {
        let [owner, heir] = [round % 2, (round + 1) % 2];
        agents[owner].wait_watcher(SOON)?;
        fail(&agents[owner])?;
        watch.wait_answers_of(agents[heir].node(), SOON)?;
        bring_back(&mut agents[owner])?;
        agents[owner].wait_state("backup", SOON)?;
        let status = agents[heir].edge()?;
        ensure!(status.state == "active" && status.owned, "the heir is {status:?}");
        let takeover = status.last_takeover.map(|takeover| takeover.cause);
        ensure!(
            takeover.as_deref() == Some(cause),
            "round {round}: the heir took over by {takeover:?}, not by {cause}"
        );
    }
    let expected: Vec<Mac> = (0..=rounds).map(|round| lab.node(1 + round % 2).mac()).collect();
    let owners = watch.finish(&lab)?;
    ensure!(owners == expected, "{rounds} moves, but the VIPs went {owners:?}");
    println!("{rounds} moves, no instant with two owners");
    Ok(())
}

/// Starts what was killed.
pub fn start_again(agent: &mut Agent) -> Result<()> {
    *agent = agent.builder().start()?;
    Ok(())
}
