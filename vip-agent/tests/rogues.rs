//! Rogues: routers and stations that are not of our set-up, each an alarm with its MAC, none a reason to move.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/forged.rs"]
mod forged;

use agents::{Ask as _, SOON, agent, binary, ms, pair};
use anyhow::{Context as _, Result, ensure};
use forged::{Forged, STRANGER, STRANGER_MAC};
use serde_json::{Value, json};
use vip_lab::agent::Agent;
use vip_lab::{Lab, Mac};

const VIP: &str = "10.0.0.50";

fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).clients(1).vips([VIP]).build()
}

/// The alarm of that kind, with this address and MAC; it was logged as well.
fn alarmed(agent: &Agent, kind: &str, address: &str, mac: Mac) -> Result<Value> {
    let mac = mac.to_string();
    let is = |alarm: &Value| alarm["kind"] == kind && alarm["address"] == address && alarm["mac"] == *mac;
    let find =
        |status: &Value| status["alarms"].as_array().and_then(|all| all.iter().find(|it| is(it)).cloned());
    let status = agent.wait_for(&format!("alarmed of {kind}"), |status| find(status).is_some())?;
    let alarm = find(&status).context("the alarm")?;
    ensure!(alarm["instance"] == "edge" && alarm["since"].is_string(), "{alarm}");
    ensure!(alarm["since"].as_str() <= alarm["last_seen"].as_str(), "{alarm}");
    ensure!(status["alarms_total"][kind].as_u64() >= alarm["count"].as_u64(), "{status}");
    let log = agent.log();
    let logged = |line: &str| [kind, address, &mac].iter().all(|word| line.contains(word));
    ensure!(log.lines().any(logged), "no line of {kind}: {log}");
    Ok(alarm)
}

fn count(agent: &Agent, list: &str, kind: &str) -> Result<u64> {
    Ok(agent.edge_json()?["adverts"][list][kind].as_u64().unwrap_or(0))
}

/// A rogue's advert: what to send, and what it is at the owner and at the backup: kind, list of counters, address, MAC.
struct Rogue {
    frame: Vec<u8>,
    at_owner: Option<(&'static str, &'static str, &'static str, Mac)>,
    at_backup: Option<(&'static str, &'static str, &'static str, Mac)>,
}

fn rogues(lab: &Lab) -> Vec<Rogue> {
    let stranger = Mac(STRANGER_MAC);
    let owner = lab.node(1).mac();
    let everywhere = |frame, kind, list| {
        let seen = Some((kind, list, "10.0.0.99", stranger));
        Rogue { frame, at_owner: seen, at_backup: seen }
    };
    vec![
        everywhere(Forged::with(|advert| advert.list([[10, 0, 0, 77]])), "vrid_clash", "remarked_by"),
        everywhere(
            Forged::with(|advert| advert.list([[10, 0, 0, 50], [10, 0, 0, 51]])),
            "address_mismatch",
            "remarked_by",
        ),
        everywhere(Forged::with(|advert| advert.message[0] = 0x21), "version_mismatch", "discarded_by"),
        everywhere(Forged::with(|advert| advert.right_checksum = false), "bad_checksum", "discarded_by"),
        // Our own address behind another MAC.
        Rogue {
            frame: Forged::with(|advert| {
                advert.source = lab.node(1).ipv4();
                // As the owner itself says: less would be its fall to the backup.
                advert.message[2] = 200;
            }),
            at_owner: Some(("own_source", "discarded_by", "10.0.0.1", stranger)),
            at_backup: None,
        },
        // Our own frame comes back.
        Rogue {
            frame: Forged::with(|advert| {
                advert.source = lab.node(1).ipv4();
                advert.message[2] = 200;
                advert.source_mac = owner.0;
            }),
            at_owner: Some(("own_mac", "discarded_by", "10.0.0.1", owner)),
            at_backup: None,
        },
        // A clone of our machine with another address.
        Rogue {
            frame: Forged::with(|advert| advert.source_mac = owner.0),
            at_owner: Some(("own_mac", "remarked_by", "10.0.0.99", owner)),
            at_backup: None,
        },
    ]
}

#[test]
fn each_rogue_advert_is_counted_and_alarmed_with_its_mac_and_moves_nothing() -> Result<()> {
    const EACH: u64 = 5;
    let lab = lab()?;
    let [owner, backup] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let before = [owner.edge()?.transitions, backup.edge()?.transitions];
    for Rogue { frame, at_owner, at_backup } in rogues(&lab) {
        let seen = [(&owner, at_owner), (&backup, at_backup)];
        let counted = |list, kind| Ok([count(&owner, list, kind)?, count(&backup, list, kind)?]);
        let Some((kind, list, ..)) = at_owner else { continue };
        let earlier: Result<[u64; 2]> = counted(list, kind);
        let earlier = earlier?;
        lab.client().inject(std::iter::repeat_n(&frame, EACH as usize), ms(1))?;
        for (agent, expected) in seen {
            if let Some((kind, _, address, mac)) = expected {
                alarmed(agent, kind, address, mac).with_context(|| agent.node().name().to_owned())?;
            }
        }
        let later: Result<[u64; 2]> = counted(list, kind);
        let more: Vec<u64> = later?.iter().zip(earlier).map(|(later, earlier)| later - earlier).collect();
        let expected = [EACH, if at_backup.is_some() { EACH } else { 0 }];
        ensure!(more == expected, "{kind}: counted {more:?}, sent {expected:?}");
        // Stations of one kind are reported 100 ms apart.
        std::thread::sleep(ms(150));
    }
    ensure!([owner.edge()?.transitions, backup.edge()?.transitions] == before, "something moved");
    ensure!((owner.edge()?.state, backup.edge()?.state) == ("active".into(), "backup".into()));
    Ok(())
}

#[test]
fn one_rogue_does_not_hide_another() -> Result<()> {
    let lab = lab()?;
    let owner = agent(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    // A noisy one, and in between a quiet one of another kind, and one of the same kind by another MAC.
    let noise = Forged::with(|advert| advert.right_checksum = false);
    let clash = Forged::with(|advert| advert.list([[10, 0, 0, 77]]));
    let other = Forged::with(|advert| {
        advert.right_checksum = false;
        advert.source_mac = [2, 0, 0, 0, 0, 98];
    });
    for _ in 0..30 {
        lab.client().inject(std::iter::repeat_n(&noise, 20), ms(1))?;
        lab.client().inject([&clash, &other], ms(1))?;
        std::thread::sleep(ms(20));
    }
    alarmed(&owner, "bad_checksum", "10.0.0.99", Mac(STRANGER_MAC))?;
    alarmed(&owner, "bad_checksum", "10.0.0.99", Mac([2, 0, 0, 0, 0, 98]))?;
    alarmed(&owner, "vrid_clash", "10.0.0.99", Mac(STRANGER_MAC))?;
    Ok(())
}

#[test]
fn a_unicast_router_that_is_no_peer_is_an_alarm() -> Result<()> {
    let lab = lab()?;
    let [owner, backup] = pair(agent(&lab, 1).unicast(), agent(&lab, 2).unicast())?;
    for agent in [&owner, &backup] {
        let node = agent.node();
        let frame = Forged::with(|advert| {
            advert.message[2] = 255;
            advert.destination = node.ipv4();
            advert.destination_mac = node.mac().0;
        });
        lab.client().inject([&frame; 3], ms(1))?;
        alarmed(agent, "unknown_peer", &STRANGER.to_string(), Mac(STRANGER_MAC))?;
        ensure!(agent.edge()?.transitions == 2 - u64::from(node.name() == "node2"), "{:?}", agent.edge()?);
    }
    Ok(())
}

#[test]
fn a_keepalived_of_another_group_with_our_vrid_is_a_clash() -> Result<()> {
    let lab = lab()?;
    let owner = agent(&lab, 1).start()?;
    owner.wait_state("active", SOON)?;
    let theirs = lab.keepalived(2).vips([([10, 0, 0, 77].into(), 24)]).priority(50).interval(ms(200));
    let theirs = theirs.start()?;
    theirs.wait_state("MASTER", SOON)?;
    alarmed(&owner, "vrid_clash", "10.0.0.2", lab.node(2).mac())?;
    ensure!(owner.edge()?.state == "active", "{:?}", owner.edge()?);
    ensure!(owner.log().contains("give one of the groups another virtual_router_id"), "{}", owner.log());
    Ok(())
}

#[test]
fn strict_keeps_a_clashing_router_from_holding_our_vips() -> Result<()> {
    let lab = lab()?;
    let clash = Forged::with(|advert| {
        advert.message[2] = 254;
        advert.list([[10, 0, 0, 77]]);
    });
    let owner = lab.agent(1, binary()).interval(ms(100)).set_instance("strict", json!(true)).start()?;
    for _ in 0..10 {
        lab.client().inject([&clash], ms(1))?;
        std::thread::sleep(ms(100));
    }
    alarmed(&owner, "vrid_clash", "10.0.0.99", Mac(STRANGER_MAC))?;
    ensure!(count(&owner, "discarded_by", "vrid_clash")? >= 5, "{}", owner.edge_json()?);
    ensure!(owner.edge()?.state == "active", "{:?}", owner.edge()?);
    Ok(())
}
