//! Rings: shares, agreement, disruption, and the paper's own algorithm as the model.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use vip_common::steering::hash;
use vip_common::steering::maglev::{Candidate, Refused, RingSize, fill};

type Identity = [u8; 16];

/// 10.0.x.y, as a backend.
fn identity(number: u16) -> Identity {
    let [x, y] = number.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, x, y]
}

/// The ring by identities, whatever the slots.
fn ring(size: RingSize, backends: &[(Identity, u16)]) -> Vec<Option<Identity>> {
    let slots = (1..).map(|slot| NonZeroU32::new(slot).expect("from one"));
    let mut candidates: Vec<_> = backends
        .iter()
        .zip(slots)
        .map(|((identity, weight), slot)| Candidate::new(*identity, slot, *weight))
        .collect();
    let mut ring = vec![7; size.get() as usize];
    fill(&mut ring, size, &mut candidates).expect("different backends");
    ring.iter().map(|slot| slot.checked_sub(1).map(|at| backends[at as usize].0)).collect()
}

fn alike(count: u16) -> Vec<(Identity, u16)> {
    (0..count).map(|number| (identity(number), 1)).collect()
}

fn shares(ring: &[Option<Identity>]) -> HashMap<Identity, usize> {
    let mut shares = HashMap::new();
    ring.iter().flatten().for_each(|identity| *shares.entry(*identity).or_default() += 1);
    shares
}

/// Pseudocode 1 of the paper: all permutations first, then turns, for backends of one weight.
fn paper(size: RingSize, backends: &[(Identity, u16)], walks: &[(u32, u32)]) -> Vec<Option<Identity>> {
    let size = size.get() as usize;
    let permutations: Vec<Vec<usize>> = walks
        .iter()
        .map(|(offset, skip)| (0..size).map(|j| (*offset as usize + j * *skip as usize) % size).collect())
        .collect();
    let mut next = vec![0; backends.len()];
    let mut entries = vec![None; size];
    let mut filled = 0;
    loop {
        for (backend, permutation) in permutations.iter().enumerate() {
            let mut at = permutation[next[backend]];
            while entries[at].is_some() {
                next[backend] += 1;
                at = permutation[next[backend]];
            }
            entries[at] = Some(backends[backend].0);
            next[backend] += 1;
            filled += 1;
            if filled == size {
                return entries;
            }
        }
    }
}

fn walks(backends: &[(Identity, u16)], size: RingSize) -> Vec<(u32, u32)> {
    backends.iter().map(|(identity, _)| Candidate::new(*identity, NonZeroU32::MIN, 1).walk(size)).collect()
}

#[test]
fn a_ring_is_the_one_of_the_papers_pseudocode() {
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for count in [1, 2, 3, 10, 10, 10, 97] {
        let backends = alike(count);
        let walks = walks(&backends, RingSize::DEFAULT);
        let start = Instant::now();
        let built = ring(RingSize::DEFAULT, &backends);
        ours += start.elapsed();
        let start = Instant::now();
        let model = paper(RingSize::DEFAULT, &backends, &walks);
        theirs += start.elapsed();
        assert!(built == model, "{count} backends");
    }
    println!("built in {:.2} of the pseudocode's time", ours.as_secs_f64() / theirs.as_secs_f64());
}

#[test]
fn removing_one_of_a_hundred_moves_at_most_two_percent_of_the_others_entries() {
    let mut backends = alike(100);
    let before = ring(RingSize::DEFAULT, &backends);
    let mut worst = 0.0_f64;
    for gone in 0..100 {
        let (lost, _) = backends.remove(gone);
        let after = ring(RingSize::DEFAULT, &backends);
        let others = || before.iter().zip(&after).filter(|(before, _)| **before != Some(lost));
        let moved = others().filter(|(before, after)| before != after).count();
        worst = worst.max(moved as f64 / others().count() as f64);
        backends.insert(gone, (lost, 1));
    }
    println!("at worst {:.2} % move", worst * 100.0);
    assert!(worst <= 0.02, "{worst}");
}

#[test]
fn a_drained_backend_has_no_entry_and_the_others_keep_theirs() {
    let mut backends = alike(100);
    let before = ring(RingSize::DEFAULT, &backends);
    backends[17].1 = 0;
    let after = ring(RingSize::DEFAULT, &backends);
    assert_eq!(shares(&after).get(&identity(17)), None);
    backends.remove(17);
    assert!(after == ring(RingSize::DEFAULT, &backends), "draining is leaving, as far as new flows go");
    let stayed = before.iter().zip(&after).filter(|(before, after)| before == after).count();
    assert!(stayed as f64 >= 0.97 * 16_381.0, "{stayed}");
}

#[test]
fn weights_are_kept_within_two_percent() {
    for weights in [vec![1, 1], vec![1, 2, 3], vec![10; 100], vec![100, 50, 25, 200], (1..=50).collect()] {
        let backends: Vec<_> = (0..).map(identity).zip(weights.iter().copied()).collect();
        let shares = shares(&ring(RingSize::DEFAULT, &backends));
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        for (identity, weight) in &backends {
            let due = 16_381.0 * f64::from(*weight) / total;
            let has = shares[identity] as f64;
            // One entry is more than 2 % of a share below 50.
            assert!((has - due).abs() <= f64::max(1.0, 0.02 * due), "{has} of {due} for {weight} of {total}");
        }
    }
}

#[test]
fn a_light_backend_among_heavy_ones_has_its_share() {
    let mut backends = alike(100);
    backends[0].1 = 1000;
    let shares = shares(&ring(RingSize::DEFAULT, &backends));
    let due = 16_381.0 / 1099.0;
    assert!((shares[&identity(0)] as f64 / (due * 1000.0) - 1.0).abs() < 0.02);
    assert!((1..100).all(|number| (shares[&identity(number)] as f64 - due).abs() < 2.0), "{shares:?}");
}

#[test]
fn without_a_backend_that_takes_flows_nothing_is_set() {
    for backends in [vec![], vec![(identity(1), 0), (identity(2), 0)]] {
        assert!(ring(RingSize::DEFAULT, &backends).iter().all(Option::is_none));
    }
}

#[test]
fn what_would_not_be_the_same_everywhere_is_refused() {
    let slot = |slot| NonZeroU32::new(slot).expect("not zero");
    let mut twice = [Candidate::new(identity(1), slot(1), 1), Candidate::new(identity(1), slot(2), 5)];
    let mut memory = vec![9; 16_381];
    assert_eq!(fill(&mut memory, RingSize::DEFAULT, &mut twice), Err(Refused::Twice(identity(1))));
    assert_eq!(fill(&mut memory[1..], RingSize::DEFAULT, &mut twice), Err(Refused::Length));
    let size = RingSize::new(251).expect("a prime");
    let mut many: Vec<_> = (0..252).map(|number| Candidate::new(identity(number), slot(1), 1)).collect();
    assert_eq!(fill(&mut memory[..251], size, &mut many), Err(Refused::TooMany));
    assert!(memory.iter().all(|entry| *entry == 9), "a refused ring is not touched");
}

#[test]
fn a_ring_has_a_prime_number_of_entries() {
    for prime in [251, 4093, 16_381, 65_537, 131_071] {
        assert_eq!(RingSize::new(prime).map(RingSize::get), Some(prime));
    }
    for other in [0, 1, 2, 241, 252, 16_383, 65_535, 65_536, 131_101, 4093 * 3, u32::MAX] {
        assert_eq!(RingSize::new(other), None, "{other}");
    }
}

/// What nodes of different versions must agree on, computed by another program in another language. If this fails, the change moves flows of everyone who updates one node at
/// a time.
#[test]
fn hashes_and_rings_are_what_they_have_always_been() {
    assert_eq!(hash::of_flow4([10, 0, 0, 9], [0x9c, 0x40, 0, 80]), 0xa58f_99ef_4cc7_d002);
    assert_eq!(hash::of_flow6([0xfd; 16], [0x9c, 0x40, 0, 80]), 0x3a40_fc20_812e_32f5);
    assert_eq!(hash::of_client4([10, 0, 0, 9]), 0x37f4_cdca_adfb_fff8);
    assert_eq!(hash::of_client6([0xfd; 16]), 0xa8cb_f7dc_3ada_7bc2);
    let ring = ring(RingSize::DEFAULT, &alike(10));
    let digest =
        ring.iter().flatten().fold(0_u64, |sum, identity| sum.wrapping_mul(31) + u64::from(identity[15]));
    assert_eq!(digest, 0xa25b_2431_f88b_1856);
}

#[test]
fn flows_spread_evenly_over_a_ring() {
    let mut hits = vec![0_u32; 16_381];
    for client in 0..=255_u8 {
        for port in 1024..=2047_u16 {
            let [high, low] = port.to_be_bytes();
            let hash = hash::of_flow4([192, 0, 2, client], [high, low, 1, 187]);
            hits[hash::position(hash, 16_381) as usize] += 1;
        }
    }
    // 16 each on average: chi-squared over its degrees of freedom is 1 within 4 standard deviations of 0.011.
    let mean = 256.0 * 1024.0 / 16_381.0;
    let chi: f64 = hits.iter().map(|hits| (f64::from(*hits) - mean).powi(2) / mean).sum::<f64>() / 16_380.0;
    assert!((0.955..1.045).contains(&chi), "{chi}");
}

fn backends() -> impl Strategy<Value = Vec<(Identity, u16)>> {
    let weight = prop_oneof![3 => Just(1_u16), 3 => 1..=256_u16, 1 => Just(0), 1 => any::<u16>()];
    btree_map(any::<Identity>(), weight, 0..40).prop_map(|backends| backends.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn two_nodes_agree_on_every_entry(backends in backends(), keys in vec(any::<u32>(), 40)) {
        let size = RingSize::new(4093).expect("a prime");
        let mut elsewhere: Vec<_> = backends.iter().copied().zip(keys).collect();
        elsewhere.sort_by_key(|(_, key)| *key);
        let elsewhere: Vec<_> = elsewhere.into_iter().map(|(backend, _)| backend).collect();
        prop_assert!(ring(size, &backends) == ring(size, &elsewhere));
    }

    #[test]
    fn every_entry_is_set_and_every_share_due(backends in backends()) {
        let ring = ring(RingSize::DEFAULT, &backends);
        let total: f64 = backends.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let shares = shares(&ring);
        prop_assert_eq!(ring.iter().all(Option::is_some), total > 0.0);
        prop_assert_eq!(ring.contains(&None), total == 0.0);
        for (identity, weight) in &backends {
            let due = if total > 0.0 { 16_381.0 * f64::from(*weight) / total } else { 0.0 };
            let has = shares.get(identity).copied().unwrap_or(0) as f64;
            prop_assert!((has - due).abs() <= f64::max(2.0, 0.02 * due), "{} of {}", has, due);
        }
    }

    #[test]
    fn a_position_is_in_the_ring(hash in any::<u64>(), size in 1..=RingSize::MAX) {
        prop_assert!(hash::position(hash, size) < size);
    }
}
