//! ARP: who gets an answer, which one, and who gets none.

use anyhow::Result;

use crate::common::frames::*;
use crate::common::world::World;
use crate::kernel::{Kernel, dropped, passed, transmitted};

#[test]
fn a_question_for_an_owned_vip_becomes_the_reply() -> Result<()> {
    let question = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\xc1\x08\x06\
        \0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\xc1\x0a\0\0\x09\0\0\0\0\0\0\x0a\0\0\x32";
    let reply = b"\x02\0\0\0\0\xc1\x02\0\0\0\0\x01\x08\x06\
        \0\x01\x08\0\x06\x04\0\x02\x02\0\0\0\0\x01\x0a\0\0\x32\x02\0\0\0\0\xc1\x0a\0\0\x09";
    let outcome = Kernel::with(&World::owning())?.run(question)?;
    assert_eq!(outcome, transmitted(reply.to_vec(), "arp_answered"));
    Ok(())
}

#[test]
fn the_builders_write_those_very_bytes() {
    let question = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\xc1\x08\x06\
        \0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\xc1\x0a\0\0\x09\0\0\0\0\0\0\x0a\0\0\x32";
    assert_eq!(Arp::question().bytes(), question);
}

#[test]
fn a_question_for_a_vip_of_another_owner_is_dropped() -> Result<()> {
    let question = Arp::question().bytes();
    assert_eq!(Kernel::with(&World::not_owning())?.run(&question)?, dropped(&question, "arp_not_owned"));
    Ok(())
}

#[test]
fn ownership_ends_by_itself_when_its_deadline_has_passed() -> Result<()> {
    let mut kernel = Kernel::with(&World::owning())?;
    let question = Arp::question().bytes();
    kernel.set_deadline(1)?;
    assert_eq!(kernel.run(&question)?, dropped(&question, "arp_not_owned"));
    kernel.set_deadline(u64::MAX)?;
    assert_eq!(kernel.run(&question)?, transmitted(Arp::answer().bytes(), "arp_answered"));
    Ok(())
}

#[test]
fn a_question_for_another_address_passes() -> Result<()> {
    let question = Arp { target: OTHER4, ..Arp::question() }.bytes();
    assert_eq!(Kernel::with(&World::owning())?.run(&question)?, passed(&question, &[]));
    Ok(())
}

#[test]
fn tags_that_lead_to_the_vip_stay_on_the_answer() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    let ways = [vec![VLAN], vec![SERVICE_VLAN, VLAN_200], vec![PRIORITY_TAG], vec![PRIORITY_TAG, VLAN]];
    for tags in ways {
        let question = Arp { tags: tags.clone(), ..Arp::question() }.bytes();
        let answer = Arp { tags, ..Arp::answer() }.bytes();
        assert_eq!(kernel.run(&question)?, transmitted(answer, "arp_answered"));
    }
    Ok(())
}

#[test]
fn a_tag_of_another_network_or_a_third_tag_passes() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    for tags in [vec![UNKNOWN_VLAN], vec![VLAN_200], vec![VLAN, VLAN], vec![PRIORITY_TAG; 3]] {
        let question = Arp { tags, ..Arp::question() }.bytes();
        assert_eq!(kernel.run(&question)?, passed(&question, &[]));
    }
    Ok(())
}

#[test]
fn a_probe_without_a_sender_address_is_answered() -> Result<()> {
    let probe = Arp { sender: [0; 4], ..Arp::question() }.bytes();
    let answer = Arp { target: [0; 4], ..Arp::answer() }.bytes();
    assert_eq!(Kernel::with(&World::owning())?.run(&probe)?, transmitted(answer, "arp_answered"));
    Ok(())
}

#[test]
fn a_question_to_our_own_mac_is_answered_and_one_to_another_mac_is_not_ours() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    let own = Arp { to: OWN, ..Arp::question() }.bytes();
    assert_eq!(kernel.run(&own)?, transmitted(Arp::answer().bytes(), "arp_answered"));
    let other = Arp { to: STRANGER, ..Arp::question() }.bytes();
    assert_eq!(kernel.run(&other)?, passed(&other, &["arp_not_for_us"]));
    Ok(())
}

#[test]
fn a_backups_kernel_never_sees_a_question_whomever_it_is_sent_to() -> Result<()> {
    let kernel = Kernel::with(&World::not_owning())?;
    for to in [OWN, STRANGER, GROUP_MAC] {
        let question = Arp { to, ..Arp::question() }.bytes();
        assert_eq!(kernel.run(&question)?, dropped(&question, "arp_not_owned"));
    }
    Ok(())
}

#[test]
fn a_spoofed_or_malformed_question_is_dropped() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    let unsound = [
        Arp { to: GROUP_MAC, ..Arp::question() },
        Arp { sender_mac: OWN, ..Arp::question() },
        Arp { sender_mac: BROADCAST, ..Arp::question() },
        Arp { sender_mac: [0x01, 0, 0x5e, 0, 0, 1], ..Arp::question() },
        Arp { sender_mac: [0; 6], ..Arp::question() },
        // IEEE 802, which Linux would answer
        Arp { htype: 6, ..Arp::question() },
    ];
    for question in unsound {
        let question = question.bytes();
        assert_eq!(kernel.run(&question)?, dropped(&question, "arp_invalid"));
    }
    Ok(())
}

#[test]
fn what_is_no_question_about_ipv4_over_ethernet_passes() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    let others = [
        Arp { ptype: 0x86dd, ..Arp::question() },
        Arp { hlen: 8, ..Arp::question() },
        Arp { plen: 16, ..Arp::question() },
        Arp { op: 3, ..Arp::question() },
    ];
    for frame in others {
        let frame = frame.bytes();
        assert_eq!(kernel.run(&frame)?, passed(&frame, &[]));
    }
    Ok(())
}

#[test]
fn padding_stays_and_a_truncated_question_passes() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    let question = padded(Arp::question().bytes(), 60);
    assert_eq!(kernel.run(&question)?, transmitted(padded(Arp::answer().bytes(), 60), "arp_answered"));
    for length in 14..42 {
        let cut = &question[..length];
        assert_eq!(kernel.run(cut)?, passed(cut, &[]));
    }
    Ok(())
}
