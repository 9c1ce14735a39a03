//! A network that falls apart and comes together again: one owner is left, and tells everybody.

#[path = "support/agents.rs"]
mod agents;
#[path = "support/watch.rs"]
mod watch;

use std::net::IpAddr;

use agents::{Ask as _, Conversation, SOON, VIPS, agent, lab, ms, neighbor, pair};
use anyhow::{Result, ensure};
use vip_lab::Stamp;
use watch::Watch;

#[test]
fn after_split_and_heal_there_is_one_owner_which_announces_again() -> Result<()> {
    let lab = lab().build()?;
    let [first, second] = pair(agent(&lab, 1), agent(&lab, 2))?;
    let wire = lab.wire()?;
    lab.switch().set_forwarding(lab.node(2), false)?;
    second.wait_state("active", SOON)?;
    let owned = first.edge()?.transitions;

    let healed = Stamp::now();
    lab.switch().set_forwarding(lab.node(2), true)?;
    second.wait_state("backup", SOON)?;
    for vip in VIPS {
        let address: IpAddr = vip.parse()?;
        let loser =
            wire.last(Stamp::now(), |frame| frame.is_from(lab.node(2)) && frame.packet.announces(address));
        let since = loser.map_or(healed, |loser| healed.max(loser.at));
        // Whoever believed the loser hears better.
        wire.wait_first(since, SOON, |frame| frame.is_from(lab.node(1)) && frame.packet.announces(address))?;
        ensure!(Conversation::open(lab.client(), vip)?.ask()? == "node1");
        ensure!(neighbor(lab.client(), vip)? == Some(lab.node(1).mac()), "{vip} is not node1's");
    }
    let watch = Watch::start(&lab)?;
    watch.wait_answers_of(lab.node(1), SOON)?;
    std::thread::sleep(ms(1000));
    ensure!(watch.finish(&lab)? == [lab.node(1).mac()], "two answer");
    ensure!(first.edge()?.transitions == owned, "the better owner moved: {}", first.log());
    ensure!(second.edge_json()?["adverts"]["discarded"] == 0, "{}", second.log());
    Ok(())
}
