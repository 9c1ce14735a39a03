//! Signed adverts between agents: who is heard, how keys are rotated, and that recordings hold nobody.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/forged.rs"]
mod forged;

use std::time::Duration;

use agents::{Ask as _, SOON, agent, ms};
use anyhow::{Context as _, Result, ensure};
use forged::Forged;
use serde_json::{Value, json};
use vip_lab::agent::{Agent, AgentBuilder};
use vip_lab::wire::Wire;
use vip_lab::{Lab, Node, Stamp};

const VIP: &str = "10.0.0.50";
const KEY_FILE: &str = "/run/lab/edge.key";
const ONE: &str = "5e";
const OTHER: &str = "0f";
const INTERVAL: Duration = ms(100);

fn lab() -> Result<Lab> {
    Lab::builder().nodes(2).clients(1).vips([VIP, "fd00::50"]).build()
}

/// Keys by the byte that each is made of.
fn put_keys(node: &Node, keys: &[&str]) -> Result<()> {
    let lines: Vec<String> = keys.iter().map(|key| key.repeat(32)).collect();
    node.write_file(KEY_FILE, lines.join("\n"))?;
    node.command("chmod").args(["600", KEY_FILE]).read().map(drop)
}

fn signing(lab: &Lab, number: usize, keys: &[&str]) -> Result<AgentBuilder> {
    put_keys(lab.node(number), keys)?;
    Ok(with_trailer(agent(lab, number).grace(ms(0)), false))
}

fn with_trailer(builder: AgentBuilder, accept_unsigned: bool) -> AgentBuilder {
    builder.set_instance("auth_trailer", json!({ "key_file": KEY_FILE, "accept_unsigned": accept_unsigned }))
}

fn pair(lab: &Lab) -> Result<[Agent; 2]> {
    agents::pair(signing(lab, 1, &[ONE])?, signing(lab, 2, &[ONE])?)
}

fn discarded(agent: &Agent, kind: &str) -> Result<u64> {
    Ok(agent.edge_json()?["adverts"]["discarded_by"][kind].as_u64().unwrap_or(0))
}

fn has_alarm(status: &Value, kind: &str) -> bool {
    status["alarms"].as_array().is_some_and(|alarms| alarms.iter().any(|alarm| alarm["kind"] == kind))
}

/// The adverts of a node since `begun`, as frames.
fn recorded(wire: &Wire, node: &Node, begun: Stamp) -> Vec<Vec<u8>> {
    let frames = wire.frames(|frame| frame.at >= begun && frame.is_from(node) && frame.advert().is_some());
    frames.iter().map(|frame| frame.bytes.to_vec()).collect()
}

#[test]
fn a_signed_group_elects_moves_and_shows_no_key() -> Result<()> {
    let lab = lab()?;
    let [first, second] = pair(&lab)?;
    // Planned moves and their announcements, priority 0 and yields: all of it signed.
    first.drain()?;
    second.wait_state("active", SOON)?;
    first.undrain()?;
    first.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    for agent in [&first, &second] {
        let edge = agent.edge_json()?;
        ensure!(edge["adverts"]["discarded"] == 0, "{edge}");
        ensure!(edge["auth_trailer"]["signing_key"].as_str().is_some_and(|id| id.len() == 8), "{edge}");
        ensure!(agent.status()?.alarms.is_empty(), "{:?}", agent.status()?.alarms);
        let shown = [agent.log(), agent.status()?.raw.to_string(), agent.say(&["config"])?.ok()?.out];
        let key = ONE.repeat(4);
        ensure!(shown.iter().all(|text| !text.contains(&key)), "{shown:?}");
        ensure!(shown[2].contains(KEY_FILE), "{}", shown[2]);
    }
    Ok(())
}

#[test]
fn a_signing_agent_that_is_killed_is_believed_by_its_watchers_word_and_when_it_is_back() -> Result<()> {
    let lab = lab()?;
    let [first, second] = pair(&lab)?;
    first.wait_watcher(SOON)?;
    let wire = lab.wire()?;
    let dead = Stamp::now();
    first.kill()?;
    second.wait_state("active", SOON)?;
    let heir = wire.adverts(lab.node(2)).into_iter().find(|(at, _)| *at > dead).context("no heir")?.0;
    // By the watcher's word: silence alone would take three intervals and a skew.
    ensure!(heir - dead < INTERVAL * 2, "taken over {:?} after the kill", heir - dead);
    ensure!(second.edge()?.last_takeover.is_some_and(|takeover| takeover.cause != "timeout"));
    // The stamps of the next agent go on after the watcher's, which were the last of their epoch.
    let back = first.builder().start()?;
    back.wait_state("active", SOON)?;
    second.wait_state("backup", SOON)?;
    ensure!(discarded(&second, "bad_signature")? == 0);
    ensure!(!has_alarm(&second.status()?.raw, "replayed"), "{:?}", second.status()?.alarms);
    Ok(())
}

#[test]
fn strangers_without_the_key_are_counted_alarmed_and_not_heard() -> Result<()> {
    let lab = lab()?;
    let [owner, backup] = pair(&lab)?;
    let unsigned = Forged::with(|advert| advert.message[2] = 255);
    // A trailer of a key that nobody has, and one of our key's id over something else.
    let wire = lab.wire()?;
    let begun = Stamp::now();
    std::thread::sleep(INTERVAL * 3);
    let genuine = recorded(&wire, lab.node(1), begun);
    let ipv4 = genuine.iter().find(|frame| frame[12..14] == [8, 0]).context("no advert over IPv4")?;
    let trailer = ipv4[ipv4.len() - 48..].to_vec();
    let with_trailer = |change: fn(&mut Vec<u8>)| {
        let mut trailer = trailer.clone();
        change(&mut trailer);
        Forged::with(|advert| {
            advert.message[2] = 255;
            advert.trailer = trailer;
        })
    };
    let forged = [
        ("unsigned", unsigned),
        ("unknown_key", with_trailer(|trailer| trailer[4] ^= 1)),
        ("bad_signature", with_trailer(|_| {})),
    ];
    for (kind, frame) in forged {
        lab.client().inject(std::iter::repeat_n(&frame, 10), ms(1))?;
        for agent in [&owner, &backup] {
            let status = agent.wait_for(kind, |status| has_alarm(status, kind))?;
            let alarms = status["alarms"].as_array().context("alarms")?;
            let alarm = alarms.iter().find(|alarm| alarm["kind"] == kind).context("the alarm")?;
            ensure!(alarm["address"] == "10.0.0.99" && alarm["mac"] == "02:00:00:00:00:63", "{alarm}");
            ensure!(discarded(agent, kind)? == 10, "{kind}: {}", agent.edge_json()?);
        }
    }
    ensure!((owner.edge()?.state, backup.edge()?.state) == ("active".into(), "backup".into()));
    Ok(())
}

#[test]
fn adverts_that_were_recorded_and_are_played_back_hold_nobody() -> Result<()> {
    let lab = lab()?;
    let [owner, backup] = pair(&lab)?;
    let wire = lab.wire()?;
    let begun = Stamp::now();
    std::thread::sleep(INTERVAL * 20);
    let recording = recorded(&wire, lab.node(1), begun);
    ensure!(recording.len() >= 30, "{} adverts recorded", recording.len());
    // A Backup that is started anew knows what its former self has heard.
    backup.signal(nix::sys::signal::Signal::SIGTERM)?;
    backup.wait(SOON)?;
    let backup = backup.builder().start()?;
    backup.wait_state("backup", SOON)?;
    let died = Stamp::now();
    owner.crash()?;
    // Had one of them been heard, it would have held the Backup for three intervals and a skew.
    let mut played = 0;
    while backup.edge()?.state != "active" && Stamp::now() - died < SOON {
        lab.client().inject(&recording, ms(1))?;
        played += 1;
    }
    let heir = wire.adverts(lab.node(2)).into_iter().find(|(at, _)| *at > died).context("no heir")?.0;
    ensure!(played >= 2, "played {played} times");
    ensure!(heir - died < INTERVAL * 5, "taken over {:?} after the crash", heir - died);
    ensure!(discarded(&backup, "replayed")? >= 30, "{}", backup.edge_json()?);
    backup.wait_for("alarmed", |status| has_alarm(status, "replayed"))?;
    ensure!(
        backup.log().contains("replayed") && backup.log().contains("02:00:00:00:00:01"),
        "{}",
        backup.log()
    );
    Ok(())
}

#[test]
fn keys_are_rotated_under_way_without_a_gap() -> Result<()> {
    let lab = lab()?;
    let agents = pair(&lab)?;
    let wire = lab.wire()?;
    let before = [agents[0].edge()?.transitions, agents[1].edge()?.transitions];
    for keys in [&[ONE, OTHER][..], &[OTHER, ONE], &[OTHER]] {
        for agent in &agents {
            put_keys(agent.node(), keys)?;
            agent.reload(&agent.builder())?;
            std::thread::sleep(INTERVAL * 4);
        }
    }
    ensure!(wire.adverts(lab.node(2)).is_empty(), "the Backup spoke up");
    ensure!([agents[0].edge()?.transitions, agents[1].edge()?.transitions] == before, "something moved");
    for agent in &agents {
        let edge = agent.edge_json()?;
        ensure!(edge["adverts"]["discarded"] == 0, "{edge}");
        ensure!(agent.status()?.alarms.is_empty(), "{:?}", agent.status()?.alarms);
    }
    let ids = [0, 1].map(|n| agents[n].edge_json().map(|edge| edge["auth_trailer"].clone()));
    let [one, other] = ids;
    ensure!(one? == other?, "not the same keys");
    Ok(())
}

#[test]
fn a_group_changes_over_to_signed_adverts_without_a_gap() -> Result<()> {
    let lab = lab()?;
    let plain = |number| agent(&lab, number).grace(ms(0));
    let agents = agents::pair(plain(1), plain(2))?;
    let wire = lab.wire()?;
    for builder in [|builder| with_trailer(builder, true), |builder| with_trailer(builder, false)] {
        for (agent, number) in agents.iter().zip([1, 2]) {
            put_keys(agent.node(), &[ONE])?;
            agent.reload(&builder(plain(number)))?;
            std::thread::sleep(INTERVAL * 4);
        }
    }
    ensure!(wire.adverts(lab.node(2)).is_empty(), "the Backup spoke up");
    // While it changed over each was told of what the other did not do yet.
    let alarms = agents[1].status()?.raw;
    ensure!(has_alarm(&alarms, "unexpected_trailer"), "{alarms}");
    ensure!(agents[1].edge_json()?["adverts"]["discarded"] == 0, "{}", agents[1].edge_json()?);
    lab.client().inject(&[Forged::with(|advert| advert.message[2] = 255)], ms(1))?;
    agents[0].wait_for("strict about it", |status| has_alarm(status, "unsigned"))?;
    ensure!(agents[0].edge()?.state == "active");
    Ok(())
}

#[test]
fn a_clock_that_is_behind_after_a_restart_does_not_make_a_node_unheard() -> Result<()> {
    let lab = lab()?;
    let [owner, backup] = pair(&lab)?;
    owner.signal(nix::sys::signal::Signal::SIGTERM)?;
    owner.wait(SOON)?;
    backup.wait_state("active", SOON)?;
    // As if the last epoch had begun an hour from now: the clock is behind it ever since.
    let file = "/var/lib/viplane/advert-epoch";
    let epoch: u64 = owner.node().read_file(file)?.trim().parse()?;
    owner.node().write_file(file, format!("{}\n", epoch + 3600))?;
    let owner = owner.builder().start()?;
    owner.wait_state("active", SOON)?;
    backup.wait_state("backup", SOON)?;
    let next: u64 = owner.node().read_file(file)?.trim().parse()?;
    ensure!(next == epoch + 3601, "{next} after {epoch}");
    ensure!(discarded(&backup, "replayed")? == 0, "{}", backup.edge_json()?);
    Ok(())
}

#[test]
fn a_key_file_that_others_may_read_is_refused() -> Result<()> {
    let lab = lab()?;
    let builder = signing(&lab, 1, &[ONE])?;
    lab.node(1).command("chmod").args(["644", KEY_FILE]).read()?;
    let refused = builder.start()?;
    ensure!(!refused.wait(SOON)?.success());
    let log = refused.log();
    ensure!(log.contains("auth_trailer.key_file") && log.contains("chmod 600"), "{log}");
    ensure!(!log.contains(&ONE.repeat(4)), "{log}");
    Ok(())
}
