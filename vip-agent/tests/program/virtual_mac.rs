//! Virtual MACs: answered with, taken by the owner, kept from everybody else; and VIPs whose traffic nobody accepts.

use anyhow::Result;

use crate::common::frames::*;
use crate::common::world::World;
use crate::kernel::{Kernel, Outcome, Verdict, dropped, passed, transmitted};

fn owner() -> Result<Kernel> {
    Kernel::with(&World::owning().with_virtual_macs())
}

fn backup() -> Result<Kernel> {
    Kernel::with(&World::not_owning().with_virtual_macs())
}

/// The frame goes up as if it were sent to the interface.
fn taken(frame: &[u8], counted: &[&'static str]) -> Outcome {
    passed(&[&OWN, &frame[6..]].concat(), &[counted, &["virtual_mac_taken"]].concat())
}

/// The frame, which was sent to the virtual MAC, went out again as another.
fn taken_and_transmitted(frame: Vec<u8>, counter: &'static str) -> Outcome {
    Outcome { counted: vec![counter, "virtual_mac_taken"], ..transmitted(frame, counter) }
}

/// A packet of a host whose gateway is the virtual router.
fn routed(to: Mac, tags: &[[u8; 4]]) -> [Vec<u8>; 2] {
    [
        ethernet(to, CLIENT, tags, 0x0800, &ipv4(CLIENT4, [192, 0, 2, 1], 17, 0, &[0; 20])),
        ethernet(to, CLIENT, tags, 0x86dd, &ipv6(CLIENT6, OTHER6, 17, 64, &[0; 20])),
    ]
}

// === questions ===

#[test]
fn an_arp_reply_carries_the_virtual_mac_in_both_places() -> Result<()> {
    let question = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\xc1\x08\x06\
        \0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\xc1\x0a\0\0\x09\0\0\0\0\0\0\x0a\0\0\x32";
    let reply = b"\x02\0\0\0\0\xc1\0\0\x5e\0\x01\x33\x08\x06\
        \0\x01\x08\0\x06\x04\0\x02\0\0\x5e\0\x01\x33\x0a\0\0\x32\x02\0\0\0\0\xc1\x0a\0\0\x09";
    assert_eq!(owner()?.run(question)?, transmitted(reply.to_vec(), "arp_answered"));
    assert_eq!(backup()?.run(question)?, dropped(question, "arp_not_owned"));
    Ok(())
}

#[test]
fn an_advertisement_carries_the_virtual_mac_in_both_places() -> Result<()> {
    let question = Nd::question().bytes();
    let answer = Nd { from: VIRTUAL6, options: link_layer(2, VIRTUAL6), ..Nd::answer() }.bytes();
    assert_eq!(answer[6..12], *b"\0\0\x5e\0\x02\x33");
    assert_eq!(answer[78..], *b"\x02\x01\0\0\x5e\0\x02\x33");
    assert_eq!(owner()?.run(&question)?, transmitted(answer, "nd_answered"));
    assert_eq!(backup()?.run(&question)?, dropped(&question, "nd_not_owned"));
    Ok(())
}

#[test]
fn who_looks_for_duplicates_is_told_the_virtual_mac() -> Result<()> {
    let answer = Nd {
        to: ALL_NODES_MAC,
        destination: ALL_NODES,
        flags: [0xa0, 0, 0, 0],
        from: VIRTUAL6,
        options: link_layer(2, VIRTUAL6),
        ..Nd::answer()
    };
    assert_eq!(owner()?.run(&Nd::probe().bytes())?, transmitted(answer.bytes(), "nd_answered"));
    Ok(())
}

/// How a client asks that has the address in its cache (RFC 4861, 7.3.3; Linux does so for ARP, too).
#[test]
fn a_question_to_the_virtual_mac_is_the_owners_and_no_others() -> Result<()> {
    let (owner, backup) = (owner()?, backup()?);
    let arp = |to| Arp { to, ..Arp::question() }.bytes();
    let nd = |to| Nd { to, destination: VIP6, ..Nd::question() }.bytes();
    let reply = Arp { from: VIRTUAL4, sender_mac: VIRTUAL4, ..Arp::answer() }.bytes();
    let advertisement = Nd { from: VIRTUAL6, options: link_layer(2, VIRTUAL6), ..Nd::answer() }.bytes();
    assert_eq!(owner.run(&arp(VIRTUAL4))?, taken_and_transmitted(reply.clone(), "arp_answered"));
    assert_eq!(owner.run(&nd(VIRTUAL6))?, taken_and_transmitted(advertisement.clone(), "nd_answered"));
    // The interface's own may be in caches of a time without virtual MACs.
    assert_eq!(owner.run(&arp(OWN))?, transmitted(reply, "arp_answered"));
    assert_eq!(owner.run(&nd(OWN))?, transmitted(advertisement, "nd_answered"));
    assert_eq!(backup.run(&arp(VIRTUAL4))?, dropped(&arp(VIRTUAL4), "virtual_mac_not_owned"));
    assert_eq!(backup.run(&nd(VIRTUAL6))?, dropped(&nd(VIRTUAL6), "virtual_mac_not_owned"));
    for to in [OTHER_VIRTUAL, STRANGER] {
        assert_eq!(owner.run(&arp(to))?, passed(&arp(to), &["arp_not_for_us"]));
    }
    Ok(())
}

#[test]
fn a_question_in_the_name_of_the_virtual_mac_is_not_answered() -> Result<()> {
    let owner = owner()?;
    for mac in [OWN, VIRTUAL4] {
        let question = Arp { sender_mac: mac, ..Arp::question() }.bytes();
        assert_eq!(owner.run(&question)?, dropped(&question, "arp_invalid"));
    }
    for mac in [OWN, VIRTUAL6] {
        let question = Nd { options: link_layer(1, mac), ..Nd::question() }.bytes();
        assert_eq!(owner.run(&question)?, dropped(&question, "nd_invalid"));
    }
    Ok(())
}

#[test]
fn tags_stay_on_answers_with_the_virtual_mac() -> Result<()> {
    let owner = owner()?;
    for tags in [vec![VLAN], vec![SERVICE_VLAN, VLAN_200], vec![PRIORITY_TAG]] {
        let question = Arp { tags: tags.clone(), ..Arp::question() }.bytes();
        let answer = Arp { tags, from: VIRTUAL4, sender_mac: VIRTUAL4, ..Arp::answer() }.bytes();
        assert_eq!(owner.run(&question)?, transmitted(answer, "arp_answered"));
    }
    Ok(())
}

/// What we send does not come back to us, so the same MAC in an announcement is another owner's.
#[test]
fn who_announces_an_owned_vip_by_the_virtual_mac_is_another_owner() -> Result<()> {
    let arp = Arp { from: VIRTUAL4, sender_mac: VIRTUAL4, ..Arp::foreign() }.bytes();
    let nd = Nd { from: VIRTUAL6, options: link_layer(2, VIRTUAL6), ..Nd::foreign() }.bytes();
    let mut owner = owner()?;
    assert_eq!(owner.run(&arp)?, passed(&arp, &["arp_announcement", "arp_foreign_owner"]));
    assert_eq!(owner.events().len(), 1);
    assert_eq!(owner.run(&nd)?, passed(&nd, &["nd_announcement", "nd_foreign_owner"]));
    let backup = backup()?;
    assert_eq!(backup.run(&arp)?, passed(&arp, &["arp_announcement"]));
    assert_eq!(backup.run(&nd)?, passed(&nd, &["nd_announcement"]));
    Ok(())
}

// === traffic ===

#[test]
fn traffic_to_the_virtual_mac_reaches_the_owners_kernel_as_its_own() -> Result<()> {
    let owner = owner()?;
    for segment in [Tcp { to: VIRTUAL4, ..Tcp::v4() }, Tcp { to: VIRTUAL6, ..Tcp::v6() }] {
        for tags in [vec![], vec![VLAN], vec![SERVICE_VLAN, VLAN_200]] {
            let frame = Tcp { tags, ..segment.clone() }.bytes();
            assert_eq!(owner.run(&frame)?, taken(&frame, &["traffic_owned"]));
        }
    }
    Ok(())
}

#[test]
fn traffic_to_the_virtual_mac_of_another_owner_ends_here() -> Result<()> {
    let backup = backup()?;
    for segment in [Tcp { to: VIRTUAL4, ..Tcp::v4() }, Tcp { to: VIRTUAL6, ..Tcp::v6() }] {
        let frame = segment.bytes();
        assert_eq!(backup.run(&frame)?, dropped(&frame, "virtual_mac_not_owned"));
        // Who knows the interface's MAC means this node: a connection that it still serves, for example.
        let ours = Tcp { to: OWN, ..segment }.bytes();
        assert_eq!(backup.run(&ours)?, passed(&ours, &["traffic_not_owned"]));
    }
    Ok(())
}

#[test]
fn what_a_gateway_is_to_forward_reaches_the_owners_kernel_and_no_others() -> Result<()> {
    let (owner, backup) = (owner()?, backup()?);
    for to in [VIRTUAL4, VIRTUAL6] {
        for tags in [&[][..], &[VLAN], &[PRIORITY_TAG]] {
            for frame in routed(to, tags) {
                assert_eq!(owner.run(&frame)?, taken(&frame, &[]));
                assert_eq!(backup.run(&frame)?, dropped(&frame, "virtual_mac_not_owned"));
            }
        }
        let other = ethernet(to, CLIENT, &[], 0x88cc, &[0; 46]);
        assert_eq!(owner.run(&other)?, taken(&other, &[]));
        assert_eq!(backup.run(&other)?, dropped(&other, "virtual_mac_not_owned"));
    }
    Ok(())
}

#[test]
fn a_virtual_mac_of_no_router_of_ours_is_none_of_our_business() -> Result<()> {
    for kernel in [owner()?, backup()?, Kernel::with(&World::owning())?] {
        let mut others = routed(OTHER_VIRTUAL, &[]).to_vec();
        others.extend(routed(VIRTUAL4, &[UNKNOWN_VLAN]));
        others.extend(routed([0, 0, 0x5e, 0, 3, VRID], &[]));
        for frame in others {
            assert_eq!(kernel.run(&frame)?, passed(&frame, &[]));
        }
    }
    // With interfaces' MACs the virtual ones mean nothing.
    for frame in routed(VIRTUAL4, &[]) {
        assert_eq!(Kernel::with(&World::not_owning())?.run(&frame)?, passed(&frame, &[]));
    }
    Ok(())
}

#[test]
fn a_backup_touches_no_vrrp_whatever_its_destination() -> Result<()> {
    let backup = backup()?;
    for to in [VIRTUAL4, [1, 0, 0x5e, 0, 0, 18]] {
        let advert = ethernet(to, VIRTUAL4, &[], 0x0800, &ipv4(CLIENT4, [224, 0, 0, 18], 112, 0, &[0; 20]));
        assert_eq!(backup.run(&advert)?, passed(&advert, &[]));
    }
    Ok(())
}

#[test]
fn ownership_of_the_virtual_mac_ends_with_the_deadline() -> Result<()> {
    let mut kernel = owner()?;
    let [frame, _] = routed(VIRTUAL4, &[]);
    kernel.set_deadline(1)?;
    assert_eq!(kernel.run(&frame)?, dropped(&frame, "virtual_mac_not_owned"));
    kernel.set_deadline(u64::MAX)?;
    assert_eq!(kernel.run(&frame)?, taken(&frame, &[]));
    Ok(())
}

/// From a switch's point of view the virtual MAC moves with the new owner's first advert, before that one owns, and the former
/// owner may have some frames in its queues when it hears the advert.
#[test]
fn frames_that_are_on_their_way_while_the_virtual_mac_moves_are_not_lost() -> Result<()> {
    let kernel = Kernel::with(&World::not_owning().with_virtual_macs().in_transit())?;
    let frame = Tcp { to: VIRTUAL4, ..Tcp::v4() }.bytes();
    assert_eq!(kernel.run(&frame)?, taken(&frame, &["traffic_not_owned"]));
    let [routed, _] = routed(VIRTUAL4, &[]);
    assert_eq!(kernel.run(&routed)?, taken(&routed, &[]));
    // But nobody is answered.
    let question = Arp::question().bytes();
    assert_eq!(kernel.run(&question)?, dropped(&question, "arp_not_owned"));
    let to_it = kernel.run(&Arp { to: VIRTUAL4, ..Arp::question() }.bytes())?;
    assert_eq!((to_it.verdict, to_it.counted), (Verdict::Drop, vec!["arp_not_owned", "virtual_mac_taken"]));
    let question = Nd::question().bytes();
    assert_eq!(kernel.run(&question)?, dropped(&question, "nd_not_owned"));
    Ok(())
}

#[test]
fn after_a_planned_move_unknown_flows_go_on_from_the_interfaces_mac() -> Result<()> {
    let kernel = Kernel::with(&World::taking_over().with_virtual_macs())?;
    for segment in [Tcp { to: VIRTUAL4, ..Tcp::v4() }, Tcp { to: VIRTUAL6, ..Tcp::v6() }] {
        let forwarded = Tcp { to: FORMER, from: OWN, ..segment.clone() }.bytes();
        let outcome = kernel.run(&segment.bytes())?;
        assert_eq!(outcome, taken_and_transmitted(forwarded, "handover_forwarded"));
        let syn = Tcp { flags: SYN, client_port: 41_000, ..segment.clone() }.bytes();
        assert_eq!(kernel.run(&syn)?, taken(&syn, &["traffic_owned"]));
        let ours = Tcp { client_port: 41_000, ..segment }.bytes();
        assert_eq!(kernel.run(&ours)?, taken(&ours, &["traffic_owned"]));
    }
    Ok(())
}

// === accept mode ===

#[test]
fn traffic_that_is_not_accepted_is_dropped_and_counted() -> Result<()> {
    let worlds = [World::owning(), World::taking_over(), World::owning().with_virtual_macs()];
    for world in worlds {
        let kernel = Kernel::with(&world.without_accepting())?;
        for segment in [Tcp::v4(), Tcp::v6(), Tcp { flags: SYN, ..Tcp::v4() }] {
            let frame = segment.bytes();
            assert_eq!(kernel.run(&frame)?, dropped(&frame, "traffic_not_accepted"));
        }
        let echo = ethernet(OWN, CLIENT, &[], 0x86dd, &ipv6(CLIENT6, VIP6, 58, 64, &[128; 20]));
        assert_eq!(kernel.run(&echo)?, dropped(&echo, "traffic_not_accepted"));
    }
    let kernel = Kernel::with(&World::owning().without_accepting().with_virtual_macs())?;
    let outcome = kernel.run(&Tcp { to: VIRTUAL4, ..Tcp::v4() }.bytes())?;
    assert_eq!(
        (outcome.verdict, outcome.counted),
        (Verdict::Drop, vec!["traffic_not_accepted", "virtual_mac_taken"])
    );
    Ok(())
}

#[test]
fn what_is_not_accepted_is_answered_for_and_forwarded_all_the_same() -> Result<()> {
    let kernel = Kernel::with(&World::owning().without_accepting())?;
    let arp = kernel.run(&Arp::question().bytes())?;
    assert_eq!(arp, transmitted(Arp::answer().bytes(), "arp_answered"));
    let nd = kernel.run(&Nd::question().bytes())?;
    assert_eq!(nd, transmitted(Nd::answer().bytes(), "nd_answered"));
    let advertisement = Nd { destination: VIP6, target: OTHER6, ..Nd::foreign() }.bytes();
    assert_eq!(kernel.run(&advertisement)?, passed(&advertisement, &[]));
    let gateway = Kernel::with(&World::owning().without_accepting().with_virtual_macs())?;
    for frame in routed(VIRTUAL4, &[]) {
        assert_eq!(gateway.run(&frame)?, taken(&frame, &[]));
    }
    Ok(())
}

/// Accept_Mode is of an Active router (RFC 9568, 6.1): a Backup may be a backend that somebody else steers to.
#[test]
fn a_backup_passes_traffic_whether_it_would_accept_it_or_not() -> Result<()> {
    let kernel = Kernel::with(&World::not_owning().without_accepting())?;
    let frame = Tcp::v4().bytes();
    assert_eq!(kernel.run(&frame)?, passed(&frame, &["traffic_not_owned"]));
    Ok(())
}
