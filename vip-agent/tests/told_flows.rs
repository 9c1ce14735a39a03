//! What peers say of flows, in the program's own tables: taken in, merged, refused, told on by the next owner, and swept.

#[path = "support/bpf.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod bpf;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use bpf::{Sandbox, unpinned};
use vip_agent::config::{PortRange, Transport};
use vip_agent::dataplane::services::{
    BackendSlot, Directory, Known, ServiceTables, SharedDirectory, ToldFlows,
};
use vip_agent::dataplane::{Dataplane, RouterSlot, XdpModeChoice};
use vip_agent::flow_sync::table::{Flow, FlowKey, FlowTable as _, Noted, Translation};
use vip_agent::types::MonotonicTime;
use vip_common::steering::full_nat::ports::Ports;
use vip_common::steering::maglev::RingSize;
use vip_common::steering::tables::{FlowState, Mode};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SECOND: Duration = Duration::from_secs(1);
/// What full NAT may use.
const FIRST_PORT: u16 = 20_000;

/// A node whose tables know a service of mode nat and one of mode dr on either VIP.
struct Node {
    dataplane: Dataplane,
    router: RouterSlot,
    tables: Arc<ServiceTables>,
    told: ToldFlows,
}

impl Node {
    fn run(test: impl FnOnce(&mut Self) + Send) {
        Sandbox::run(|_| test(&mut Self::new()));
    }

    fn new() -> Self {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).expect("load");
        dataplane.load_steering(RingSize::DEFAULT).expect("load steering");
        let router = dataplane.allocate_router().expect("a slot");
        let tables = Arc::new(ServiceTables::open(&dataplane).expect("open"));
        let directory = SharedDirectory::default();
        directory.set(known(router));
        let told = ToldFlows::new(Arc::clone(&tables), directory, dataplane.words());
        Self { dataplane, router, tables, told }
    }

    fn take_over(&self) {
        self.dataplane.words().store(self.router, MonotonicTime::now() + Duration::from_secs(3600));
    }

    /// All that it would tell, in the order of keys.
    fn telling(&mut self) -> Vec<Flow> {
        let mut flows = Vec::new();
        self.told.read(&mut |flow| flows.push(flow)).expect("read");
        flows.sort_by_key(|flow| flow.key);
        flows
    }

    /// Entries of `NAT_FLOWS` and of `NAT_RETURNS`.
    fn entries(&self) -> (usize, usize) {
        let map = |name: &str| {
            let map = self.dataplane.steering_map(name).expect("a map").try_clone_to_owned();
            Map::LruHashMap(MapData::from_fd(map.expect("an fd")).expect("a map"))
        };
        let flows: HashMap<_, [u8; 24], [u8; 56]> = HashMap::try_from(map("NAT_FLOWS")).expect("flows");
        let returns: HashMap<_, [u8; 40], [u8; 80]> = HashMap::try_from(map("NAT_RETURNS")).expect("returns");
        (flows.keys().count(), returns.keys().count())
    }
}

fn vip(v6: bool) -> IpAddr {
    if v6 { "fd00::50".parse().expect("an address") } else { [10, 0, 0, 50].into() }
}

fn backend(v6: bool, number: u8) -> IpAddr {
    if v6 { [0xfd00, 0, 0, 0, 0, 0, 1, u16::from(number)].into() } else { [10, 0, 1, number].into() }
}

fn ports(transport: Transport, port: u16) -> PortRange {
    let port = NonZeroU16::new(port).expect("a port");
    PortRange::new(transport, port, port, port).expect("a range")
}

/// Services 0 to 3: of each family port 80 by full NAT and port 81 by dr; 4: all other ports of UDP by full NAT.
fn known(router: RouterSlot) -> Directory {
    let slot = |number: u32| BackendSlot { number: NonZeroU32::new(number).expect("not 0"), generation: 7 };
    let mut services = BTreeMap::new();
    for (number, v6) in [(0, false), (1, true)] {
        let backends = |first: u32| -> BTreeMap<IpAddr, BackendSlot> {
            [1, 2].map(|host| (backend(v6, host), slot(first + u32::from(host)))).into()
        };
        let by = |mode, port, first| Known {
            vip: vip(v6),
            mode,
            ports: vec![ports(Transport::Tcp, port), ports(Transport::Udp, port)],
            backends: backends(first),
        };
        services.insert(2 * number, by(Mode::Nat, 80, 100 * u32::from(number)));
        services.insert(2 * number + 1, by(Mode::Direct, 81, 100 * u32::from(number) + 50));
    }
    let all = [(backend(false, 1), slot(500))].into();
    let ports = vec![PortRange::all(Transport::Udp)];
    services.insert(4, Known { vip: vip(false), mode: Mode::Nat, ports, backends: all });
    let allowed = Ports::new(FIRST_PORT..=FIRST_PORT + 999, &[]);
    let routers = [vip(false), vip(true)].map(|vip| (vip, router)).into();
    Directory { services, routers, ports: Some(allowed) }
}

/// A connection by full NAT from this port of a client, to the backend from that of ours.
fn flow(v6: bool, client_port: u16, own_port: u16) -> Flow {
    let client = if v6 { "2001:db8::9".parse().expect("an address") } else { [192, 0, 2, 9].into() };
    Flow {
        key: FlowKey { client, vip: vip(v6), client_port, vip_port: 80, protocol: TCP },
        backend: backend(v6, 1),
        translation: Some(Translation { own: vip(v6), own_port, backend_port: 8080 }),
        state: FlowState::Established,
        idle: 3 * SECOND,
    }
}

/// The same by dr.
fn direct(v6: bool, client_port: u16) -> Flow {
    let nat = flow(v6, client_port, FIRST_PORT);
    Flow { key: FlowKey { vip_port: 81, ..nat.key }, translation: None, ..nat }
}

fn ageless(flows: &[Flow]) -> Vec<Flow> {
    flows.iter().map(|flow| Flow { idle: Duration::ZERO, ..*flow }).collect()
}

#[test]
fn what_a_peer_told_the_next_owner_tells_as_it_was_and_no_backup_does() {
    Node::run(|node| {
        let all = flow(false, 40_003, FIRST_PORT + 3);
        let all = Flow { key: FlowKey { vip_port: 5000, protocol: UDP, ..all.key }, ..all };
        let closing =
            Flow { state: FlowState::Closing, backend: backend(true, 2), ..flow(true, 40_001, FIRST_PORT) };
        let mut flows =
            vec![flow(false, 40_000, FIRST_PORT), closing, all, direct(false, 40_000), direct(true, 40_002)];
        flows.sort_by_key(|flow| flow.key);
        for flow in &flows {
            assert_eq!(node.told.note(flow), Noted::Yes, "{flow:?}");
        }
        assert_eq!(node.telling(), [], "a backup");
        node.take_over();
        let told = node.telling();
        assert_eq!(ageless(&told), ageless(&flows));
        assert!(told.iter().all(|flow| (3 * SECOND..4 * SECOND).contains(&flow.idle)), "{told:?}");
    });
}

#[test]
fn a_flow_that_has_another_port_now_leaves_the_former_to_others_and_keeps_its_own() {
    Node::run(|node| {
        assert_eq!(node.told.note(&flow(false, 40_000, FIRST_PORT)), Noted::Yes);
        assert_eq!(node.told.note(&flow(false, 40_000, FIRST_PORT + 1)), Noted::Yes);
        assert_eq!(node.entries(), (1, 1));
        assert_eq!(node.told.note(&flow(false, 40_001, FIRST_PORT + 1)), Noted::Taken);
        assert_eq!(node.told.note(&flow(false, 40_001, FIRST_PORT)), Noted::Yes);
        // Another family has ports of its own.
        assert_eq!(node.told.note(&flow(true, 40_001, FIRST_PORT)), Noted::Yes);
        assert_eq!(node.entries(), (3, 3));
        node.take_over();
        let own = |flow: &Flow| flow.translation.map(|translation| translation.own_port);
        let told: Vec<_> = node.telling().iter().map(own).collect();
        assert_eq!(told, [Some(FIRST_PORT + 1), Some(FIRST_PORT), Some(FIRST_PORT)]);
    });
}

#[test]
fn a_port_whose_flow_was_never_answered_and_is_silent_is_given_to_a_peer_s() {
    Node::run(|node| {
        let abandoned =
            Flow { state: FlowState::Opening, idle: 11 * SECOND, ..flow(false, 40_000, FIRST_PORT) };
        assert_eq!(node.told.note(&abandoned), Noted::Yes);
        assert_eq!(node.told.note(&flow(false, 40_001, FIRST_PORT)), Noted::Yes);
        assert_eq!(node.entries(), (1, 1));
        node.take_over();
        assert_eq!(node.telling().first().map(|flow| flow.key.client_port), Some(40_001));
    });
}

#[test]
fn what_these_tables_cannot_check_or_know_better_is_refused_and_leaves_nothing() {
    Node::run(|node| {
        let good = flow(false, 40_000, FIRST_PORT);
        let key = good.key;
        let to = |own: IpAddr, own_port| Some(Translation { own, own_port, backend_port: 8080 });
        for (what, refused, why) in [
            ("a VIP", Flow { key: FlowKey { vip: [10, 0, 0, 51].into(), ..key }, ..good }, Noted::Unknown),
            ("a port", Flow { key: FlowKey { vip_port: 82, ..key }, ..good }, Noted::Unknown),
            ("a protocol", Flow { key: FlowKey { protocol: 132, ..key }, ..good }, Noted::Unknown),
            ("a backend", Flow { backend: backend(false, 3), ..good }, Noted::Unknown),
            ("the other family's", Flow { backend: backend(true, 1), ..good }, Noted::Unknown),
            ("another mode", Flow { translation: None, ..good }, Noted::Unknown),
            ("no mode nat", Flow { key: FlowKey { vip_port: 81, ..key }, ..good }, Noted::Unknown),
            (
                "an address of others",
                Flow { translation: to([10, 0, 0, 1].into(), FIRST_PORT), ..good },
                Noted::Unknown,
            ),
            ("a port of others", Flow { translation: to(vip(false), 443), ..good }, Noted::Taken),
            ("one that is over", Flow { idle: 8000 * SECOND, ..good }, Noted::Over),
        ] {
            assert_eq!(node.told.note(&refused), why, "{what}");
        }
        node.take_over();
        assert_eq!(node.told.note(&good), Noted::Own);
        assert_eq!((node.entries(), node.telling().len()), ((0, 0), 0));
    });
}

#[test]
fn a_flow_that_is_over_takes_both_its_entries_along_unless_it_is_this_node_s() {
    Node::run(|node| {
        let (nat, direct) = (flow(true, 40_000, FIRST_PORT), direct(true, 40_000));
        for flow in [nat, direct] {
            assert_eq!(node.told.note(&flow), Noted::Yes);
        }
        node.take_over();
        node.told.forget(&nat.key);
        assert_eq!(node.telling().len(), 2);
        node.dataplane.words().store(node.router, MonotonicTime::ZERO);
        node.told.forget(&nat.key);
        node.told.forget(&direct.key);
        assert_eq!(node.entries(), (0, 0));
        node.take_over();
        assert_eq!(node.telling(), []);
    });
}

#[test]
fn flows_that_are_silent_for_too_long_are_swept_with_both_their_entries_and_others_stay() {
    Node::run(|node| {
        let ended = |flow: Flow| {
            let life = Duration::from_nanos(flow.state.timeout(flow.key.protocol));
            Flow { idle: life - SECOND / 2, ..flow }
        };
        let udp = |port| {
            let flow = flow(false, port, port);
            Flow { key: FlowKey { protocol: UDP, ..flow.key }, ..flow }
        };
        let closing = Flow { state: FlowState::Closing, ..flow(false, 20_100, 20_100) };
        for flow in [ended(udp(20_001)), ended(closing), ended(flow(true, 20_002, 20_002))] {
            assert_eq!(node.told.note(&flow), Noted::Yes);
        }
        for flow in [udp(20_003), flow(false, 20_004, 20_004)] {
            assert_eq!(node.told.note(&flow), Noted::Yes);
        }
        node.tables.count_flows().expect("count");
        assert_eq!(node.entries(), (5, 5), "not before its time");
        std::thread::sleep(SECOND / 2);
        node.tables.count_flows().expect("count");
        assert_eq!(node.entries(), (2, 2));
    });
}
