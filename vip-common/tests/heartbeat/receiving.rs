//! What is believed: nothing twice, nothing out of order, nothing of strangers. The program's own tests are byte by byte.

use proptest::prelude::*;
use vip_common::heartbeat::{Key, Kind, Message, Received};
use vip_common::maps::{PeerWord, peer_slots};
use vip_common::reason::Reason;

use crate::common::frames::{FORMER, OWN, ethernet, padded};
use crate::common::world::{KEY, LINK, NODE, PEER, PEER_SLOT, World};

const GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 0x12];

fn frame(message: Message, key: Key) -> Vec<u8> {
    padded(ethernet(GROUP, FORMER, &[], 0x88b5, &message.sealed(key)), 60)
}

fn word(world: &World, word: PeerWord) -> u64 {
    world.peers.borrow()[&PEER_SLOT][word as usize]
}

fn received(reason: Reason) -> Option<Received> {
    Some(Received { link: LINK, reason })
}

proptest! {
    #[test]
    fn a_heartbeat_counts_if_it_is_later_than_all_before(times in proptest::collection::vec(0..50_u64, 1..60)) {
        let mut world = World::hearing();
        let mut latest = 0;
        for time in times {
            world.now += 1;
            let (outcome, _) = world.receive(&frame(Message { kind: Kind::Heartbeat, node: PEER, time, body: time }, KEY));
            if time > latest {
                latest = time;
                prop_assert_eq!(outcome, received(Reason::HeartbeatStamped));
                prop_assert_eq!(word(&world, PeerWord::Heard), world.now);
                prop_assert_eq!(word(&world, PeerWord::Promise), time);
            } else {
                prop_assert_eq!(outcome, received(Reason::HeartbeatStale));
                prop_assert_ne!(word(&world, PeerWord::Heard), world.now);
            }
            prop_assert_eq!(word(&world, PeerWord::Sent), latest);
        }
    }

    #[test]
    fn an_answer_counts_if_we_asked_later_than_for_all_before_and_not_in_the_future(
        asked in proptest::collection::vec(0..200_u64, 1..60),
    ) {
        let mut world = World::hearing();
        world.now = 0;
        let mut latest = 0;
        for time in asked {
            world.now += 3;
            let (outcome, _) = world.receive(&frame(Message { kind: Kind::Answer, node: PEER, time, body: NODE }, KEY));
            let counts = time > latest && time <= world.now;
            if counts {
                latest = time;
            }
            prop_assert_eq!(outcome, received(if counts { Reason::HeartbeatStamped } else { Reason::HeartbeatStale }));
            prop_assert_eq!(word(&world, PeerWord::Answered) == world.now, counts);
            prop_assert_eq!(word(&world, PeerWord::Asked), latest);
        }
    }

    #[test]
    fn the_answer_to_a_question_opens_with_the_key_and_names_both(node in any::<u64>(), time in any::<u64>(), body in any::<u64>()) {
        prop_assume!(node != NODE);
        let world = World::hearing();
        let (outcome, answer) = world.receive(&frame(Message { kind: Kind::Question, node, time, body }, KEY));
        prop_assert_eq!(outcome, received(Reason::HeartbeatAnswered));
        prop_assert_eq!((&answer[..6], &answer[6..12]), (&FORMER[..], &OWN[..]));
        let opened = Message::read(&answer[..], 14, Kind::Answer).and_then(|answer| answer.verify(KEY));
        prop_assert_eq!(opened, Some(Message { kind: Kind::Answer, node: NODE, time, body: node }));
        // What was answered is no question that would be answered again.
        prop_assert_eq!(world.receive(&answer).0, received(Reason::HeartbeatUnknown));
    }

    #[test]
    fn noise_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 14..120)) {
        let world = World::hearing();
        let before = world.peers.borrow().clone();
        let (_, after) = world.receive(&bytes);
        prop_assert_eq!(after, bytes);
        prop_assert_eq!(&*world.peers.borrow(), &before);
    }

    #[test]
    fn every_node_has_its_slots(node in any::<u64>()) {
        prop_assert!(peer_slots(node) + vip_common::maps::PEER_WAYS <= vip_common::maps::MAX_PEERS);
    }
}
