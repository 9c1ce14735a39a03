//! Backends that refuse, hang or are nobody's to have, and what clients see of that.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::fixture::{Rig, is_echoed, read_until_reset, until};

#[test]
fn a_backend_that_refuses_costs_nobody_a_connection() {
    let rig = Rig::with(2).serving(|_| {});
    rig.echo(2);
    for _ in 0..20 {
        assert!(is_echoed(&mut rig.connect()));
    }
    let (first, second) = (rig.counts_of(1), rig.counts_of(2));
    assert_eq!((first.new_flows, second.new_flows), (0, 20));
    assert!((1..=19).contains(&first.failed["refused"]), "it is the last to be tried for a while: {first:?}");
    assert!(first.last_error.unwrap().contains("refused"));
    assert!(rig.counts().failed.is_empty());
}

/// A listener whose queue is full: the kernel drops further SYNs.
fn hanging(address: SocketAddr) -> (Socket, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(0).unwrap();
    let waiting = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address.into());
        socket
    };
    (listener, (0..4).map(waiting).collect())
}

#[test]
fn a_backend_that_hangs_is_given_up_after_its_time() {
    let rig = Rig::with(2).serving(|service| service.limits.connect_timeout = Duration::from_millis(100));
    let _hanging = hanging(rig.backend(1));
    rig.echo(2);
    until("it was tried", || {
        assert!(is_echoed(&mut rig.connect()));
        rig.counts_of(1).failed.contains_key("timed_out")
    });
    assert_eq!(rig.counts_of(1).new_flows, 0);
}

#[test]
fn where_all_refuse_the_client_is_reset() {
    let rig = Rig::with(2).serving(|_| {});
    assert_eq!(read_until_reset(&rig.connect()), b"");
    until("it is counted", || rig.failed("refused") == 1);
}

#[test]
fn where_none_is_up_the_client_is_reset_at_once() {
    let rig = Rig::with(2).serving(|service| {
        service.backends[0].up = false;
        service.backends[1].weight = 0;
    });
    (1..=2).for_each(|number| rig.echo(number));
    assert_eq!(read_until_reset(&rig.connect()), b"");
    until("it is counted", || rig.failed("no_backend") == 1);
}

#[test]
fn clients_of_other_ranges_are_reset_and_reach_nobody() {
    let rig = Rig::with(1).serving(|service| service.source_ranges = vec!["192.0.2.0/24".parse().unwrap()]);
    rig.echo(1);
    assert_eq!(read_until_reset(&rig.connect()), b"");
    until("it is counted", || rig.failed("not_allowed") == 1);
    assert_eq!(rig.counts_of(1).new_flows, 0);
}

#[test]
fn clients_of_the_ranges_are_served() {
    let rig = Rig::with(1).serving(|service| service.source_ranges = vec!["127.0.0.0/8".parse().unwrap()]);
    rig.echo(1);
    assert!(is_echoed(&mut rig.connect()));
}

#[test]
fn a_backend_that_drains_keeps_its_connections_and_gets_no_others() {
    let mut rig = Rig::with(2).serving(|_| {});
    (1..=2).for_each(|number| rig.echo(number));
    let mut clients: Vec<TcpStream> = (0..20).map(|_| rig.connect()).collect();
    assert!(clients.iter_mut().all(is_echoed));
    let (kept, others) = (rig.counts_of(1).active_flows, rig.counts_of(2).active_flows);
    assert!(kept > 0 && others > 0);
    rig.service.backends[0].weight = 0;
    rig.serve();
    let mut later: Vec<TcpStream> = (0..20).map(|_| rig.connect()).collect();
    assert!(later.iter_mut().chain(&mut clients).all(is_echoed));
    assert_eq!((rig.counts_of(1).active_flows, rig.counts_of(2).active_flows), (kept, others + 20));
}

#[test]
fn connections_outlive_a_backend_that_leaves_the_set() {
    let mut rig = Rig::with(2).serving(|_| {});
    (1..=2).for_each(|number| rig.echo(number));
    let mut clients: Vec<TcpStream> = (0..20).map(|_| rig.connect()).collect();
    assert!(clients.iter_mut().all(is_echoed));
    rig.service.backends.remove(0);
    rig.serve();
    assert!(clients.iter_mut().all(is_echoed));
    assert_eq!(rig.counts().backends.len(), 1);
}

#[test]
fn a_client_with_affinity_comes_to_the_same_backend() {
    let rig = Rig::with(5).serving(|service| service.affinity = Some(Duration::from_secs(60)));
    (1..=5).for_each(|number| rig.echo(number));
    for _ in 0..20 {
        assert!(is_echoed(&mut rig.connect()));
    }
    let mut flows: Vec<u64> = (1..=5).map(|number| rig.counts_of(number).new_flows).collect();
    flows.sort_unstable();
    assert_eq!(flows, [0, 0, 0, 0, 20]);
}

#[test]
fn an_address_that_this_host_does_not_have_is_listened_on() {
    // Of the documentation's range (RFC 5737, RFC 3849): nobody's, and not connected to.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _inside = runtime.enter();
    for vip in ["203.0.113.50:1080", "[2001:db8::50]:1080"] {
        let vip: SocketAddr = vip.parse().unwrap();
        assert!(TcpListener::bind(vip).is_err(), "this host has {vip}");
        assert_eq!(super::super::sockets::listen(vip).unwrap().local_addr().unwrap(), vip);
    }
}
