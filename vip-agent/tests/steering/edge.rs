//! A namespace of the calling thread's own, with one interface and routes by it: what full NAT asks the kernel about.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::packets::{Mac, OWN};
use crate::world::GATEWAY;

/// Index of the interface.
pub(crate) const EDGE: u32 = 7;

/// Moves this thread there. All clients are behind a gateway, whose MAC is known.
pub(crate) fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace: these tests need root")?;
    ip(&format!("link add edge index {EDGE} address {} type veth peer name far", text(OWN)))?;
    ip("link set far up")?;
    ip("link set edge up")?;
    ip("address add 10.0.0.2/16 dev edge")?;
    ip("address add fd00::2/64 dev edge nodad")?;
    for (family, gateway) in [("-4", "10.0.0.254"), ("-6", "fd00::fe")] {
        ip(&format!("{family} neighbour add {gateway} lladdr {} dev edge nud permanent", text(GATEWAY)))?;
        ip(&format!("{family} route add default via {gateway} dev edge"))?;
    }
    forward(true)
}

/// Whether the interface forwards, without which the kernel tells no way.
pub(crate) fn forward(does: bool) -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{family}/conf/edge/forwarding");
        fs::write(&path, if does { "1" } else { "0" }).with_context(|| path.clone())?;
    }
    Ok(())
}

/// Runs `ip`.
pub(crate) fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("cannot run ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
