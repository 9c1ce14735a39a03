use std::time::Duration;

use vip_common::steering::tables::FlowState;

use super::super::changes::{Changes, Cursor, IN_FLIGHT, MAX_FLOWS};
use super::super::table::Flow;
use super::{at, flow, key};
use crate::types::MonotonicTime;

fn read(changes: &mut Changes, flows: &[Flow], now: MonotonicTime) {
    changes.begin();
    flows.iter().for_each(|flow| changes.note(flow, now));
    changes.end(now, |_| true);
}

/// All that a cursor has to say, acknowledged at once.
fn told(cursor: &mut Cursor, changes: &Changes, now: MonotonicTime) -> u16 {
    let mut told = 0;
    while let Some((batch, _, upto)) = cursor.next(changes, now) {
        told += batch.len();
        cursor.acknowledge(upto, now);
    }
    told
}

#[test]
fn a_flow_is_told_when_it_is_new_other_or_over_and_now_and_then_while_it_lives() {
    let (mut changes, mut cursor) = (Changes::default(), Cursor::default());
    read(&mut changes, &[flow(1), flow(2)], at(0));
    assert_eq!(told(&mut cursor, &changes, at(0)), 2);
    let active = |number| Flow { idle: Duration::ZERO, ..flow(number) };
    read(&mut changes, &[active(1), flow(2)], at(30_000));
    assert_eq!(told(&mut cursor, &changes, at(30_000)), 0, "nothing that a peer needs");
    let idle = Flow { idle: Duration::from_secs(64), ..flow(2) };
    read(&mut changes, &[active(1), idle], at(60_000));
    assert_eq!(told(&mut cursor, &changes, at(60_000)), 1, "the one that lives");
    read(&mut changes, &[Flow { state: FlowState::Closing, ..active(1) }, idle], at(60_001));
    assert_eq!(told(&mut cursor, &changes, at(60_001)), 1);
    read(&mut changes, &[idle], at(60_002));
    assert_eq!(told(&mut cursor, &changes, at(60_002)), 1, "the one that is over");
    read(&mut changes, &[idle], at(60_003));
    assert_eq!(told(&mut cursor, &changes, at(60_003)), 0, "once");
    read(&mut changes, &[idle], at(120_002));
    assert_eq!(changes.len(), 1, "who is over is forgotten in the end");
}

#[test]
fn what_another_node_owns_now_is_forgotten_and_not_told_to_be_over() {
    let (mut changes, mut cursor) = (Changes::default(), Cursor::default());
    read(&mut changes, &[flow(1), flow(2)], at(0));
    told(&mut cursor, &changes, at(0));
    changes.begin();
    changes.end(at(1), |_| false);
    assert_eq!((told(&mut cursor, &changes, at(1)), changes.len()), (0, 0));
}

#[test]
fn a_peer_that_comes_later_hears_each_flow_once_as_it_is_now() {
    let mut changes = Changes::default();
    for _ in 0..3 {
        read(&mut changes, &[Flow { state: FlowState::Opening, ..flow(1) }, flow(2)], at(0));
        read(&mut changes, &[flow(1), flow(2)], at(0));
    }
    assert_eq!(told(&mut Cursor::default(), &changes, at(0)), 2);
}

#[test]
fn what_is_not_acknowledged_is_told_again_and_no_more_than_so_much_waits_for_that() {
    let mut changes = Changes::default();
    let flows: Vec<Flow> = (0..3000).map(flow).collect();
    read(&mut changes, &flows, at(0));
    let mut cursor = Cursor::default();
    let mut said = Vec::new();
    while let Some((_, base, upto)) = cursor.next(&changes, at(0)) {
        said.push((base, upto));
    }
    assert_eq!(said.len(), IN_FLIGHT);
    // All but the first two are lost.
    cursor.acknowledge(said[1].1, at(10));
    assert_eq!(cursor.behind(&changes), 3000 - said[1].1);
    let next = cursor.next(&changes, at(10)).unwrap();
    assert_eq!(next.1, said[IN_FLIGHT - 1].1, "it goes on meanwhile");
    let again = cursor.next(&changes, at(300)).unwrap();
    assert_eq!((again.1, again.2), said[2]);
    // What was never said, or was acknowledged before, moves nothing.
    cursor.acknowledge(3000, at(300));
    cursor.acknowledge(said[0].1, at(300));
    assert_eq!(cursor.behind(&changes), 3000 - said[1].1);
}

#[test]
fn there_is_a_bound_and_what_is_beyond_it_is_counted() {
    let mut changes = Changes::default();
    let flows: Vec<Flow> = (0..=u16::MAX)
        .map(flow_of)
        .chain(
            (0..100)
                .map(|number| Flow { key: super::FlowKey { vip_port: 81, ..key(number) }, ..flow(number) }),
        )
        .collect();
    read(&mut changes, &flows, at(0));
    assert_eq!((changes.len(), changes.untold()), (MAX_FLOWS, 100));
    // Where one ends another has its place.
    read(&mut changes, &flows[1..], at(0));
    read(&mut changes, &flows[1..], at(60_001));
    read(&mut changes, &flows[1..], at(60_002));
    assert_eq!((changes.len(), changes.untold()), (MAX_FLOWS, 99));
}

fn flow_of(number: u16) -> Flow {
    Flow { key: key(number), ..flow(number % 1000) }
}
