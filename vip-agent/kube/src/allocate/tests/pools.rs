//! Pools: those that overlap, change, and go.

use super::*;

#[test]
fn the_younger_of_two_pools_with_an_address_in_common_gives_nothing() {
    let mut store = Store::default();
    store.pool("old", 1, &["10.0.0.0/30"], json!({"autoAssign": false}));
    store.pool("young", 2, &["10.0.0.3-10.0.0.9"], json!({}));
    store.service("default/a", service(1)).settle();
    assert_eq!(store.given(), [""; 0]);
    assert!(store.is("young", "Conflict") && !store.is("young", "Ready") && store.is("old", "Ready"));
    assert_eq!(store.status("young").available, 0);
    // It is well again when they have none in common.
    store.edit("old", |pool| pool.spec.addresses = vec!["10.0.0.0-10.0.0.2".into()]);
    store.settle();
    assert_eq!(store.given(), ["10.0.0.3 default/a"]);
    assert!(!store.is("young", "Conflict"));
}

#[test]
fn an_address_that_a_younger_pool_has_given_is_not_given_again() {
    let mut store = Store::default();
    store.pool("young", 2, &["10.0.0.0/31"], json!({}));
    store.service("default/a", service(1)).settle();
    store.pool("old", 1, &["10.0.0.0/30"], json!({}));
    store.service("default/b", service(2)).service("default/c", service(3)).settle();
    assert_eq!(store.given(), ["10.0.0.1 default/b", "10.0.0.2 default/c", "10.0.0.0 default/a"]);
}

#[test]
fn before_the_younger_one_is_sealed_the_older_gives_nothing_that_both_have() {
    let mut store = Store::default();
    store.pool("old", 1, &["10.0.0.0/31"], json!({})).pool("young", 2, &["10.0.0.0"], json!({}));
    store.service("default/a", service(1)).service("default/b", service(2));
    let guards = plan(&store.cluster(), &settings(), &|_, _| true, NOW);
    guards
        .iter()
        .filter(|write| matches!(write, Write::Finalizers { .. }))
        .for_each(|write| assert!(store.apply(write)));
    let first = plan(&store.cluster(), &settings(), &|_, _| true, NOW);
    first.iter().filter(|write| matches!(write, Write::Status { pool, .. } if pool == "old")).for_each(
        |write| {
            assert!(store.apply(write));
        },
    );
    assert_eq!(store.given(), ["10.0.0.1 default/a"]);
    store.settle();
    assert_eq!(store.given(), ["10.0.0.1 default/a", "10.0.0.0 default/b"]);
}

#[test]
fn what_was_given_stays_when_the_pool_shrinks() {
    let mut store = Store::default();
    store.pool("edge", 1, &["10.0.0.0/30"], json!({}));
    store.service("default/a", service(1)).settle();
    store.edit("edge", |pool| pool.spec.addresses = vec!["10.0.0.2/31".into()]);
    store.service("default/b", service(2)).settle();
    assert_eq!(store.given(), ["10.0.0.0 default/a", "10.0.0.2 default/b"]);
    // And when it becomes what nobody understands.
    store.edit("edge", |pool| pool.spec.addresses = vec!["10.0.0.2/40".into()]);
    store.settle();
    assert_eq!(store.given().len(), 2);
    assert!(!store.is("edge", "Ready"));
}

#[test]
fn a_pool_that_is_deleted_gives_nothing_and_is_gone_with_its_last_address() {
    let mut store = Store::default();
    store.pool("edge", 1, &["10.0.0.0/30"], json!({}));
    store.service("default/a", service(1)).settle();
    store.delete_pool("edge");
    store.service("default/b", service(2)).settle();
    assert_eq!(store.given(), ["10.0.0.0 default/a"]);
    store.services.remove(&name("default/a"));
    store.settle();
    assert!(store.pools.is_empty());
}

#[test]
fn a_pool_that_nobody_uses_can_be_deleted_by_anybody() {
    let mut store = Store::default();
    store.pool("edge", 1, &["10.0.0.0/30"], json!({}));
    store.service("default/a", service(1)).settle();
    store.services.clear();
    store.settle();
    assert_eq!(store.pools["edge"].metadata.finalizers, Some(vec![]));
}

#[test]
fn no_more_are_given_than_an_object_can_hold() {
    let mut store = Store::default();
    store.pool("edge", 1, &["fd00::/64"], json!({}));
    for n in 0..=super::super::MOST {
        store.service(&format!("default/s{n}"), service(i64::try_from(n).unwrap()));
    }
    store.settle();
    assert_eq!(store.given().len(), super::super::MOST);
    assert!(store.is("edge", "Exhausted"));
}

#[test]
fn a_condition_changes_its_time_only_when_it_changes() {
    let mut store = Store::default();
    store.pool("edge", 1, &["10.0.0.0"], json!({})).settle();
    let later = "2026-02-02T00:00:00Z";
    store.service("default/a", service(1));
    for _ in 0..3 {
        let writes = plan(&store.cluster(), &settings(), &|_, _| true, later);
        writes.iter().for_each(|write| assert!(store.apply(write)));
    }
    let times = store.status("edge").conditions.into_iter().map(|one| (one.kind, one.last_transition_time));
    let expected = [("Ready", NOW), ("Conflict", NOW), ("Exhausted", later)];
    assert_eq!(times.collect::<Vec<_>>(), expected.map(|(kind, at)| (kind.to_owned(), at.to_owned())));
}
