//! What keepalived 2.2.7 and we make of odd adverts: the very same frames, each side in a network of its own.

#[path = "support/agents.rs"]
mod agents;
#[path = "verdicts/cases.rs"]
mod cases;
#[path = "verdicts/forgery.rs"]
mod forgery;
#[path = "verdicts/judge.rs"]
mod judge;
#[path = "verdicts/page.rs"]
mod page;
#[path = "verdicts/setting.rs"]
mod setting;

use std::time::Duration;

use agents::{SOON, binary, ms};
use anyhow::{Context, Result, ensure};
use forgery::Seal;
use judge::{Subject, judge};
use page::Row;
use setting::{NEWCOMER, Router, Setting};
use vip_lab::{Lab, Stamp};

#[test]
fn odd_adverts_are_judged_as_the_page_says_by_keepalived_and_by_us() -> Result<()> {
    let cases = cases::cases();
    let [keepalived, ours, strict] = std::thread::scope(|scope| {
        [Subject::Keepalived, Subject::Ours, Subject::OursStrict]
            .map(|subject| {
                let cases = &cases;
                scope.spawn(move || judge(subject, cases).with_context(|| format!("{subject:?}")))
            })
            .map(|trial| trial.join().expect("a trial that panics"))
    });
    let (keepalived, ours, strict) = (keepalived?, ours?, strict?);
    let verdicts = cases.iter().zip(&keepalived).zip(&ours).zip(&strict);
    let rows: Vec<Row<'_>> =
        verdicts.map(|(((case, keepalived), ours), strict)| Row { case, keepalived, ours, strict }).collect();
    let tables = page::tables(&rows);
    println!("{tables}");
    page::compare(&tables)?;
    page::justified(&rows)
}

/// How often a keepalived that is Backup takes over from an Active router that lives and hears adverts that it discards.
fn takeovers_beside(active_is_ours: bool) -> Result<usize> {
    let router = Router { name: "VI_4", vrid: 51, setting: Setting::Multicast4, vips: 1 };
    let lab = Lab::builder().nodes(2).clients(1).vips([router.vips()[0].to_string()]).build()?;
    let wire = lab.wire()?;
    let active: Box<dyn std::any::Any> = if active_is_ours {
        let ours = lab.agent(1, binary()).priority(200).start()?;
        ours.wait_state("active", SOON)?;
        Box::new(ours)
    } else {
        let theirs = lab.keepalived(1).priority(200).global("vrrp_priority -20").start()?;
        theirs.wait_state("MASTER", SOON)?;
        Box::new(theirs)
    };
    let backup = lab.keepalived(2).priority(100).global("vrrp_priority -20").start()?;
    backup.wait_state("BACKUP", SOON)?;
    // By now it has heard the other.
    std::thread::sleep(Duration::from_secs(2));
    let mut odd = router.advert(lab.node(1), NEWCOMER);
    odd.seal = Seal::Wrong;
    let (odd, begun) = (odd.frame(), Stamp::now());
    while Stamp::now() - begun < Duration::from_secs(12) {
        lab.client().inject([&odd], Duration::ZERO)?;
        std::thread::sleep(ms(300));
    }
    let takeover = format!("({}) Entering MASTER STATE", router.name);
    let takeovers = backup.log().matches(&takeover).count();
    ensure!(takeovers > 0 || wire.adverts(lab.node(2)).is_empty(), "it advertised\n{}", backup.log());
    println!("active is ours: {active_is_ours}, takeovers: {takeovers}");
    // Its end is one more.
    drop(active);
    Ok(takeovers)
}

#[test]
fn discarded_adverts_take_the_vips_from_a_keepalived_again_and_again_and_never_from_us() -> Result<()> {
    let [ours, theirs] = std::thread::scope(|scope| {
        [true, false]
            .map(|ours| scope.spawn(move || takeovers_beside(ours)))
            .map(|trial| trial.join().expect("a trial that panics"))
    });
    let (ours, theirs) = (ours?, theirs?);
    ensure!(ours == 0, "{ours} takeovers beside us");
    ensure!(theirs >= 2, "{theirs} takeovers beside keepalived: docs/verdicts.md says that it falls silent");
    Ok(())
}
