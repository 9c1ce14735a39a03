//! With virtual MACs on both sides, or on one.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use vip_lab::Mac;

use super::agents::{SOON, neighbor};
use super::{SPEECHES, Scene};

/// Of VRID 51.
pub(crate) fn virtual_mac(v6: bool) -> Mac {
    Mac([0, 0, 0x5e, 0, 1 + u8::from(v6), 51])
}

/// The client reaches the VIP, and has its virtual MAC in its cache.
fn reached(scene: &Scene, vip: &str) -> Result<()> {
    let ping = |_| scene.lab.client().command("ping").args(["-c", "1", "-W", "1", vip]).output();
    ensure!(
        (0..10).map(ping).any(|ping| ping.is_ok_and(|ping| ping.status.success())),
        "{vip} is not reached"
    );
    let known = neighbor(scene.lab.client(), vip)?;
    ensure!(known == Some(virtual_mac(vip.contains(':'))), "{vip} is known as {known:?}");
    Ok(())
}

#[test]
fn moves_between_the_two_change_nothing_in_a_clients_neighbour_cache() -> Result<()> {
    let speeches: Vec<_> = SPEECHES.into_iter().filter(|speech| speech.virtual_mac).collect();
    Scene::at_once(&speeches, |scene| {
        let vip = *scene.speech.vips.last().context("a VIP")?;
        let theirs = scene.theirs(200).start()?;
        theirs.wait_state("MASTER", SOON)?;
        let ours = scene.ours(100).start()?;
        ours.wait_state("backup", SOON)?;
        reached(&scene, vip).context("keepalived first")?;
        theirs.stop()?;
        ours.wait_state("active", SOON)?;
        reached(&scene, vip).context("from keepalived to us")?;
        let again = theirs.builder().start()?;
        again.wait_state("MASTER", SOON)?;
        ours.wait_state("backup", SOON)?;
        reached(&scene, vip).context("and back")?;
        ensure!(again.complaints().is_empty(), "{:#?}", again.complaints());
        Ok(())
    })
}

/// Only one of the two has virtual MACs: they are no part of the protocol.
#[test]
fn who_has_virtual_macs_and_who_has_not_get_along() -> Result<()> {
    for ours_has in [true, false] {
        Scene::at_once(&[SPEECHES[0], SPEECHES[2]], |scene| {
            let theirs = scene.theirs(100);
            let theirs = if ours_has { theirs } else { theirs.virtual_mac() }.start()?;
            theirs.wait_state("MASTER", SOON)?;
            let ours = scene.ours(200).set_instance("virtual_mac", json!(ours_has)).start()?;
            ours.wait_state("active", SOON)?;
            theirs.wait_state("BACKUP", SOON)?;
            scene.peace(scene.our_node(), &ours, &theirs)
        })
        .with_context(|| format!("ours {ours_has}"))?;
    }
    Ok(())
}
