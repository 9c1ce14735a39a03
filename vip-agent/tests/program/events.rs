//! Others that claim an owned VIP: counted always, reported at most once per router and 100 ms.

use anyhow::Result;
use vip_agent::types::MonotonicTime;
use vip_common::maps::EVENT_INTERVAL;
use vip_common::reason::Reason;

use crate::common::frames::*;
use crate::common::world::{INGRESS, ROUTER, World};
use crate::kernel::{Kernel, Outcome, Verdict, passed};

#[test]
fn a_foreign_arp_announcement_goes_up_and_is_reported() -> Result<()> {
    for announcement in [Arp::foreign(), Arp { op: 2, to: OWN, target: CLIENT4, ..Arp::foreign() }] {
        let mut kernel = Kernel::with(&World::owning())?;
        let frame = announcement.bytes();
        assert_eq!(kernel.run(&frame)?, passed(&frame, &["arp_announcement", "arp_foreign_owner"]));
        let events = kernel.events();
        let [event] = events[..] else { panic!("one event, not {events:?}") };
        assert_eq!((event.ifindex, event.router, event.family), (INGRESS, ROUTER, 4));
        assert_eq!((&event.address[..4], &event.address[4..]), (&VIP4[..], &[0; 12][..]));
        assert_eq!(event.mac, STRANGER);
        assert!(event.at > 0 && event.at <= MonotonicTime::now().0);
    }
    Ok(())
}

#[test]
fn a_foreign_advertisement_goes_up_and_is_reported() -> Result<()> {
    for options in [link_layer(2, STRANGER), Vec::new()] {
        let mut kernel = Kernel::with(&World::owning())?;
        let frame = Nd { options, ..Nd::foreign() }.bytes();
        assert_eq!(kernel.run(&frame)?, passed(&frame, &["nd_announcement", "nd_foreign_owner"]));
        let events = kernel.events();
        let [event] = events[..] else { panic!("one event, not {events:?}") };
        assert_eq!((event.ifindex, event.router, event.family), (INGRESS, ROUTER, 6));
        assert_eq!((event.address, event.mac), (VIP6, STRANGER));
    }
    Ok(())
}

#[test]
fn our_own_announcements_and_those_for_others_vips_are_no_alarm() -> Result<()> {
    let mut kernel = Kernel::with(&World::owning())?;
    let own = Arp { from: OWN, sender_mac: OWN, ..Arp::foreign() }.bytes();
    assert_eq!(kernel.run(&own)?, passed(&own, &["arp_announcement"]));
    let own = Nd { options: link_layer(2, OWN), ..Nd::foreign() }.bytes();
    assert_eq!(kernel.run(&own)?, passed(&own, &["nd_announcement"]));
    let damaged = Nd { checksum_error: 7, ..Nd::foreign() }.bytes();
    assert_eq!(kernel.run(&damaged)?, passed(&damaged, &["nd_announcement"]));
    let routed = Nd { hops: 64, ..Nd::foreign() }.bytes();
    assert_eq!(kernel.run(&routed)?, passed(&routed, &["nd_announcement"]));
    kernel.set_deadline(0)?;
    let other = Arp::foreign().bytes();
    assert_eq!(kernel.run(&other)?, passed(&other, &["arp_announcement"]));
    assert_eq!(kernel.events(), []);
    Ok(())
}

#[test]
fn a_question_asked_in_the_name_of_a_vip_is_answered_and_reported() -> Result<()> {
    let mut kernel = Kernel::with(&World::owning().with_vip4(OTHER4))?;
    let question = Arp { sender: OTHER4, sender_mac: STRANGER, from: STRANGER, ..Arp::question() };
    let answer = Arp { to: STRANGER, target_mac: STRANGER, target: OTHER4, ..Arp::answer() };
    let counted = vec!["arp_answered", "arp_foreign_owner"];
    let expected = Outcome { verdict: Verdict::Transmit, frame: answer.bytes(), counted };
    assert_eq!(kernel.run(&question.bytes())?, expected);
    assert_eq!(kernel.events()[0].address[..4], OTHER4);
    Ok(())
}

#[test]
fn of_many_claims_one_is_reported_and_all_are_counted() -> Result<()> {
    let mut kernel = Kernel::with(&World::owning())?;
    kernel.run_repeatedly(&Arp::foreign().bytes(), 1000)?;
    assert_eq!(kernel.counter(Reason::ArpForeignOwner)?, 1000);
    assert_eq!(kernel.events().len(), 1);
    Ok(())
}

#[test]
fn the_gate_opens_again_100_ms_after_the_last_report() -> Result<()> {
    let mut kernel = Kernel::with(&World::owning())?;
    let claim = Arp::foreign().bytes();
    let now = MonotonicTime::now().0;
    let still_closed = now + 60_000_000_000;
    kernel.set("EVENT_GATES", ROUTER.into(), still_closed)?;
    kernel.run(&claim)?;
    assert_eq!(kernel.events(), []);
    kernel.set("EVENT_GATES", ROUTER.into(), now - EVENT_INTERVAL)?;
    kernel.run(&claim)?;
    assert_eq!(kernel.events().len(), 1);
    assert!(kernel.last_event()? >= now);
    Ok(())
}
