use std::time::Duration;

use bolero::check;
use proptest::prelude::*;
use vip_common::steering::tables::FlowState;

use super::super::codec::{Batch, Change, LARGEST, Message, Refused};
use super::super::table::{Flow, FlowKey, Translation};
use super::{flow, key, keys, nonce};
use crate::vrrp::trailer::KeyRing;

fn message(changes: Vec<Change>) -> Message {
    Message { from: nonce(1), to: Some(nonce(2)), sequence: 3, acknowledged: 4, base: 5, upto: 6, changes }
}

/// How long random inputs are tried.
fn time() -> Duration {
    Duration::from_secs(if std::env::var_os("VIPLANE_FULL").is_some() { 60 } else { 2 })
}

#[test]
fn any_datagram_is_read_to_what_would_be_written_again_or_refused() {
    let keys = keys();
    check!(name = "flows").with_test_time(time()).with_iterations(usize::MAX).with_max_len(LARGEST).for_each(
        |body: &[u8]| {
            let _ = Message::open(body, &keys);
            // Random bytes are not signed.
            let mut signed = b"VPF1".to_vec();
            signed.extend(keys.signing_id());
            signed.extend(body);
            signed.extend(keys.digest(b"viplane flows 1\0", &signed));
            if let Ok(message) = Message::open(&signed, &keys) {
                assert_eq!(message.sealed(&keys), signed);
            }
        },
    );
}

#[test]
fn a_datagram_is_as_long_as_it_says_and_never_too_long() {
    let mut batch = Batch::default();
    let count = (0..).take_while(|number| batch.push(&Change::Noted(flow(*number)))).count();
    assert_eq!(count, 37, "of IPv4, with full NAT");
    let bytes = message(Vec::new()).sealed_with(&batch, &keys());
    assert!(bytes.len() <= LARGEST);
    assert_eq!(Message::open(&bytes, &keys()).unwrap().changes.len(), count);
}

#[test]
fn what_was_changed_on_the_way_or_signed_by_another_is_refused() {
    let bytes = message(vec![Change::Noted(flow(1)), Change::Gone(key(2))]).sealed(&keys());
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let expected = match at {
            0..4 => Refused::Malformed,
            4..8 => Refused::UnknownKey,
            _ => Refused::BadSignature,
        };
        assert_eq!(Message::open(&changed, &keys()), Err(expected), "byte {at}");
        assert!(Message::open(&bytes[..at], &keys()).is_err(), "cut off at {at}");
    }
    let others = KeyRing::parse(&"77".repeat(32)).unwrap();
    assert_eq!(Message::open(&bytes, &others), Err(Refused::UnknownKey));
}

#[test]
fn both_keys_of_a_rotation_are_believed() {
    let (old, new) = ("5e".repeat(32), "77".repeat(32));
    let both = KeyRing::parse(&format!("{new}\n{old}")).unwrap();
    for ring in [keys(), KeyRing::parse(&new).unwrap(), both.clone()] {
        assert!(Message::open(&message(Vec::new()).sealed(&ring), &both).is_ok());
    }
}

fn flows() -> impl Strategy<Value = Flow> {
    let protocol = prop_oneof![Just(6_u8), Just(17), Just(132)];
    let state = prop_oneof![Just(FlowState::Opening), Just(FlowState::Established), Just(FlowState::Closing)];
    let addresses = prop_oneof![
        any::<[[u8; 4]; 4]>().prop_map(|all| all.map(std::net::IpAddr::from)),
        any::<[[u8; 16]; 4]>().prop_map(|all| all.map(std::net::IpAddr::from)),
    ];
    let rest = (protocol, state, any::<u32>(), any::<bool>());
    (addresses, any::<[u16; 4]>(), rest).prop_map(
        |([client, vip, backend, own], [client_port, vip_port, own_port, backend_port], rest)| {
            let (protocol, state, idle, translated) = rest;
            let translation = translated.then_some(Translation { own, own_port, backend_port });
            let key = FlowKey { client, vip, client_port, vip_port, protocol };
            Flow { key, backend, translation, state, idle: Duration::from_millis(idle.into()) }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        changes in prop::collection::vec((flows(), any::<bool>()), 0..12), numbers in any::<[u64; 3]>(), to in any::<u64>()
    ) {
        let changes = changes.into_iter().map(|(flow, gone)| if gone { Change::Gone(flow.key) } else { Change::Noted(flow) });
        let message = Message {
            to: super::Nonce::new(to),
            sequence: numbers[0],
            acknowledged: numbers[1],
            base: numbers[2] / 2,
            upto: numbers[2],
            ..message(changes.collect())
        };
        let bytes = message.sealed(&keys());
        prop_assert!(bytes.len() <= LARGEST);
        prop_assert_eq!(Message::open(&bytes, &keys()), Ok(message));
    }
}
