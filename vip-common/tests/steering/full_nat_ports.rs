//! The ports of full NAT: what is left of a range, in as many pieces as there is room for.

use std::ops::RangeInclusive;

use proptest::collection::vec;
use proptest::prelude::*;
use vip_common::steering::full_nat::ports::{MAX_RANGES, Ports};

fn ranges(ports: &Ports) -> Vec<RangeInclusive<u16>> {
    ports.ranges().collect()
}

#[test]
fn what_others_use_is_left_out() {
    // Listening on 8080, ip_local_port_range, NodePorts.
    let ports = Ports::new(1024..=65_535, &[8080..=8080, 32_768..=60_999, 30_000..=32_767]);
    assert_eq!(ranges(&ports), [1024..=8079, 8081..=29_999, 61_000..=65_535]);
    assert_eq!(ports.count(), 7056 + 21_919 + 4536);
}

#[test]
fn nothing_is_left_of_what_is_all_taken_and_port_zero_is_none() {
    assert_eq!(Ports::new(1024..=2000, &[1..=65_535]), Ports::NONE);
    assert_eq!(ranges(&Ports::new(0..=3, &[])), [1..=3]);
    assert_eq!(ranges(&Ports::new(65_535..=65_535, &[])), [65_535..=65_535]);
}

#[test]
fn of_too_many_pieces_the_longest_are_taken() {
    // Pieces of 1, 2, 3 ... ports.
    let taken: Vec<_> =
        (0..12_u16).map(|n| 1000 + n * (n + 3) / 2 + n..=1000 + n * (n + 3) / 2 + n).collect();
    let ports = Ports::new(1000..=*taken[11].end(), &taken);
    let lengths: Vec<_> = ranges(&ports).iter().map(ExactSizeIterator::len).collect();
    assert_eq!(lengths.len(), MAX_RANGES);
    assert!(lengths.is_sorted(), "{lengths:?}");
    let all: Vec<_> =
        taken.windows(2).map(|pair| usize::from(*pair[1].start() - *pair[0].end() - 1)).collect();
    assert_eq!(lengths, all[all.len() - MAX_RANGES..]);
}

proptest! {
    #[test]
    fn they_are_those_that_were_wanted_and_nobody_has(
        wanted in any::<(u16, u16)>(), taken in vec((any::<u16>(), 0..3000_u16), 0..6)
    ) {
        let wanted = wanted.0.min(wanted.1)..=wanted.0.max(wanted.1);
        let taken: Vec<_> = taken.into_iter().map(|(first, more)| first..=first.saturating_add(more)).collect();
        let ports = Ports::new(wanted.clone(), &taken);
        let free = |port: &u16| *port != 0 && wanted.contains(port) && !taken.iter().any(|range| range.contains(port));
        let expected: Vec<u16> = (0..=u16::MAX).filter(free).collect();
        let listed: Vec<u16> = ports.ranges().flatten().collect();
        prop_assert_eq!(&listed, &expected, "six holes leave seven pieces at most");
        prop_assert_eq!(ports.count() as usize, expected.len());
        for port in (0..=u16::MAX).step_by(7).chain(taken.iter().map(|range| *range.end())) {
            prop_assert_eq!(ports.contains(port), free(&port));
        }
    }
}
