//! How long it takes to change everything: 1000 services over 10 000 backends.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Instant;

use vip_agent::config::{PortRange, Transport};
use vip_agent::dataplane::services::{Book, ServiceTables, Wanted, WantedBackend, Way};
use vip_agent::dataplane::{Dataplane, LoadOptions};
use vip_agent::types::MacAddr;
use vip_common::steering::maglev::RingSize;
use vip_common::steering::tables::{Closed, Mode};

const SERVICES: u16 = 1000;
const BACKENDS: u8 = 10;

/// A thousand services of ten backends each, those of network 10.`net`.
fn services(net: u8) -> Vec<Wanted> {
    let way = Way::Via { ifindex: 2, mac: MacAddr([2; 6]), own: MacAddr([4; 6]), mtu: 1500, source: None };
    let service = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let port = NonZeroU16::new(number + 1).expect("works");
        let backend = |host: u8| WantedBackend {
            address: IpAddr::from([10, net + high, low, host]),
            weight: 1,
            way: Some(way),
        };
        Wanted {
            name: format!("s{number}"),
            vip: IpAddr::from([10, 0, 0, 50]),
            ports: vec![PortRange::new(Transport::Tcp, port, port, port).expect("works")],
            mode: Mode::Direct,
            affinity: 0,
            no_backend: Closed::Reject,
            source_ranges: Vec::new(),
            backends: (1..=BACKENDS).map(backend).collect(),
        }
    };
    (0..SERVICES).map(service).collect()
}

#[test]
fn a_thousand_services_and_ten_thousand_backends_change_at_once() {
    sandbox::sandbox(|_| async { change_everything() });
}

fn change_everything() {
    let mut dataplane = Dataplane::load(&LoadOptions::default()).expect("works");
    dataplane.load_steering(RingSize::DEFAULT).expect("works");
    let tables = ServiceTables::open(&dataplane).expect("works");
    let mut book = Book::default();
    for (what, net) in [("filled", 16), ("all changed", 32), ("all changed again", 48)] {
        let wanted = services(net);
        let begun = Instant::now();
        let steps = book.plan(&wanted, |_, _| None).expect("works");
        let planned = begun.elapsed();
        tables.apply(steps).expect("works");
        println!("{what}: planned in {planned:?}, written after {:?}", begun.elapsed());
    }
    // What stands there is what another process would go on with.
    let indices = book.indices().map(|(name, index)| (name.to_owned(), index));
    let adopted = tables.adopt(indices).expect("works");
    for service in services(48) {
        assert!(adopted.holders(&service.name).eq(book.holders(&service.name)), "{}", service.name);
    }
    assert_eq!(tables.count_flows().expect("works"), Default::default());
    let begun = Instant::now();
    tables.count_flows().expect("works");
    println!("flows counted in {:?}; maps take {} MiB", begun.elapsed(), dataplane.map_memory() >> 20);
}
