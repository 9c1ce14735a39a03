//! Neighbour discovery: who gets an advertisement, which one, and who gets none.

use anyhow::Result;

use crate::common::frames::*;
use crate::common::world::World;
use crate::kernel::{Kernel, dropped, passed, transmitted};

/// Asserts that the frame of an owner's VIP is answered by exactly that one.
fn assert_answered(question: &Nd, answer: &Nd) -> Result<()> {
    let outcome = Kernel::with(&World::owning())?.run(&question.bytes())?;
    assert_eq!(outcome, transmitted(answer.bytes(), "nd_answered"));
    Ok(())
}

#[test]
fn a_solicitation_for_an_owned_vip_becomes_the_advertisement() -> Result<()> {
    assert_answered(&Nd::question(), &Nd::answer())
}

#[test]
fn a_node_that_does_not_forward_is_no_router() -> Result<()> {
    let kernel = Kernel::with(&World::owning().without_forwarding())?;
    let answer = Nd { flags: [0x60, 0, 0, 0], ..Nd::answer() }.bytes();
    assert_eq!(kernel.run(&Nd::question().bytes())?, transmitted(answer, "nd_answered"));
    Ok(())
}

#[test]
fn a_solicitation_for_a_vip_of_another_owner_is_dropped() -> Result<()> {
    let kernel = Kernel::with(&World::not_owning())?;
    for question in [Nd::question(), Nd::probe(), Nd { to: STRANGER, ..Nd::question() }] {
        let question = question.bytes();
        assert_eq!(kernel.run(&question)?, dropped(&question, "nd_not_owned"));
    }
    Ok(())
}

#[test]
fn a_solicitation_for_another_address_of_the_same_group_passes() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    for target in [OTHER6, GROUP6] {
        let question = Nd { target, ..Nd::question() }.bytes();
        assert_eq!(kernel.run(&question)?, passed(&question, &[]));
    }
    Ok(())
}

#[test]
fn without_the_option_the_frame_grows_and_goes_to_whom_it_came_from() -> Result<()> {
    let question = Nd { options: Vec::new(), ..Nd::question() };
    assert_eq!(question.bytes().len() + 8, Nd::answer().bytes().len());
    assert_answered(&question, &Nd::answer())
}

#[test]
fn longer_options_are_cut_off_and_the_option_names_the_receiver() -> Result<()> {
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6].to_vec();
    let options = [nonce.clone(), link_layer(1, STRANGER), nonce].concat();
    assert_answered(&Nd { options, ..Nd::question() }, &Nd { to: STRANGER, ..Nd::answer() })
}

#[test]
fn an_option_that_names_no_station_is_overlooked() -> Result<()> {
    assert_answered(&Nd { options: link_layer(1, BROADCAST), ..Nd::question() }, &Nd::answer())
}

#[test]
fn eight_units_of_options_are_read_and_nine_are_too_many() -> Result<()> {
    let nonces = |count| [14, 1, 1, 2, 3, 4, 5, 6].repeat(count);
    assert_answered(&Nd { options: nonces(8), ..Nd::question() }, &Nd::answer())?;
    let question = Nd { options: nonces(9), ..Nd::question() }.bytes();
    assert_eq!(Kernel::with(&World::owning())?.run(&question)?, dropped(&question, "nd_invalid"));
    Ok(())
}

#[test]
fn a_probe_for_duplicates_is_answered_to_everyone_and_unsolicited() -> Result<()> {
    let answer = Nd { to: ALL_NODES_MAC, destination: ALL_NODES, flags: [0xa0, 0, 0, 0], ..Nd::answer() };
    assert_answered(&Nd::probe(), &answer)
}

#[test]
fn a_unicast_solicitation_to_us_is_answered_and_one_to_another_mac_is_not_ours() -> Result<()> {
    let unicast = Nd { to: OWN, destination: VIP6, ..Nd::question() };
    assert_answered(&unicast, &Nd::answer())?;
    let other = Nd { to: STRANGER, ..unicast }.bytes();
    assert_eq!(Kernel::with(&World::owning())?.run(&other)?, passed(&other, &["nd_not_for_us"]));
    Ok(())
}

#[test]
fn tags_that_lead_to_the_vip_stay_on_the_advertisement() -> Result<()> {
    for tags in [vec![VLAN], vec![SERVICE_VLAN, VLAN_200]] {
        let question = Nd { tags: tags.clone(), options: Vec::new(), ..Nd::question() };
        assert_answered(&question, &Nd { tags, ..Nd::answer() })?;
    }
    let unknown = Nd { tags: vec![UNKNOWN_VLAN], ..Nd::question() }.bytes();
    assert_eq!(Kernel::with(&World::owning())?.run(&unknown)?, passed(&unknown, &[]));
    Ok(())
}

#[test]
fn an_unsound_solicitation_is_dropped() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    let unsound = [
        ("routed", Nd { hops: 254, ..Nd::question() }),
        ("code", Nd { code: 1, ..Nd::question() }),
        ("checksum", Nd { checksum_error: 1, ..Nd::question() }),
        ("option of length 0", Nd { options: vec![1, 0, 2, 0, 0, 0, 0, 0xc1], ..Nd::question() }),
        ("option beyond the end", Nd { options: vec![1, 2, 2, 0, 0, 0, 0, 0xc1], ..Nd::question() }),
        ("half an option", Nd { options: vec![1, 1, 2, 0], ..Nd::question() }),
        ("source is a group", Nd { source: ALL_NODES, ..Nd::question() }),
        ("source is the target", Nd { source: VIP6, ..Nd::question() }),
        ("destination is another host", Nd { to: OWN, destination: OTHER6, ..Nd::question() }),
        ("address in a group frame", Nd { destination: VIP6, ..Nd::question() }),
        ("claims to be us", Nd { options: link_layer(1, OWN), ..Nd::question() }),
        ("sent by us", Nd { from: OWN, options: Vec::new(), ..Nd::question() }),
        ("probe with the option", Nd { options: link_layer(1, CLIENT), ..Nd::probe() }),
        ("probe to another group", Nd { destination: ALL_NODES, ..Nd::probe() }),
        ("our own probe", Nd { from: OWN, ..Nd::probe() }),
    ];
    for (what, question) in unsound {
        let question = question.bytes();
        assert_eq!(kernel.run(&question)?, dropped(&question, "nd_invalid"), "{what}");
    }
    Ok(())
}

#[test]
fn a_solicitation_of_another_ip_version_is_dropped() -> Result<()> {
    let mut question = Nd::question().bytes();
    question[14] = 0x40;
    assert_eq!(Kernel::with(&World::owning())?.run(&question)?, dropped(&question, "nd_invalid"));
    Ok(())
}

#[test]
fn a_length_that_the_frame_does_not_hold_is_dropped_and_a_cut_header_passes() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    let question = Nd::question().bytes();
    for length in 14 + 40 + 24..question.len() {
        let cut = &question[..length];
        assert_eq!(kernel.run(cut)?, dropped(cut, "nd_invalid"));
    }
    for length in 14..14 + 40 + 24 {
        let cut = &question[..length];
        assert_eq!(kernel.run(cut)?, passed(cut, &[]));
    }
    Ok(())
}

#[test]
fn an_advertisement_of_another_owner_goes_up() -> Result<()> {
    let advertisement = Nd::foreign().bytes();
    let outcome = Kernel::with(&World::not_owning())?.run(&advertisement)?;
    assert_eq!(outcome, passed(&advertisement, &["nd_announcement"]));
    Ok(())
}
