//! What must never be touched, and what the verifier thinks of it all.

use anyhow::{Context as _, Result};

use crate::common::frames::*;
use crate::common::world::World;
use crate::kernel::{Kernel, passed};

/// The kernel's limit is 1,000,000; half as much again as today is room for a newer compiler, not for a careless change.
const VERIFIED_INSTRUCTIONS: u32 = 70_000;

#[test]
fn vrrp_igmp_and_mld_pass_even_when_sent_to_a_vip() -> Result<()> {
    for world in [World::owning(), World::not_owning(), World::taking_over()] {
        let kernel = Kernel::with(&world)?;
        for protocol in [112, 2] {
            let packet = ipv4(CLIENT4, VIP4, protocol, 0, &[0; 20]);
            let frame = ethernet(OWN, CLIENT, &[], 0x0800, &packet);
            assert_eq!(kernel.run(&frame)?, passed(&frame, &[]), "protocol {protocol}");
        }
        for next_header in [112, 0] {
            let packet = ipv6(CLIENT6, VIP6, next_header, 255, &[0; 40]);
            let frame = ethernet(OWN, CLIENT, &[], 0x86dd, &packet);
            assert_eq!(kernel.run(&frame)?, passed(&frame, &[]), "next header {next_header}");
        }
    }
    Ok(())
}

#[test]
fn what_is_not_ours_passes_uncounted() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    let frames = [
        Tcp { vip: Address::V4(OTHER4), ..Tcp::v4() }.bytes(),
        Tcp { vip: Address::V6(OTHER6), ..Tcp::v6() }.bytes(),
        Nd { kind: 134, ..Nd::question() }.bytes(),
        // LLDP, and an 802.3 frame whose type is a length
        ethernet([0x01, 0x80, 0xc2, 0, 0, 0x0e], CLIENT, &[], 0x88cc, &[0; 46]),
        ethernet([0x01, 0x80, 0xc2, 0, 0, 0], CLIENT, &[], 38, &[0; 46]),
        ethernet(OWN, CLIENT, &[], 0x0800, &[]),
        ethernet(OWN, CLIENT, &[VLAN], 0x86dd, &[]),
    ];
    for frame in frames {
        assert_eq!(kernel.run(&frame)?, passed(&frame, &[]));
    }
    Ok(())
}

#[test]
fn an_empty_filter_rules_nothing_out() -> Result<()> {
    let mut kernel = Kernel::with(&World::owning())?;
    let frame = Tcp::v4().bytes();
    assert_eq!(kernel.run(&frame)?, passed(&frame, &["traffic_owned"]));
    for word in 0..vip_common::filter::WORDS {
        kernel.set("FILTER", word, 0_u64)?;
    }
    assert_eq!(kernel.run(&frame)?, passed(&frame, &["traffic_owned"]));
    Ok(())
}

#[test]
fn the_verifier_needs_no_more_than_its_budget() -> Result<()> {
    let kernel = Kernel::with(&World::owning())?;
    let verified = kernel.program()?.info()?.verified_instruction_count().context("Linux 5.16 says")?;
    assert!(verified <= VERIFIED_INSTRUCTIONS, "{verified} instructions, {VERIFIED_INSTRUCTIONS} allowed");
    Ok(())
}
