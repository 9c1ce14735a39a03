//! Checksums, the filter, and frames in user-space memory.

use etherparse::checksum::Sum16BitWords;
use proptest::collection::vec;
use proptest::prelude::*;
use vip_common::decision::{Action, Audience, NeighborAnswer, gate_opens};
use vip_common::filter::{Bit, Filter, WORDS};
use vip_common::packet::checksum::{Sum, replace};
use vip_common::packet::ethernet::Mac;
use vip_common::packet::ipv6::Address;
use vip_common::packet::{Bytes as _, BytesMut as _, Frame, virtual_mac};
use vip_common::reason::Reason;
use vip_common::rewrite;

use crate::common::frames::{self, Nd};

proptest! {
    #[test]
    fn a_checksum_is_an_independent_ones(words in vec(any::<[u8; 2]>(), 0..600), units in vec(any::<[u8; 8]>(), 0..200)) {
        let ours = units.iter().fold(words.iter().fold(Sum::new(), |sum, word| sum.word(*word)), |sum, unit| sum.eight(*unit));
        let theirs = Sum16BitWords::new().add_slice(&words.concat()).add_slice(&units.concat());
        prop_assert_eq!(ours.checksum(), theirs.ones_complement().to_ne_bytes());
    }

    #[test]
    fn data_with_its_checksum_sums_up_to_zero(units in vec(any::<[u8; 8]>(), 1..20)) {
        let sum = units.iter().fold(Sum::new(), |sum, unit| sum.eight(*unit));
        prop_assume!(sum != Sum::new());
        prop_assert_eq!(sum.word(sum.checksum()).checksum(), [0, 0]);
    }

    #[test]
    fn replacing_a_word_is_summing_anew(rest in any::<[u8; 8]>(), from in any::<[u8; 2]>(), to in any::<[u8; 2]>()) {
        prop_assume!(rest != [0; 8]);
        let sum = Sum::new().eight(rest);
        prop_assert_eq!(replace(sum.word(from).checksum(), from, to), sum.word(to).checksum());
    }

    #[test]
    fn a_damaged_checksum_stays_damaged(rest in any::<[u8; 8]>(), from in any::<[u8; 2]>(), to in any::<[u8; 2]>(), damage in 1..0xffff_u16) {
        prop_assume!(rest != [0; 8]);
        let sum = Sum::new().eight(rest);
        let damaged = u16::from_be_bytes(sum.word(from).checksum()).wrapping_add(damage).to_be_bytes();
        prop_assume!(sum.word(from).word(damaged).checksum() != [0, 0]);
        prop_assert_ne!(sum.word(to).word(replace(damaged, from, to)).checksum(), [0, 0]);
    }

    #[test]
    fn the_filter_never_rules_out_a_vip(vips4 in vec(any::<[u8; 4]>(), 0..50), vips6 in vec(any::<[u8; 16]>(), 0..50)) {
        let bits: Vec<_> = vips4.into_iter().map(Bit::of_ipv4)
            .chain(vips6.into_iter().map(Address::new).map(Bit::of_ipv6))
            .collect();
        let mut filter = Filter::new();
        bits.iter().for_each(|bit| filter.admit(*bit));
        for bit in bits {
            prop_assert!(bit.word < WORDS);
            prop_assert!(!filter.rules_out(bit));
        }
    }

    #[test]
    fn addresses_survive_reading_and_writing(mac in any::<[u8; 6]>(), address in any::<[u8; 16]>()) {
        let mut room = [0; 40];
        let mut frame = Frame::new(&mut room, 40).expect("room enough");
        prop_assert_eq!(Mac::new(mac).store(&mut frame, 3), Some(()));
        prop_assert_eq!(Address::new(address).store(&mut frame, 11), Some(()));
        prop_assert_eq!(Mac::load(&frame, 3).map(Mac::bytes), Some(mac));
        prop_assert_eq!(Address::load(&frame, 11).map(Address::bytes), Some(address));
        prop_assert_eq!(&frame.as_bytes()[3..9], &mac);
        prop_assert_eq!(&frame.as_bytes()[11..27], &address);
    }
}

#[test]
fn the_filter_rules_out_most_other_addresses() {
    let mut filter = Filter::new();
    (0..=255).for_each(|last| filter.admit(Bit::of_ipv4([10, 0, 0, last])));
    let others = (0..=255).flat_map(|third| (0..=255).map(move |last| [10, 1, third, last]));
    let looked_up_in_vain = others.filter(|address| !filter.rules_out(Bit::of_ipv4(*address))).count();
    assert!(looked_up_in_vain < 65_536 / 64, "{looked_up_in_vain} of 65536");
    let mut sixes =
        (0..=255_u8).map(|last| Address::new([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7, last]));
    assert!(sixes.all(|address| Filter::new().rules_out(Bit::of_ipv6(address))));
}

#[test]
fn groups_of_ipv6_are_those_of_rfc_4291_and_2464() {
    let vip = Address::new(frames::VIP6);
    assert_eq!(vip.solicited_node().bytes(), frames::GROUP6);
    assert_eq!(vip.solicited_node().group_mac().bytes(), frames::GROUP_MAC);
    assert!(vip.solicited_node().is_multicast() && !vip.is_multicast());
}

#[test]
fn an_answer_that_does_not_fit_is_refused() {
    let mut question = Nd { options: Vec::new(), ..Nd::question() }.bytes();
    let length = question.len();
    let mut frame = Frame::new(&mut question, length).expect("room enough");
    let answer =
        NeighborAnswer { at: 14, own: Mac::new(frames::OWN), router: 0, audience: Audience::AllNodes };
    assert_eq!(rewrite::apply(&mut frame, &Action::AnswerNeighbor(answer)), None);
    assert_eq!(frame.as_bytes().len(), length);
}

#[test]
fn virtual_macs_are_those_of_rfc_9568() {
    let read = |to: frames::Mac| virtual_mac::of_destination(&[&to[..], &frames::CLIENT].concat()[..]);
    assert_eq!(read(frames::VIRTUAL4), Some([1, frames::VRID]));
    assert_eq!(read(frames::VIRTUAL6), Some([2, frames::VRID]));
    for other in
        [frames::OWN, frames::GROUP_MAC, [0, 0, 0x5e, 0, 0, 1], [0, 0, 0x5e, 0, 3, 1], [1, 0, 0x5e, 0, 1, 1]]
    {
        assert_eq!(read(other), None, "{other:x?}");
    }
}

#[test]
fn nothing_is_read_or_written_beyond_the_end() {
    let mut room = [7; 16];
    assert!(Frame::new(&mut room, 17).is_none());
    let mut frame = Frame::new(&mut room, 10).expect("room enough");
    assert_eq!(frame.load::<4>(6), Some([7; 4]));
    assert_eq!(frame.load::<4>(7), None);
    assert_eq!(frame.load::<4>(usize::MAX), None);
    assert_eq!(frame.store(7, [1; 4]), None);
    assert_eq!(frame.store(usize::MAX, [1; 4]), None);
    assert_eq!(frame.as_bytes(), [7; 10]);
    assert_eq!(frame.resize(17), None);
    assert_eq!(frame.resize(12), Some(()));
    assert_eq!(frame.as_bytes(), [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0]);
    assert_eq!(frame.resize(2), Some(()));
    assert_eq!(frame.as_bytes(), [7; 2]);
}

#[test]
fn a_gate_opens_at_first_and_every_100_ms() {
    assert!(gate_opens(0, 1));
    assert!(!gate_opens(1_000, 1_000 + 99_999_999));
    assert!(gate_opens(1_000, 1_000 + 100_000_000));
    assert!(!gate_opens(2_000, 1_000), "another CPU was a little later");
}

#[test]
fn names_of_reasons_are_distinct_and_links_do_not_share_counters() {
    let names: std::collections::HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    assert_eq!(Reason::ArpAnswered.counter(1), Reason::ALL[Reason::ALL.len() - 1].counter(0) + 1);
}
