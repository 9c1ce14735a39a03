//! What agent and program share: ownership words, VIP tables, counters, events; and what it all costs.

#[path = "support/bpf.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod bpf;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use bpf::{ArpClient, Loaded, NIC, Sandbox, VIP, VIP_MAC, ifindex, unpinned};
use futures_util::StreamExt;
use vip_agent::dataplane::{Dataplane, XdpModeChoice};
use vip_agent::types::{MacAddr, MonotonicTime};
use vip_common::maps::{MAX_VIPS, Vip, VlanKey};
use vip_common::reason::Reason;

const HOUR: Duration = Duration::from_secs(3600);

/// A dataplane on [`NIC`] that owns [`VIP`] for an hour.
fn in_charge(test: impl FnOnce(&mut Dataplane) + Send) {
    Sandbox::run(|_| {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).expect("load");
        dataplane.start();
        test(&mut dataplane);
    });
}

/// A dataplane that is attached to nothing.
fn idle(test: impl FnOnce(&mut Dataplane) + Send) {
    Sandbox::run(|_| test(&mut Dataplane::load(&unpinned(XdpModeChoice::Auto)).expect("load")));
}

fn packets(dataplane: &Dataplane, reason: Reason) -> u64 {
    let counters = dataplane.counters().expect("counters");
    let nic = ifindex(NIC);
    counters
        .iter()
        .find(|counter| counter.ifindex == nic && counter.reason == reason)
        .expect("a counter")
        .packets
}

#[test]
fn one_stored_word_decides_who_answers() {
    Sandbox::run(|_| {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        let router = dataplane.serve(HOUR);
        dataplane.attach_to(NIC);
        let (words, client) = (dataplane.words(), ArpClient::new());
        assert_eq!(client.ask(VIP), Some(VIP_MAC));
        words.store(router, MonotonicTime::ZERO);
        assert!(client.nobody_has(VIP));
        words.store(router, MonotonicTime::now() + HOUR);
        assert_eq!(client.ask(VIP), Some(VIP_MAC));
    });
}

#[test]
fn a_deadline_passes_by_itself() {
    Sandbox::run(|_| {
        let mut dataplane = Dataplane::load(&unpinned(XdpModeChoice::Auto)).unwrap();
        let router = dataplane.serve(HOUR);
        dataplane.attach_to(NIC);
        let until = MonotonicTime::now() + Duration::from_millis(50);
        dataplane.words().cap(router, until);
        std::thread::sleep(Duration::from_millis(60));
        assert!(ArpClient::new().nobody_has(VIP));
    });
}

#[test]
fn a_cap_shortens_and_never_prolongs() {
    idle(|dataplane| {
        let (router, words) = (dataplane.allocate_router().unwrap(), dataplane.words());
        words.store(router, MonotonicTime(1000));
        words.cap(router, MonotonicTime(2000));
        assert_eq!(words.load(router), MonotonicTime(1000));
        words.cap(router, MonotonicTime(500));
        assert_eq!(words.load(router), MonotonicTime(500));
    });
}

#[test]
fn words_of_different_routers_do_not_touch() {
    idle(|dataplane| {
        let routers: Vec<_> = (0..5).map(|_| dataplane.allocate_router().unwrap()).collect();
        let words = dataplane.words();
        for (nth, router) in (1..).zip(&routers) {
            words.store(*router, MonotonicTime(nth));
            words.hand_over(*router, MacAddr([2, 0, 0, 0, 0, 7]), MonotonicTime(10 * nth));
        }
        for (nth, router) in (1..).zip(&routers) {
            assert_eq!(words.load(*router), MonotonicTime(nth));
            let handover = (MacAddr([2, 0, 0, 0, 0, 7]), MonotonicTime(10 * nth));
            assert_eq!(words.handing_over(*router), handover);
        }
    });
}

#[test]
fn a_freed_slot_comes_back_silent() {
    idle(|dataplane| {
        let (router, words) = (dataplane.allocate_router().unwrap(), dataplane.words());
        words.store(router, MonotonicTime::NEVER);
        words.hand_over(router, VIP_MAC, MonotonicTime::NEVER);
        dataplane.free_router(router);
        assert_eq!(dataplane.allocate_router().unwrap(), router);
        assert_eq!(words.load(router), MonotonicTime::ZERO);
        assert_eq!(words.handing_over(router), (MacAddr::default(), MonotonicTime::ZERO));
    });
}

#[test]
fn vips_of_both_families_are_read_back_and_removed() {
    idle(|dataplane| {
        let vip = Vip { router: 3, link: 1, mac: VIP_MAC.0, answering: VIP_MAC.0, flags: 1 };
        for address in [IpAddr::V4(VIP), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            assert_eq!(dataplane.vip(7, address).unwrap(), None);
            dataplane.insert_vip(7, address, vip).unwrap();
            assert_eq!(dataplane.vip(7, address).unwrap(), Some(vip));
            assert_eq!(dataplane.vip(8, address).unwrap(), None, "another interface");
            dataplane.remove_vip(7, address).unwrap();
            assert_eq!(dataplane.vip(7, address).unwrap(), None);
            dataplane.remove_vip(7, address).expect("removing twice is fine");
        }
    });
}

#[test]
fn a_full_table_says_how_many_fit() {
    idle(|dataplane| {
        let vip = Vip { router: 0, link: 0, mac: VIP_MAC.0, answering: VIP_MAC.0, flags: 0 };
        let mut insert = |nth: u32| dataplane.insert_vip(1, IpAddr::V4(nth.into()), vip);
        for nth in 0..MAX_VIPS {
            insert(nth).unwrap();
        }
        let error = insert(MAX_VIPS).unwrap_err().to_string();
        assert_eq!(error, format!("no room for another VIP: at most {MAX_VIPS}"));
    });
}

#[test]
fn vlans_are_inserted_and_removed() {
    idle(|dataplane| {
        let tag = VlanKey { parent: 2, outer: 100, inner: 0 };
        dataplane.insert_vlan(tag, 5).unwrap();
        dataplane.remove_vlan(tag).unwrap();
        dataplane.remove_vlan(tag).expect("removing twice is fine");
    });
}

#[test]
fn a_removed_vip_is_an_ordinary_address_again() {
    in_charge(|dataplane| {
        dataplane.remove_vip(ifindex(NIC), VIP.into()).unwrap();
        assert!(ArpClient::new().nobody_has(VIP));
        assert_eq!(packets(dataplane, Reason::ArpNotOwned), 0, "the question went up the stack");
    });
}

#[test]
fn a_vip_goes_on_answering_when_its_twin_on_another_interface_is_removed() {
    in_charge(|dataplane| {
        let nic = ifindex(NIC);
        let twin = dataplane.vip(nic, VIP.into()).unwrap().unwrap();
        dataplane.insert_vip(nic + 1, VIP.into(), twin).unwrap();
        dataplane.insert_vip(nic + 1, VIP.into(), twin).expect("inserting twice is an update");
        dataplane.remove_vip(nic + 1, VIP.into()).unwrap();
        assert_eq!(ArpClient::new().ask(VIP), Some(VIP_MAC));
    });
}

#[test]
fn answers_and_refusals_are_counted_apart() {
    in_charge(|dataplane| {
        let client = ArpClient::new();
        for _ in 0..3 {
            client.ask(VIP).unwrap();
        }
        assert_eq!(packets(dataplane, Reason::ArpAnswered), 3);
        assert_eq!(packets(dataplane, Reason::ArpNotOwned), 0);
    });
}

#[test]
fn counters_start_anew_with_each_attachment() {
    in_charge(|dataplane| {
        ArpClient::new().ask(VIP).unwrap();
        dataplane.detach(ifindex(NIC)).unwrap();
        assert_eq!(dataplane.counters().unwrap(), []);
        dataplane.attach_to(NIC);
        assert_eq!(packets(dataplane, Reason::ArpAnswered), 0);
    });
}

#[test]
fn a_station_that_claims_an_owned_vip_is_reported() {
    in_charge(|dataplane| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let event = runtime.block_on(async {
            let mut events = dataplane.take_events().unwrap().into_stream().unwrap();
            ArpClient::new().claim(VIP);
            tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap().unwrap()
        });
        assert_eq!((event.ifindex, event.family, event.mac), (ifindex(NIC), 4, ArpClient::MAC.0));
        assert_eq!(event.address[..4], VIP.octets());
        assert!(event.at <= MonotonicTime::now().0);
        assert!(dataplane.take_events().is_none(), "there is one reader");
    });
}

#[test]
fn the_stream_wakes_for_an_event_that_comes_later() {
    in_charge(|dataplane| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = ArpClient::new();
        runtime.block_on(async {
            let mut events = dataplane.take_events().unwrap().into_stream().unwrap();
            for _ in 0..2 {
                let quiet = tokio::time::timeout(Duration::from_millis(150), events.next()).await;
                assert!(quiet.is_err(), "{quiet:?}");
                client.claim(VIP);
                tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap().unwrap();
            }
        });
    });
}

#[test]
fn map_memory_is_known_and_bounded() {
    idle(|dataplane| {
        let bytes = dataplane.map_memory();
        println!("map memory: {bytes} bytes");
        assert!((1 << 20..32 << 20).contains(&bytes), "{bytes}");
    });
}

#[test]
fn the_verifier_tells_how_many_instructions_it_went_through() {
    idle(|dataplane| assert!(dataplane.verified_instructions().unwrap() > 0));
}

/// Of the agent's 12 MiB, what the BPF side may leave on heap and stacks, without the binary's own pages.
const HEAP_BUDGET_KIB: u64 = 1024;
/// And what the whole process may take at its peak, while the object is parsed.
const PEAK_BUDGET_KIB: u64 = 12 * 1024;

#[test]
fn loading_stays_within_the_memory_of_a_small_agent() {
    Sandbox::run(|sandbox| {
        let loader = sandbox.loader(true);
        let (anonymous, peak) = (loader.memory_kib("RssAnon"), loader.memory_kib("VmHWM"));
        println!("anonymous memory {anonymous} KiB, peak resident {peak} KiB");
        assert!(anonymous < HEAP_BUDGET_KIB, "{anonymous} KiB");
        assert!(peak < PEAK_BUDGET_KIB, "{peak} KiB");
    });
}

#[test]
#[ignore = "a process of the tests above"]
fn a_loader_for_the_tests_to_kill() {
    bpf::be_the_loader();
}
