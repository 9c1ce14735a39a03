//! VIPs on lo: ours alone are touched, and they go away when nobody renews them.

#[path = "support/sandbox.rs"]
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{Sandbox, eventually, sandbox};
use vip_agent::net::Rtnetlink;
use vip_agent::net::addresses::{ADDRESS_PROTOCOL, AddressError, Lifetime, LocalAddresses, Staged};
use vip_agent::net::journal::Journal;
use vip_agent::net::links::LinkTable;

const LO: u32 = 1;
const V4: &str = "10.0.0.50";
const V6: &str = "fd00::50";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn journal(host: &Sandbox) -> Arc<Journal> {
    Arc::new(Journal::open(host.dir()).expect("a journal"))
}

fn start(host: &Sandbox) -> LocalAddresses {
    LocalAddresses::start(journal(host), Lifetime::default()).expect("netlink")
}

async fn add(addresses: &LocalAddresses, vips: &[IpAddr]) -> Vec<Staged> {
    let outcomes = addresses.add(vips).await.expect("netlink");
    outcomes.into_values().map(|outcome| outcome.expect("an address")).collect()
}

async fn remove(addresses: &LocalAddresses, vips: &[IpAddr]) {
    for (vip, outcome) in addresses.remove(vips).await.expect("netlink") {
        outcome.unwrap_or_else(|error| panic!("{vip}: {error}"));
    }
}

/// What Debian 12's `ip` does not show.
async fn protocol_of(vip: IpAddr) -> u8 {
    let rtnetlink = Rtnetlink::connect().expect("netlink");
    let table = LinkTable::read(&rtnetlink).await.expect("links");
    let (_, address) = table.holders(vip).next().expect("the address");
    address.protocol
}

fn on_lo(host: &Sandbox, vip: &str) -> bool {
    host.ip("-o address show dev lo").contains(&format!(" {vip}/"))
}

#[test]
fn an_ipv4_vip_is_a_host_scope_32_with_a_short_life() {
    sandbox(async |host: Sandbox| {
        let addresses = start(&host);
        assert_eq!(add(&addresses, &[ip(V4)]).await, [Staged::Ours]);
        let shown = host.ip("-d -o -4 address show dev lo to 10.0.0.50");
        assert!(shown.contains("10.0.0.50/32 scope host"), "{shown}");
        assert_eq!(protocol_of(ip(V4)).await, ADDRESS_PROTOCOL);
        assert!(shown.contains("valid_lft 10sec") || shown.contains("valid_lft 9sec"), "{shown}");
        remove(&addresses, &[ip(V4)]).await;
        assert!(!on_lo(&host, V4));
    });
}

#[test]
fn an_ipv6_vip_is_a_deprecated_128_that_is_usable_at_once() {
    sandbox(async |host: Sandbox| {
        let addresses = start(&host);
        assert_eq!(add(&addresses, &[ip(V6)]).await, [Staged::Ours]);
        let shown = host.ip("-d -o -6 address show dev lo to fd00::50");
        assert!(shown.contains("fd00::50/128") && shown.contains("nodad"), "{shown}");
        assert!(shown.contains("preferred_lft 0sec") && !shown.contains("tentative"), "{shown}");
        assert_eq!(protocol_of(ip(V6)).await, ADDRESS_PROTOCOL);
        remove(&addresses, &[ip(V6)]).await;
        assert!(!on_lo(&host, V6));
    });
}

#[test]
fn a_local_listener_receives_what_comes_for_the_vip_from_the_network() {
    sandbox(async |host: Sandbox| {
        host.connect_to("peer");
        host.ip("address add 10.0.0.1/24 dev eth0");
        host.ip("address add fd00::1/64 dev eth0 nodad");
        host.ip("-n peer address add 10.0.0.2/24 dev eth0");
        host.ip("-n peer address add fd00::2/64 dev eth0 nodad");
        host.ip("-n peer route add 10.0.0.50/32 via 10.0.0.1");
        host.ip("-n peer route add fd00::50/128 via fd00::1");
        let addresses = start(&host);
        add(&addresses, &[ip(V4), ip(V6)]).await;
        for vip in [ip(V4), ip(V6)] {
            let listener = TcpListener::bind((vip, 8080)).expect("a listener");
            let server =
                std::thread::spawn(move || listener.accept().expect("a client").0.write_all(b"hello"));
            let answer = host.inside("peer", move || {
                let mut text = String::new();
                let server = SocketAddr::new(vip, 8080);
                let mut stream =
                    TcpStream::connect_timeout(&server, Duration::from_secs(20)).expect("a server");
                stream.read_to_string(&mut text).expect("an answer");
                text
            });
            assert_eq!(answer, "hello");
            server.join().expect("the server").expect("to answer");
        }
    });
}

#[test]
fn an_administrators_address_is_reported_and_never_touched() {
    sandbox(async |host: Sandbox| {
        host.link("eth0");
        host.ip("address add 10.0.0.50/24 dev eth0");
        host.ip("address add 10.0.0.51/32 dev lo");
        host.ip("address add 10.0.0.52/24 dev lo valid_lft 1000 preferred_lft 1000");
        host.ip("address add 10.0.0.53/32 dev lo valid_lft 1000 preferred_lft 1000");
        host.ip("address add fd00::50/128 dev lo");
        host.ip("address add fd00::51/64 dev eth0 nodad");
        let eth0 =
            host.ip("-o link show eth0").split(':').next().expect("an index").parse().expect("a number");
        let before = host.ip("-o address show").replace(char::is_numeric, "");
        let addresses = start(&host);
        let vips = [ip(V4), ip("10.0.0.51"), ip("10.0.0.52"), ip("10.0.0.53"), ip(V6), ip("fd00::51")];
        let foreign = |ifindex| Staged::Foreign { ifindex };
        assert_eq!(
            add(&addresses, &vips).await,
            [foreign(eth0), foreign(LO), foreign(LO), foreign(LO), foreign(LO), foreign(eth0)]
        );
        assert!(addresses.held().await.is_empty());
        remove(&addresses, &vips).await;
        addresses.remove_all().await.expect("to remove ours");
        assert_eq!(host.ip("-o address show").replace(char::is_numeric, ""), before);
    });
}

#[test]
fn an_address_that_an_administrator_makes_his_is_left_to_him() {
    sandbox(async |host: Sandbox| {
        let often = Lifetime { valid: 10, renewal: Duration::from_millis(50) };
        let addresses = LocalAddresses::start(journal(&host), often).expect("netlink");
        add(&addresses, &[ip(V4)]).await;
        host.ip("address replace 10.0.0.50/32 dev lo");
        eventually("the loss", || async { addresses.held().await.is_empty() }).await;
        remove(&addresses, &[ip(V4)]).await;
        let shown = host.ip("-o address show dev lo to 10.0.0.50");
        assert!(shown.contains("valid_lft forever"), "{shown}");
    });
}

#[test]
fn a_dead_agents_addresses_go_away_by_themselves() {
    sandbox(async |host: Sandbox| {
        let short = Lifetime { valid: 2, renewal: Duration::from_secs(3600) };
        let addresses = LocalAddresses::start(journal(&host), short).expect("netlink");
        add(&addresses, &[ip(V4), ip(V6)]).await;
        assert!(on_lo(&host, V4) && on_lo(&host, V6));
        drop(addresses);
        eventually("their end", || async { !on_lo(&host, V4) && !on_lo(&host, V6) }).await;
    });
}

#[test]
fn renewed_addresses_outlive_their_lifetime() {
    sandbox(async |host: Sandbox| {
        let short = Lifetime { valid: 3, renewal: Duration::from_millis(200) };
        let addresses = LocalAddresses::start(journal(&host), short).expect("netlink");
        add(&addresses, &[ip(V4), ip(V6)]).await;
        // Without renewal they are gone by then, as the test above shows.
        for _ in 0..70 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(on_lo(&host, V4) && on_lo(&host, V6));
        }
    });
}

#[test]
fn an_address_that_somebody_takes_off_lo_is_put_back() {
    sandbox(async |host: Sandbox| {
        let often = Lifetime { valid: 10, renewal: Duration::from_millis(50) };
        let addresses = LocalAddresses::start(journal(&host), often).expect("netlink");
        add(&addresses, &[ip(V4), ip(V6)]).await;
        host.ip("address flush dev lo to 10.0.0.50");
        host.ip("address del fd00::50/128 dev lo");
        eventually("their return", || async { on_lo(&host, V4) && on_lo(&host, V6) }).await;
    });
}

#[test]
fn an_address_that_expired_while_the_agent_stood_still_does_not_come_back_by_itself() {
    sandbox(async |host: Sandbox| {
        let short = Lifetime { valid: 1, renewal: Duration::from_millis(300) };
        let addresses = LocalAddresses::start(journal(&host), short).expect("netlink");
        tokio::time::sleep(Duration::from_millis(400)).await;
        add(&addresses, &[ip(V4)]).await;
        // As SIGSTOP would: the runtime stands still until the kernel has taken the address away.
        while on_lo(&host, V4) {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_secs(1));
        eventually("the loss", || async { addresses.held().await.is_empty() }).await;
        assert!(!on_lo(&host, V4));
        assert_eq!(add(&addresses, &[ip(V4)]).await, [Staged::Ours]);
        assert!(on_lo(&host, V4));
    });
}

#[test]
fn adding_and_removing_twice_is_the_same_as_once() {
    sandbox(async |host: Sandbox| {
        let addresses = start(&host);
        for _ in 0..2 {
            assert_eq!(add(&addresses, &[ip(V4), ip(V6), ip(V4)]).await, [Staged::Ours, Staged::Ours]);
        }
        assert_eq!(addresses.held().await, BTreeSet::from([ip(V4), ip(V6)]));
        for _ in 0..2 {
            remove(&addresses, &[ip(V4), ip(V6)]).await;
            assert!(!on_lo(&host, V4) && !on_lo(&host, V6));
        }
    });
}

fn many(count: u32) -> Vec<IpAddr> {
    let v4 = (0..count).map(|number| IpAddr::V4(Ipv4Addr::from_bits(0x0a09_0000 + number)));
    let v6 = (0..count).map(|number| IpAddr::V6(Ipv6Addr::from_bits((0xfd << 120) + u128::from(number))));
    v4.chain(v6).collect()
}

#[test]
fn a_thousand_addresses_are_put_on_lo_and_taken_off_in_one_call() {
    sandbox(async |host: Sandbox| {
        let addresses = start(&host);
        let vips = many(500);
        assert!(add(&addresses, &vips).await.iter().all(|staged| *staged == Staged::Ours));
        assert_eq!(host.ip("-o address show dev lo").lines().count(), 1002);
        remove(&addresses, &vips).await;
        assert_eq!(host.ip("-o address show dev lo").lines().count(), 2);
    });
}

#[test]
fn without_ipv6_the_error_says_so_and_ipv4_goes_on() {
    sandbox(async |host: Sandbox| {
        std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1").expect("a sysctl");
        let addresses = start(&host);
        let mut outcomes = addresses.add(&[ip(V4), ip(V6)]).await.expect("netlink");
        assert_eq!(outcomes.remove(&ip(V4)).expect("an outcome").expect("an address"), Staged::Ours);
        let error = outcomes.remove(&ip(V6)).expect("an outcome").expect_err("IPv6 is off");
        assert!(matches!(error, AddressError::Ipv6Disabled), "{error}");
    });
}

#[test]
fn what_a_killed_agent_left_on_lo_is_taken_off_by_the_journal_alone() {
    sandbox(async |host: Sandbox| {
        host.ip("address add 10.0.0.51/32 dev lo");
        let addresses = start(&host);
        addresses.prepare(&[ip("10.0.0.51"), ip("10.0.0.52")]).await.expect("a journal");
        add(&addresses, &[ip(V4), ip(V6)]).await;
        drop(addresses);
        let journal = journal(&host);
        let rtnetlink = Rtnetlink::connect().expect("netlink");
        let failures = journal.undo_all(&rtnetlink, |_| Ok(())).await;
        assert!(failures.is_empty(), "{failures:?}");
        assert!(!on_lo(&host, V4) && !on_lo(&host, V6));
        assert!(on_lo(&host, "10.0.0.51"), "that one is the administrator's");
        assert!(journal.is_empty());
    });
}

/// `cargo test --release --test net_addresses -- --ignored --nocapture` prints what staging costs.
#[test]
#[ignore = "a measurement"]
fn how_long_staging_takes() {
    sandbox(async |host: Sandbox| {
        let addresses = start(&host);
        for (name, vips) in [
            ("1 IPv4", vec![ip(V4)]),
            ("1 IPv6", vec![ip(V6)]),
            ("256 IPv4", many(256)[..256].to_vec()),
            ("256 IPv6", many(256)[256..].to_vec()),
        ] {
            addresses.prepare(&vips).await.expect("a journal");
            let (mut put, mut taken) = (Vec::new(), Vec::new());
            for _ in 0..300 {
                let begin = Instant::now();
                add(&addresses, &vips).await;
                put.push(begin.elapsed());
                let begin = Instant::now();
                remove(&addresses, &vips).await;
                taken.push(begin.elapsed());
            }
            for (what, mut times) in [("add", put), ("remove", taken)] {
                times.sort();
                println!("{name} {what}: p50 {:?}, p99 {:?}, max {:?}", times[150], times[297], times[299]);
            }
        }
    });
}
