//! Two that both believe to lead, by views of different age, in any order.

use proptest::prelude::*;

use super::super::FINALIZER;
use super::*;

/// One step of anybody.
#[derive(Clone, Debug)]
enum Step {
    /// A leader sees the pools as they are, or the Services.
    SeePools(usize),
    SeeServices(usize),
    /// A leader plans by what it has seen.
    Plan(usize),
    /// All three.
    Look(usize),
    /// One of the writes that it has planned reaches the server.
    Write(usize, prop::sample::Index),
    /// A leader begins anew, and knows nothing of what it had planned.
    Restart(usize),
    Create(i64),
    Delete(i64),
    Pool(usize, usize),
    Drop(usize),
}

const POOLS: [&str; 3] = ["a", "b", "c"];
/// Few addresses, in pools that overlap or do not.
const RANGES: [&str; 4] = ["10.0.0.0/31", "10.0.0.1-10.0.0.2", "10.0.0.2/31", "10.0.0.0/30"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let leader = 0..2_usize;
    let step = prop_oneof![
        1 => leader.clone().prop_map(Step::SeePools),
        1 => leader.clone().prop_map(Step::SeeServices),
        1 => leader.clone().prop_map(Step::Plan),
        6 => leader.clone().prop_map(Step::Look),
        8 => (leader.clone(), any::<prop::sample::Index>()).prop_map(|(who, which)| Step::Write(who, which)),
        1 => leader.prop_map(Step::Restart),
        3 => (0..6_i64).prop_map(Step::Create),
        2 => (0..6_i64).prop_map(Step::Delete),
        3 => (0..POOLS.len(), 0..RANGES.len()).prop_map(|(pool, range)| Step::Pool(pool, range)),
        1 => (0..POOLS.len()).prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 0..60)
}

/// What one of them knows and has planned.
#[derive(Debug, Default)]
struct Leader {
    cluster: Cluster,
    writes: Vec<Write>,
}

impl Leader {
    fn plan(&mut self) {
        self.writes = plan(&self.cluster, &settings(), &|_, _| true, NOW);
    }
}

fn play(steps: Vec<Step>) -> Result<Store, TestCaseError> {
    let (mut store, mut leaders) = (Store::default(), [Leader::default(), Leader::default()]);
    for step in steps {
        match step {
            Step::SeePools(who) => leaders[who].cluster.pools = store.cluster().pools,
            Step::SeeServices(who) => leaders[who].cluster.services = store.cluster().services,
            Step::Plan(who) => leaders[who].plan(),
            Step::Look(who) => {
                leaders[who].cluster = store.cluster();
                leaders[who].plan();
            }
            Step::Write(who, which) => {
                if !leaders[who].writes.is_empty() {
                    let index = which.index(leaders[who].writes.len());
                    let write = leaders[who].writes.remove(index);
                    store.apply(&write);
                }
            }
            Step::Restart(who) => leaders[who] = Leader::default(),
            Step::Create(n) => drop(store.services.insert(name(&format!("default/s{n}")), service(n))),
            Step::Delete(n) => drop(store.services.remove(&name(&format!("default/s{n}")))),
            Step::Pool(pool, range) => {
                let (name, range) = (POOLS[pool], RANGES[range]);
                match store.pools.contains_key(name) {
                    true => store.edit(name, |pool| pool.spec.addresses = vec![range.to_owned()]),
                    false => {
                        store.pool(name, i64::try_from(pool).unwrap(), &[range], json!({}));
                        // Most races are about what comes after that.
                        store.edit(name, |pool| pool.metadata.finalizers = Some(vec![FINALIZER.to_owned()]));
                    }
                }
            }
            Step::Drop(pool) => store.delete_pool(POOLS[pool]),
        }
        prop_assert_eq!(twice(&store), Vec::<IpAddr>::new(), "{:#?}", store.pools);
    }
    Ok(store)
}

/// Many in the long suites.
fn cases() -> u32 {
    if std::env::var_os("VIPLANE_FULL").is_some() { 4096 } else { 256 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_ever_given_twice(steps in steps()) {
        play(steps)?;
    }

    /// Whatever was done by whomever, one leader puts it in order.
    #[test]
    fn who_can_have_an_address_gets_one_in_the_end(steps in steps()) {
        let mut store = play(steps)?;
        store.settle();
        prop_assert_eq!(twice(&store), Vec::<IpAddr>::new());
        let cluster = store.cluster();
        let has_one = |uid: &str| cluster.pools.values().any(|pool| pool.assignments.iter().any(|one| one.holder.uid == uid));
        let waiting = cluster.services.values().filter(|service| !has_one(&service.age.uid)).count();
        let free: i64 = store.pools.keys().map(|name| store.status(name).available).sum();
        prop_assert!(waiting == 0 || free == 0, "{waiting} wait, {free} are free: {:#?}", store.pools);
        let holders = cluster.pools.values().flat_map(|pool| &pool.assignments);
        for one in holders {
            prop_assert!(cluster.services.contains_key(&one.holder.name) && !one.released, "{one:?}");
        }
    }
}
