//! The kernel does to any frame what the decision does to it in user space.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vip_common::maps::PeerWord;
use vip_common::reason::Reason;
use vip_common::rewrite;

use crate::common::strategies;
use crate::common::world::{PEER_SLOT, World};
use crate::kernel::{Kernel, Outcome, Verdict};

/// Runs frames through both, over the same tables, and compares verdict, bytes and counters.
fn assert_equivalent(world: &World) -> anyhow::Result<()> {
    let kernel = Kernel::with(world)?;
    let mut runner = TestRunner::new(ProptestConfig { cases: 3000, ..ProptestConfig::default() });
    runner.run(&strategies::frame(), |frame| {
        let (verdict, bytes, mut counted) = world.run(&frame);
        counted.sort();
        let expected = Outcome {
            verdict: match verdict {
                rewrite::Verdict::Pass => Verdict::Pass,
                rewrite::Verdict::Drop => Verdict::Drop,
                rewrite::Verdict::Transmit => Verdict::Transmit,
            },
            frame: bytes,
            counted: counted.into_iter().map(Reason::name).collect(),
        };
        let outcome = kernel.run(&frame).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        prop_assert_eq!(outcome, expected);
        Ok(())
    })?;
    Ok(())
}

#[test]
fn of_an_owner() -> anyhow::Result<()> {
    assert_equivalent(&World::owning())
}

#[test]
fn of_a_backup() -> anyhow::Result<()> {
    assert_equivalent(&World::not_owning())
}

#[test]
fn of_an_owner_with_virtual_macs() -> anyhow::Result<()> {
    assert_equivalent(&World::owning().with_virtual_macs())
}

#[test]
fn of_a_backup_with_virtual_macs() -> anyhow::Result<()> {
    assert_equivalent(&World::not_owning().with_virtual_macs())
}

#[test]
fn of_one_whom_a_virtual_mac_comes_to_or_leaves() -> anyhow::Result<()> {
    assert_equivalent(&World::not_owning().with_virtual_macs().in_transit())
}

#[test]
fn of_a_new_owner_with_virtual_macs() -> anyhow::Result<()> {
    assert_equivalent(&World::taking_over().with_virtual_macs())
}

#[test]
fn of_an_owner_that_takes_no_traffic() -> anyhow::Result<()> {
    assert_equivalent(&World::taking_over().without_accepting().with_virtual_macs())
}

#[test]
fn of_a_new_owner_while_the_former_one_still_serves() -> anyhow::Result<()> {
    assert_equivalent(&World::taking_over())
}

#[test]
fn of_frames_of_fast_detection() -> anyhow::Result<()> {
    let world = World::hearing();
    let kernel = Kernel::with(&world)?;
    let mut runner = TestRunner::new(ProptestConfig { cases: 3000, ..ProptestConfig::default() });
    runner.run(&strategies::heartbeat(), |frame| {
        // The kernel's clock is not the world's: what is stamped is compared without the arrival.
        let (received, bytes) = world.receive(&frame);
        let outcome = kernel.run(&frame).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        let verdict = match received.map(|received| received.reason) {
            None => Verdict::Pass,
            Some(Reason::HeartbeatAnswered) => Verdict::Transmit,
            Some(_) => Verdict::Drop,
        };
        let counted = received.map(|received| received.reason.name()).into_iter().collect();
        prop_assert_eq!(outcome, Outcome { verdict, frame: bytes, counted });
        let ours = world.peers.borrow()[&PEER_SLOT];
        let theirs = kernel.peer(PEER_SLOT).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        for word in [PeerWord::Sent, PeerWord::Promise, PeerWord::Asked] {
            prop_assert_eq!(ours[word as usize], theirs[word as usize]);
        }
        Ok(())
    })?;
    Ok(())
}
