//! A backend's node takes packets out of tunnels by itself where it runs an agent: no tunnel device, no daemon.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/steered.rs"]
mod steered;

use std::time::Duration;

use agents::{Conversation, SOON, VIPS, ms};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use steered::{ECHO_PORT, Echo, Transfer, addresses, lab, reaches, service, steering, wait_up};
use vip_lab::{Lab, WEB_PORT, wait};

const BACKEND: usize = 2;
/// The port of the service that brings IPv4 in IPv6.
const MIXED_PORT: u16 = 8;

/// For all nodes the same: a web server and an echo by either VIP, and IPv4 in IPv6.
fn services(lab: &Lab) -> Vec<Value> {
    let [four, six] = VIPS.map(|vip| addresses(lab, vip, &[BACKEND]));
    let ports = json!([WEB_PORT, ECHO_PORT]);
    vec![
        service("four", VIPS[0], "tunnel", ports.clone(), &four, json!({})),
        service("six", VIPS[1], "tunnel", ports, &six, json!({})),
        service("mixed", VIPS[0], "tunnel", json!([MIXED_PORT]), &six, json!({})),
    ]
}

#[test]
fn who_has_the_vip_always_takes_it_out_of_tunnels_of_either_family_and_others_nothing() -> Result<()> {
    let lab = lab().build()?;
    let _echoes =
        [ECHO_PORT, MIXED_PORT].map(|port| Echo::start(lab.node(BACKEND), port)).map(Result::unwrap);
    let owner = steering(&lab, 1, &services(&lab)).start()?;
    owner.wait_state("active", SOON)?;
    let end = steering(&lab, BACKEND, &services(&lab)).local_address("always").start()?;
    end.wait_state("backup", SOON)?;
    for agent in [&owner, &end] {
        wait_up(agent, 3)?;
    }
    let there =
        || VIPS.iter().all(|vip| reaches(lab.client(), vip, WEB_PORT, ms(500)).is_ok_and(|there| there));
    wait::until(SOON, there).with_context(|| end.log())?;
    for vip in VIPS {
        let name = Conversation::open(lab.client(), vip)?.ask()?;
        ensure!(name == "node2", "{name} answers for {vip}");
    }
    for (vip, port) in [(VIPS[0], ECHO_PORT), (VIPS[1], ECHO_PORT), (VIPS[0], MIXED_PORT)] {
        let transfer = Transfer::begin(lab.client(), vip, port, 2 << 20, Duration::ZERO)?;
        transfer.finish().with_context(|| format!("{vip} port {port}"))?;
    }
    // A node that does not have the VIP for good is the end of no tunnel.
    end.reload(&steering(&lab, BACKEND, &services(&lab)))?;
    wait::until(SOON, || {
        VIPS.iter().all(|vip| reaches(lab.client(), vip, WEB_PORT, ms(200)).is_ok_and(|there| !there))
    })
    .context("nothing comes out any more")
}
