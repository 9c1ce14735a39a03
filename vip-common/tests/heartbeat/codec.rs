//! Bytes on the wire, and a seal that is SipHash-2-4.

#![expect(deprecated, reason = "core's SipHasher is SipHash-2-4 by another hand; its successor is not")]

use core::hash::{Hasher as _, SipHasher};

use proptest::prelude::*;
use vip_common::heartbeat::{
    CLAIMS_LENGTH, Claims, Key, Kind, LENGTH, Message, Owned, Priorities, Promise, RouterSet, Succession,
};
use vip_common::packet::Frame;

fn siphash(key: [u8; 16], bytes: &[u8]) -> u64 {
    let (low, high) = key.split_at(8);
    let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
    let mut hasher = SipHasher::new_with_keys(number(low), number(high));
    hasher.write(bytes);
    hasher.finish()
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Heartbeat), Just(Kind::Question), Just(Kind::Answer)]
}

prop_compose! {
    fn messages()(kind in kinds(), node in any::<u64>(), time in any::<u64>(), body in any::<u64>()) -> Message {
        Message { kind, node, time, body }
    }
}

fn routers() -> impl Strategy<Value = RouterSet> {
    proptest::collection::btree_set(any::<u8>(), 0..20).prop_map(|ids| {
        let mut set = RouterSet::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    })
}

fn priorities() -> impl Strategy<Value = Priorities> {
    proptest::collection::btree_map(any::<u8>(), 1..=u8::MAX, 0..20).prop_map(|waits| {
        let mut priorities = Priorities::default();
        waits.into_iter().for_each(|(id, priority)| priorities.set(id, priority));
        priorities
    })
}

fn claims() -> impl Strategy<Value = Claims> {
    let [v4, v6] = [routers(), routers()];
    let owned = (v4, v6).prop_map(|(v4, v6)| Owned { v4, v6 });
    let succession = (priorities(), priorities()).prop_map(|(v4, v6)| Succession { v4, v6 });
    let head = any::<[u64; 3]>();
    (head, owned, succession).prop_map(|([node, time, body], owned, succession)| Claims {
        node,
        time,
        promise: Promise::of(body),
        owned,
        succession,
    })
}

fn open(bytes: &[u8], key: Key) -> Option<Message> {
    Message::read(bytes, 0, Message::kind(bytes, 0)?)?.verify(key)
}

#[test]
fn a_heartbeat_has_these_bytes() {
    let promise = Promise { interval: 1000, edition: 2 };
    let message =
        Message { kind: Kind::Heartbeat, node: 0x0102_0304_0506_0708, time: 3, body: promise.word() };
    let mut expected = b"vipl\x01\x01\0\0".to_vec();
    expected.extend([8, 7, 6, 5, 4, 3, 2, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 2, 0, 0, 0]);
    let key = *b"0123456789abcdef";
    expected.extend(siphash(key, &expected).to_le_bytes());
    assert_eq!(message.sealed(Key::new(key)), expected[..]);
}

/// Appendix A of the SipHash paper: 15 bytes are no whole words, so the vector of 8 bytes from its reference code.
#[test]
fn the_seal_is_that_of_the_reference() {
    let key = Key::new(core::array::from_fn(|index| index as u8));
    let word = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(key.seal([word]).to_le_bytes(), [0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93]);
}

#[test]
fn a_key_is_not_shown() {
    assert_eq!(format!("{:?}", Key::PUBLIC), "Key(***)");
}

proptest! {
    #[test]
    fn the_seal_is_cores_siphash(key in any::<[u8; 16]>(), words in any::<[u64; 12]>()) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        prop_assert_eq!(Key::new(key).seal(words), siphash(key, &bytes));
    }

    #[test]
    fn a_message_survives_the_wire(key in any::<[u8; 16]>(), message in messages(), padding in 0..40_usize) {
        let mut bytes = message.sealed(Key::new(key)).to_vec();
        bytes.resize(LENGTH + padding, 0x5a);
        prop_assert_eq!(open(&bytes, Key::new(key)), Some(message));
    }

    #[test]
    fn a_message_written_in_place_is_the_same(key in any::<[u8; 16]>(), message in messages(), at in 0..24_usize) {
        let mut room = [0x77; LENGTH + 30];
        let whole = room.len();
        let mut frame = Frame::new(&mut room, whole).expect("room enough");
        prop_assert_eq!(message.write(&mut frame, at, Key::new(key)), Some(()));
        prop_assert_eq!(&room[at..at + LENGTH], &message.sealed(Key::new(key)));
        prop_assert!(room[..at].iter().chain(&room[at + LENGTH..]).all(|byte| *byte == 0x77));
    }

    #[test]
    fn a_flipped_bit_is_noticed(message in messages(), bit in 0..LENGTH * 8) {
        let mut bytes = message.sealed(Key::PUBLIC);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(open(&bytes, Key::PUBLIC), None);
    }

    #[test]
    fn another_key_opens_nothing(message in messages(), claims in claims(), key in any::<[u8; 16]>(), bit in 0..128_usize) {
        let mut other = key;
        other[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(open(&message.sealed(Key::new(key)), Key::new(other)), None);
        prop_assert_eq!(Claims::open(&claims.sealed(Key::new(key))[..], 0, Key::new(other)), None);
    }

    #[test]
    fn claims_survive_the_wire_and_nothing_else_passes_for_them(claims in claims(), bit in 0..CLAIMS_LENGTH * 8, message in messages()) {
        let sealed = claims.sealed(Key::PUBLIC);
        prop_assert_eq!(Claims::open(&sealed[..], 0, Key::PUBLIC), Some(claims));
        let mut damaged = sealed;
        damaged[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Claims::open(&damaged[..], 0, Key::PUBLIC), None);
        prop_assert_eq!(Claims::open(&sealed[..CLAIMS_LENGTH - 1], 0, Key::PUBLIC), None);
        prop_assert_eq!(Claims::open(&message.sealed(Key::PUBLIC)[..], 0, Key::PUBLIC), None);
    }

    #[test]
    fn no_bytes_make_it_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..120), at in 0..130_usize) {
        if let Some(kind) = Message::kind(&bytes[..], at) {
            let _ = Message::read(&bytes[..], at, kind);
        }
        prop_assert_eq!(Claims::open(&bytes[..], at, Key::PUBLIC), None);
    }

    #[test]
    fn a_set_holds_what_was_put_into_it(ids in proptest::collection::btree_set(any::<u8>(), 0..30)) {
        let mut set = RouterSet::default();
        prop_assert!(set.is_empty());
        ids.iter().for_each(|id| set.insert(*id));
        prop_assert_eq!((0..=255).filter(|id| set.contains(*id)).collect::<std::collections::BTreeSet<_>>(), ids);
    }

    #[test]
    fn priorities_are_what_was_set_last(sets in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..60)) {
        let mut priorities = Priorities::default();
        let mut expected = std::collections::BTreeMap::new();
        for (id, priority) in sets {
            priorities.set(id, priority);
            expected.insert(id, priority);
        }
        expected.retain(|_, priority| *priority != 0);
        for id in 0..=u8::MAX {
            prop_assert_eq!(priorities.get(id), expected.get(&id).copied());
            prop_assert_eq!(priorities.routers().contains(id), id != 0 && expected.contains_key(&id));
        }
    }

    #[test]
    fn a_promise_survives_its_word(interval in any::<u32>(), edition in any::<u32>()) {
        let promise = Promise { interval, edition };
        prop_assert_eq!(Promise::of(promise.word()), promise);
    }
}
