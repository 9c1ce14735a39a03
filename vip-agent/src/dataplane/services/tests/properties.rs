//! Whatever changes follow each other, in whatever order.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use vip_common::steering::tables::Mode;

use super::super::wanted::{Wanted, WantedBackend, Way};
use super::world::{Rig, address, port, service, via};

/// Services by name, each with what it has: its first port, mode, backends with weight and way, and a range.
fn wanted() -> impl Strategy<Value = Vec<Wanted>> {
    let way = prop_oneof![3 => (1..4_u8).prop_map(|mac| Some(via(mac))), 1 => Just(None), 1 => Just(Some(Way::Here))];
    let backend = (select(vec![0_u16, 1, 3]), way);
    let modes = select(vec![Mode::Local, Mode::Direct, Mode::Nat]);
    let what = (modes, 1..4_u16, btree_map(1..6_u8, backend, 0..5), any::<bool>());
    btree_map(0..5_u16, what, 0..5).prop_map(|services| {
        let made = services.into_iter().map(|(number, (mode, ports, backends, restricted))| Wanted {
            mode,
            // Neighbours in number may have each other's ports in another configuration, never in one.
            ports: (0..ports).map(|more| port(number * 3 + more + 1)).collect(),
            source_ranges: if restricted { vec!["10.0.0.0/8".parse().expect("a range")] } else { Vec::new() },
            backends: match mode {
                Mode::Local => Vec::new(),
                _ => backends
                    .into_iter()
                    .map(|(host, (weight, way))| WantedBackend { address: address(host), weight, way })
                    .collect(),
            },
            ..service(&format!("s{}", number % 4 * 7 + u16::from(number == 4)), 1, &[])
        });
        made.collect()
    })
}

proptest! {
    /// At no moment does something point to what is not there; in the end everything is as it is wanted; and then nothing
    /// is written any more.
    #[test]
    fn every_way_from_one_set_to_another_is_safe_at_each_write(sets in vec((wanted(), any::<bool>(), any::<bool>()), 1..6)) {
        let mut rig = Rig::default();
        for (wanted, drained, failed) in sets {
            if failed {
                rig.book.distrust();
            }
            rig.go(&wanted);
            if drained {
                let steps = rig.book.release(rig.book.epoch(), |_| false);
                rig.world.apply(&steps);
                prop_assert!(!rig.book.is_draining());
            }
            prop_assert_eq!(rig.go(&wanted), []);
        }
    }
}
