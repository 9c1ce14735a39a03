//! Frames of fast detection: what is stamped, what is answered, and what is not believed.

use anyhow::Result;
use vip_agent::types::MonotonicTime;
use vip_common::heartbeat::{Claims, Key, Kind, Message, Owned, Promise, Succession};
use vip_common::maps::{Peer, PeerWord};

use crate::common::frames::*;
use crate::common::world::{INGRESS, KEY, NODE, PEER, PEER_SLOT, VLAN_100, World};
use crate::kernel::{Kernel, dropped, passed, transmitted};

const GROUP: Mac = [0x01, 0, 0x5e, 0, 0, 0x12];
const PROMISE: Promise = Promise { interval: 1000, edition: 7 };

fn heartbeat(time: u64) -> Message {
    Message { kind: Kind::Heartbeat, node: PEER, time, body: PROMISE.word() }
}

fn question() -> Message {
    Message { kind: Kind::Question, node: PEER, time: 5000, body: 0 }
}

fn answer(time: u64) -> Message {
    Message { kind: Kind::Answer, node: PEER, time, body: NODE }
}

/// The peer sends it to everyone.
fn frame(message: Message, key: Key) -> Vec<u8> {
    padded(ethernet(GROUP, FORMER, &[], 0x88b5, &message.sealed(key)), 60)
}

fn word(peer: Peer, word: PeerWord) -> u64 {
    peer[word as usize]
}

#[test]
fn a_heartbeat_is_stamped_and_ends_here() -> Result<()> {
    let kernel = Kernel::with(&World::hearing())?;
    let before = MonotonicTime::now().0;
    let frame = frame(heartbeat(77), KEY);
    assert_eq!(kernel.run(&frame)?, dropped(&frame, "heartbeat_stamped"));
    let peer = kernel.peer(PEER_SLOT)?;
    let heard = word(peer, PeerWord::Heard);
    assert!(before <= heard && heard <= MonotonicTime::now().0, "{before} {heard}");
    assert_eq!((word(peer, PeerWord::Sent), word(peer, PeerWord::Promise)), (77, PROMISE.word()));
    assert_eq!((word(peer, PeerWord::Asked), word(peer, PeerWord::Answered)), (0, 0));
    Ok(())
}

#[test]
fn an_answer_is_stamped_and_ends_here() -> Result<()> {
    let kernel = Kernel::with(&World::hearing())?;
    let asked = MonotonicTime::now().0;
    let frame = frame(answer(asked), KEY);
    assert_eq!(kernel.run(&frame)?, dropped(&frame, "heartbeat_stamped"));
    let peer = kernel.peer(PEER_SLOT)?;
    let answered = word(peer, PeerWord::Answered);
    assert!(asked <= answered && answered <= MonotonicTime::now().0, "{asked} {answered}");
    assert_eq!((word(peer, PeerWord::Asked), word(peer, PeerWord::Heard)), (asked, 0));
    Ok(())
}

#[test]
fn a_question_becomes_its_answer() -> Result<()> {
    let kernel = Kernel::with(&World::hearing())?;
    for tags in [vec![], vec![VLAN], vec![SERVICE_VLAN, VLAN_200]] {
        let asked = padded(ethernet(GROUP, STRANGER, &tags, 0x88b5, &question().sealed(KEY)), 64);
        let answer = Message { kind: Kind::Answer, node: NODE, time: 5000, body: PEER };
        let answered = padded(ethernet(STRANGER, OWN, &tags, 0x88b5, &answer.sealed(KEY)), 64);
        assert_eq!(kernel.run(&asked)?, transmitted(answered, "heartbeat_answered"));
    }
    Ok(())
}

#[test]
fn what_has_another_seal_is_dropped_and_changes_nothing() -> Result<()> {
    let kernel = Kernel::with(&World::hearing())?;
    for message in [heartbeat(77), question(), answer(5)] {
        let forged = frame(message, Key::PUBLIC);
        assert_eq!(kernel.run(&forged)?, dropped(&forged, "heartbeat_forged"));
    }
    let sound = ethernet(GROUP, FORMER, &[], 0x88b5, &heartbeat(77).sealed(KEY));
    // The node, the time, the body and the seal.
    for byte in 14 + 8..sound.len() {
        let mut damaged = sound.clone();
        damaged[byte] ^= 1;
        assert_eq!(kernel.run(&damaged)?, dropped(&damaged, "heartbeat_forged"), "byte {byte}");
    }
    assert_eq!(word(kernel.peer(PEER_SLOT)?, PeerWord::Heard), 0);
    Ok(())
}

#[test]
fn what_was_heard_before_is_dropped() -> Result<()> {
    let kernel = Kernel::with(&World::hearing())?;
    kernel.run(&frame(heartbeat(77), KEY))?;
    let heard = kernel.peer(PEER_SLOT)?;
    for time in [77, 76, 0] {
        let replayed = frame(heartbeat(time), KEY);
        assert_eq!(kernel.run(&replayed)?, dropped(&replayed, "heartbeat_stale"));
    }
    let now = MonotonicTime::now().0;
    kernel.run(&frame(answer(now), KEY))?;
    let answered = kernel.peer(PEER_SLOT)?;
    // The last one was asked in the future: not by us.
    for time in [now, now - 1, now + 3_600_000_000_000] {
        let replayed = frame(answer(time), KEY);
        assert_eq!(kernel.run(&replayed)?, dropped(&replayed, "heartbeat_stale"));
    }
    assert_eq!(word(answered, PeerWord::Heard), word(heard, PeerWord::Heard));
    assert_eq!(kernel.peer(PEER_SLOT)?, answered);
    let next = frame(heartbeat(78), KEY);
    assert_eq!(kernel.run(&next)?, dropped(&next, "heartbeat_stamped"));
    Ok(())
}

#[test]
fn strangers_and_answers_to_others_are_dropped() -> Result<()> {
    let kernel = Kernel::with(&World::hearing())?;
    let stranger = frame(Message { node: PEER + 1, ..heartbeat(77) }, KEY);
    let in_the_same_slots = frame(Message { node: PEER + (1 << 32), ..heartbeat(77) }, KEY);
    let to_another = frame(Message { body: NODE + 1, ..answer(5) }, KEY);
    let nobody = frame(Message { node: 0, ..heartbeat(77) }, KEY);
    // The peer, but not where it is followed.
    let elsewhere = ethernet(GROUP, FORMER, &[VLAN], 0x88b5, &heartbeat(77).sealed(KEY));
    for frame in [stranger, in_the_same_slots, to_another, nobody, elsewhere] {
        assert_eq!(kernel.run(&frame)?, dropped(&frame, "heartbeat_unknown"));
    }
    assert_eq!(word(kernel.peer(PEER_SLOT)?, PeerWord::Heard), 0);
    Ok(())
}

#[test]
fn a_peer_on_a_vlan_is_stamped_there() -> Result<()> {
    let kernel = Kernel::with(&World::hearing().with_peer(PEER_SLOT + 1, VLAN_100))?;
    let tagged = ethernet(GROUP, FORMER, &[VLAN], 0x88b5, &heartbeat(77).sealed(KEY));
    assert_eq!(kernel.run(&tagged)?, dropped(&tagged, "heartbeat_stamped"));
    assert_eq!(word(kernel.peer(PEER_SLOT)?, PeerWord::Heard), 0);
    assert_ne!(word(kernel.peer(PEER_SLOT + 1)?, PeerWord::Heard), 0);
    Ok(())
}

#[test]
fn our_own_question_and_one_from_nobody_get_no_answer() -> Result<()> {
    let kernel = Kernel::with(&World::hearing())?;
    let own = frame(Message { node: NODE, ..question() }, KEY);
    assert_eq!(kernel.run(&own)?, dropped(&own, "heartbeat_stale"));
    for nobody in [BROADCAST, [0; 6]] {
        let asked = ethernet(GROUP, nobody, &[], 0x88b5, &question().sealed(KEY));
        assert_eq!(kernel.run(&asked)?, dropped(&asked, "heartbeat_stale"));
    }
    Ok(())
}

#[test]
fn claims_and_what_is_not_ours_go_up() -> Result<()> {
    let kernel = Kernel::with(&World::hearing())?;
    let claims = Claims {
        node: PEER,
        time: 1,
        promise: PROMISE,
        owned: Owned::default(),
        succession: Succession::default(),
    };
    let claims = ethernet(GROUP, FORMER, &[], 0x88b5, &claims.sealed(KEY));
    let sound = ethernet(GROUP, FORMER, &[], 0x88b5, &heartbeat(77).sealed(KEY));
    let mut frames = vec![claims, sound[..sound.len() - 1].to_vec(), sound[..20].to_vec()];
    // Another word, version, kind; something in the reserved bytes.
    for byte in 14..14 + 8 {
        let mut other = sound.clone();
        other[byte] ^= 0x80;
        frames.push(other);
    }
    frames.push(ethernet(GROUP, FORMER, &[UNKNOWN_VLAN], 0x88b5, &heartbeat(77).sealed(KEY)));
    for frame in frames {
        assert_eq!(kernel.run(&frame)?, passed(&frame, &[]));
    }
    Ok(())
}

#[test]
fn where_nothing_is_detected_all_goes_up() -> Result<()> {
    let kernel = Kernel::with(&World::owning().with_peer(PEER_SLOT, INGRESS))?;
    for message in [heartbeat(77), question(), answer(5)] {
        let frame = frame(message, KEY);
        assert_eq!(kernel.run(&frame)?, passed(&frame, &[]));
    }
    Ok(())
}
