//! What a clean exit leaves (nothing), what a killed agent leaves (silence), and what cleans up after it.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/footprint.rs"]
mod footprint;

use std::time::Duration;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, is_on_lo, lab, ms, pair};
use anyhow::{Context as _, Result, ensure};
use footprint::{Footprint, changes, footprint};
use nix::sys::signal::Signal;
use serde_json::json;
use vip_lab::agent::Agent;
use vip_lab::arping::Arping;
use vip_lab::{Lab, Node, wait};

const LINK: &str = "/sys/fs/bpf/viplane/links/eth0";

/// The last good configuration stays: a start may need it.
fn but_for_the_last_good(node: &Node) -> Result<Footprint> {
    node.run(|| std::fs::remove_file("/var/lib/viplane/last-good.yaml"))
        .context("the last good configuration is not kept")?;
    // Where a host has it, it was there before.
    let _ = node.run(|| std::fs::remove_dir("/var/lib/viplane"));
    footprint(node)
}

fn end(agent: &Agent, signal: Signal) -> Result<()> {
    agent.signal(signal)?;
    let status = agent.wait(SOON)?;
    ensure!(status.success(), "{status}\n{}", agent.log());
    Ok(())
}

fn is_attached(node: &Node) -> Result<bool> {
    Ok(node.ip("-d link show eth0")?.contains("xdp"))
}

/// Nobody answers for the VIPs, which were answered for.
fn nobody_answers(lab: &Lab) -> Result<()> {
    for &vip in lab.vips() {
        let asking = Arping::start(lab.client(), vip, ms(5))?;
        std::thread::sleep(ms(700));
        ensure!(asking.questions() > 20, "nothing was asked");
        let answers = asking.stop()?;
        ensure!(answers.all().is_empty(), "{vip} is answered for: {:?}", answers.all().last());
    }
    Ok(())
}

#[test]
fn a_clean_exit_leaves_nothing() -> Result<()> {
    let lab = lab().build()?;
    let node = lab.node(1);
    let before = footprint(node)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let owner = agent(&lab, 1).start()?;
        owner.wait_state("active", SOON)?;
        let running = footprint(node)?;
        ensure!(running["net.ipv4.conf.eth0.arp_ignore"] == "3" && is_attached(node)?, "{running:#?}");
        for vip in VIPS {
            ensure!(is_on_lo(&owner, vip)? && Conversation::open(lab.client(), vip)?.ask()? == "node1");
        }
        end(&owner, signal)?;
        let changes = changes(&before, &but_for_the_last_good(node)?);
        ensure!(changes.is_empty(), "{changes:#?}\n{}", owner.log());
    }
    Ok(())
}

#[test]
fn a_clean_exit_of_a_backup_a_drained_and_a_faulty_agent_leaves_nothing() -> Result<()> {
    let lab = lab().build()?;
    let node = lab.node(2);
    let before = footprint(node)?;
    let first = agent(&lab, 1).start()?;
    first.wait_state("active", SOON)?;
    for state in ["backup", "draining", "fault"] {
        let second = agent(&lab, 2).start()?;
        second.wait_state("backup", SOON)?;
        match state {
            "draining" => second.drain()?,
            "fault" => lab.switch().set_cable(node, false)?,
            _ => {}
        }
        second.wait_state(state, SOON)?;
        end(&second, Signal::SIGTERM)?;
        lab.switch().set_cable(node, true)?;
        wait::until(SOON, || node.ip("link show eth0").is_ok_and(|shown| shown.contains("LOWER_UP")))?;
        let after = but_for_the_last_good(node)?;
        let changes: Vec<_> = changes(&before, &after)
            .into_iter()
            // A carrier that was lost makes the kernel renew what it had.
            .filter(|change| {
                state != "fault" || !change.starts_with("ip -6 route") && !change.starts_with("ip -o -d link")
            })
            .collect();
        ensure!(changes.is_empty(), "{state}: {changes:#?}\n{}", second.log());
    }
    Ok(())
}

#[test]
fn a_killed_agent_falls_silent_and_cleanup_removes_what_it_left() -> Result<()> {
    let lab = lab().build()?;
    let node = lab.node(1);
    let before = footprint(node)?;
    let owner = agent(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    let refused = owner.say(&["cleanup"])?;
    ensure!(refused.code == Some(1) && refused.err.contains("runs already"), "{refused:?}");
    owner.wait_state("active", SOON)?;
    owner.crash()?;
    ensure!(is_attached(node)? && node.exists(LINK), "a pinned program stays attached");
    std::thread::sleep(ms(400));
    nobody_answers(&lab)?;
    let said = owner.say(&["cleanup"])?.ok()?;
    for what in [
        LINK,
        "sysctl net.ipv4.conf.eth0.arp_ignore back to 0",
        "address 10.0.0.50 on lo",
        "address fd00::50 on lo",
    ] {
        ensure!(said.out.contains(what), "{what} is not in {said:?}");
    }
    let changes = changes(&before, &but_for_the_last_good(node)?);
    ensure!(changes.is_empty(), "{changes:#?}");
    let again = owner.say(&["cleanup"])?.ok()?;
    ensure!(again.all().is_empty(), "{again:?}");
    Ok(())
}

#[test]
fn the_addresses_of_a_killed_agent_expire() -> Result<()> {
    let lab = lab().build()?;
    let owner = agent(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    owner.crash()?;
    ensure!(is_on_lo(&owner, VIPS[0])? && is_on_lo(&owner, VIPS[1])?);
    wait::until(SOON, || VIPS.iter().all(|vip| is_on_lo(&owner, vip).is_ok_and(|there| !there)))?;
    Ok(())
}

#[test]
fn an_agent_without_pins_takes_its_program_along_and_the_kernel_keeps_quiet() -> Result<()> {
    let lab = lab().build()?;
    let node = lab.node(1);
    let owner = agent(&lab, 1).unpinned().start()?;
    owner.wait_state("active", SOON)?;
    owner.crash()?;
    wait::until(SOON, || is_attached(node).is_ok_and(|attached| !attached))?;
    ensure!(is_on_lo(&owner, VIPS[0])?);
    // Its address is on lo, and arp_ignore is what keeps the kernel from answering. IPv6 asks by groups that are left.
    nobody_answers(&lab)?;
    let said = owner.say(&["cleanup"])?.ok()?;
    ensure!(said.out.contains("arp_ignore back to 0"), "{said:?}");
    ensure!(node.sysctl("net.ipv4.conf.eth0.arp_ignore")? == "0");
    Ok(())
}

fn pinned_link(node: &Node) -> Result<(String, String)> {
    let shown = node.command("bpftool").args(["link", "show", "pinned", LINK]).read()?;
    let mut words = shown.split_whitespace();
    let id = words.next().unwrap_or_default().to_owned();
    let program = words.skip_while(|word| *word != "prog").nth(1).unwrap_or_default().to_owned();
    Ok((id, program))
}

#[test]
fn an_agent_that_starts_after_a_kill_takes_over_in_place() -> Result<()> {
    let lab = lab().build()?;
    let node = lab.node(1);
    let mut owner = agent(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    let (link, program) = pinned_link(node)?;
    owner.crash()?;
    owner = owner.builder().start()?;
    owner.wait_state("active", SOON)?;
    let (same_link, other_program) = pinned_link(node)?;
    ensure!(link == same_link, "the interface was without a program for a moment");
    ensure!(program != other_program, "the dead agent's program runs on");
    ensure!(Conversation::open(lab.client(), VIPS[0])?.ask()? == "node1");
    ensure!(node.sysctl("net.ipv4.conf.eth0.arp_ignore")? == "3");
    end(&owner, Signal::SIGTERM)?;
    // What the administrator had, not what the dead agent had made of it.
    ensure!(node.sysctl("net.ipv4.conf.eth0.arp_ignore")? == "0" && !is_attached(node)?);
    Ok(())
}

#[test]
fn an_agent_that_starts_with_other_vips_removes_what_a_killed_one_left() -> Result<()> {
    let lab = lab().build()?;
    let owner = agent(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    owner.crash()?;
    let other = agent(&lab, 1).vips(["10.0.0.60"]).start()?;
    other.wait_state("active", SOON)?;
    ensure!(!is_on_lo(&other, VIPS[0])? && !is_on_lo(&other, VIPS[1])? && is_on_lo(&other, "10.0.0.60")?);
    Ok(())
}

// === local_address ===

#[test]
fn local_addresses_are_there_while_active_always_or_never() -> Result<()> {
    let lab = lab().build()?;
    for (mode, while_active, while_backup) in
        [("active", true, false), ("always", true, true), ("never", false, false)]
    {
        let builder = |n| agent(&lab, n).local_address(mode).grace(ms(500));
        let [first, second] = pair(builder(1), builder(2))?;
        for vip in VIPS {
            let on = |agent| is_on_lo(agent, vip);
            wait::until(SOON, || on(&first).is_ok_and(|there| there == while_active))?;
            ensure!(on(&second)? == while_backup, "{mode}: {vip} on a backup");
        }
        first.drain()?;
        second.wait_state("active", SOON)?;
        for vip in VIPS {
            wait::until(SOON, || is_on_lo(&first, vip).is_ok_and(|there| there == while_backup))?;
            wait::until(SOON, || is_on_lo(&second, vip).is_ok_and(|there| there == while_active))?;
        }
        for agent in [first, second] {
            end(&agent, Signal::SIGTERM)?;
            ensure!(VIPS.iter().all(|vip| is_on_lo(&agent, vip).is_ok_and(|there| !there)), "{mode}");
        }
    }
    Ok(())
}

#[test]
fn an_address_of_ours_is_of_scope_host_and_no_source() -> Result<()> {
    let lab = lab().build()?;
    let owner = agent(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    // Beyond a renewal.
    std::thread::sleep(Duration::from_secs(4));
    let listed = lab.node(1).ip("-o address show dev lo")?;
    let line = |vip: &str| {
        listed.lines().find(|line| line.contains(&format!("{vip}/"))).unwrap_or_default().to_owned()
    };
    ensure!(line(VIPS[0]).contains("10.0.0.50/32 scope host"), "{listed}");
    ensure!(line(VIPS[1]).contains("fd00::50/128") && line(VIPS[1]).contains("deprecated"), "{listed}");
    for vip in VIPS {
        ensure!(!line(vip).contains("valid_lft forever"), "{listed}");
    }
    Ok(())
}

#[test]
fn an_administrators_copy_is_left_alone() -> Result<()> {
    let lab = lab().build()?;
    let node = lab.node(1);
    node.ip("address add 10.0.0.50/32 dev lo")?;
    node.ip("address add fd00::50/128 dev lo nodad")?;
    let before = footprint(node)?;
    let owner = agent(&lab, 1).grace(ms(200)).start()?;
    owner.wait_state("active", SOON)?;
    ensure!(Conversation::open(lab.client(), VIPS[0])?.ask()? == "node1");
    ensure!(before["ip -o address show"] == footprint(node)?["ip -o address show"], "it was changed");
    owner.crash()?;
    owner.say(&["cleanup"])?.ok()?;
    let owner = owner.builder().start()?;
    owner.wait_state("active", SOON)?;
    end(&owner, Signal::SIGTERM)?;
    let changes = changes(&before, &but_for_the_last_good(node)?);
    ensure!(changes.is_empty(), "{changes:#?}");
    Ok(())
}

// === arp_ignore ===

#[test]
fn an_administrators_arp_ignore_stays() -> Result<()> {
    let lab = lab().build()?;
    let node = lab.node(1);
    for (setting, value) in [("net.ipv4.conf.eth0.arp_ignore", "1"), ("net.ipv4.conf.all.arp_ignore", "2")] {
        node.set_sysctl(setting, value)?;
        let own = node.sysctl("net.ipv4.conf.eth0.arp_ignore")?;
        let owner = agent(&lab, 1).start()?;
        owner.wait_state("active", SOON)?;
        ensure!(node.sysctl("net.ipv4.conf.eth0.arp_ignore")? == own, "it was changed");
        end(&owner, Signal::SIGTERM)?;
        ensure!(node.sysctl(setting)? == value && node.sysctl("net.ipv4.conf.eth0.arp_ignore")? == own);
        node.set_sysctl(setting, 0)?;
    }
    // Changed meanwhile: theirs counts.
    let owner = agent(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    node.set_sysctl("net.ipv4.conf.eth0.arp_ignore", 8)?;
    end(&owner, Signal::SIGTERM)?;
    ensure!(node.sysctl("net.ipv4.conf.eth0.arp_ignore")? == "8");
    Ok(())
}

#[test]
fn without_local_addresses_arp_ignore_is_not_touched() -> Result<()> {
    let lab = lab().build()?;
    let owner = agent(&lab, 1).local_address("never").set_instance("grace", json!("0s")).start()?;
    owner.wait_state("active", SOON)?;
    ensure!(lab.node(1).sysctl("net.ipv4.conf.eth0.arp_ignore")? == "0");
    Ok(())
}
