//! Open connections to VIPs are counted, whatever socket the server listens on.

#[path = "support/sandbox.rs"]
mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};
use support::{Sandbox, eventually, sandbox};
use vip_agent::net::connections::{Connection, Connections};

const VIP4: &str = "10.0.0.50";
const VIP6: &str = "fd00::50";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|address| ip(address)).collect()
}

/// Both ends of a connection.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

/// The VIPs and one other address of each family on lo, and a server on all of them.
fn listen(host: &Sandbox, on: &str) -> TcpListener {
    for address in ["10.0.0.50/32", "10.0.0.51/32", "fd00::50/128", "fd00::51/128"] {
        host.ip(&format!("address add {address} dev lo"));
    }
    TcpListener::bind((ip(on), 0)).expect("a listener")
}

fn connect(listener: &TcpListener, to: &str) -> Pair {
    let port = listener.local_addr().expect("a port").port();
    let to = SocketAddr::new(ip(to), port);
    let client = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    // Left to itself, a client on the same host takes the VIP as its source address.
    let from: IpAddr = if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    client.bind(&SocketAddr::new(from, 0).into()).expect("a source");
    client.connect(&to.into()).expect("a connection");
    let client = TcpStream::from(client);
    let (server, _) = listener.accept().expect("a client");
    Pair { client, server }
}

async fn open_to(vips: &[&str]) -> Vec<Connection> {
    Connections::connect().expect("netlink").open_to(&set(vips)).await.expect("sockets")
}

#[test]
fn a_dual_stack_listeners_ipv4_connections_count_as_ipv4() {
    sandbox(async |host: Sandbox| {
        let listener = listen(&host, "::");
        let to_vip = connect(&listener, VIP4);
        let _elsewhere = connect(&listener, "10.0.0.51");
        let remote = to_vip.client.local_addr().expect("an address");
        let local = to_vip.client.peer_addr().expect("an address");
        assert!(
            to_vip.server.local_addr().expect("an address").is_ipv6(),
            "the server's socket is an IPv6 one"
        );
        assert_eq!(open_to(&[VIP4]).await, [Connection { local, remote }]);
    });
}

#[test]
fn connections_of_both_families_are_listed_for_all_the_vips_given() {
    sandbox(async |host: Sandbox| {
        let listener = listen(&host, "::");
        let pairs = [VIP4, VIP4, VIP6, "fd00::51"].map(|to| connect(&listener, to));
        let mut expected: Vec<_> = pairs[..3]
            .iter()
            .map(|pair| Connection {
                local: pair.client.peer_addr().expect("an address"),
                remote: pair.client.local_addr().expect("an address"),
            })
            .collect();
        expected.sort();
        let mut found = open_to(&[VIP4, VIP6, "10.77.0.1", "fd77::1"]).await;
        found.sort();
        assert_eq!(found, expected);
        let clients =
            Connections::connect().expect("netlink").by_client(&set(&[VIP4, VIP6])).await.expect("sockets");
        assert_eq!(clients.values().sum::<usize>(), 3);
        assert!(open_to(&[]).await.is_empty());
        assert!(open_to(&["10.77.0.1"]).await.is_empty());
    });
}

#[test]
fn an_ipv4_listeners_connections_count_and_the_listener_itself_does_not() {
    sandbox(async |host: Sandbox| {
        let listener = listen(&host, VIP4);
        assert!(open_to(&[VIP4]).await.is_empty());
        let _pair = connect(&listener, VIP4);
        assert_eq!(open_to(&[VIP4]).await.len(), 1);
    });
}

#[test]
fn a_half_closed_connection_counts_until_both_sides_have_closed() {
    sandbox(async |host: Sandbox| {
        let listener = listen(&host, "::");
        let Pair { client, server } = connect(&listener, VIP4);
        client.shutdown(Shutdown::Write).expect("a half close");
        assert_eq!(open_to(&[VIP4]).await.len(), 1, "the answer is still to come");
        server.shutdown(Shutdown::Write).expect("the other half");
        drop((client, server));
        eventually("its end", || async { open_to(&[VIP4]).await.is_empty() }).await;
    });
}

#[test]
fn more_vips_than_the_kernel_can_choose_by_are_chosen_by_us() {
    sandbox(async |host: Sandbox| {
        let listener = listen(&host, "::");
        let _pair = connect(&listener, VIP4);
        let _elsewhere = connect(&listener, "10.0.0.51");
        for count in [1, 2, 256, 1023, 1024, 3000] {
            let others = (1..count).map(|number| IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number)));
            let vips: BTreeSet<_> = others.chain([ip(VIP4)]).collect();
            let found = Connections::connect().expect("netlink").open_to(&vips).await.expect("sockets");
            let locals: Vec<_> = found.iter().map(|connection| connection.local.ip()).collect();
            assert_eq!(locals, [ip(VIP4)], "{count} VIPs");
        }
    });
}

#[test]
fn a_thousand_connections_are_all_found() {
    sandbox(async |host: Sandbox| {
        let listener = listen(&host, "::");
        let pairs: Vec<_> = (0..1000).map(|number| connect(&listener, [VIP4, VIP6][number % 2])).collect();
        let mut clients: Vec<_> =
            pairs.iter().map(|pair| pair.client.local_addr().expect("an address")).collect();
        let mut found: Vec<_> =
            open_to(&[VIP4, VIP6]).await.iter().map(|connection| connection.remote).collect();
        clients.sort();
        found.sort();
        assert_eq!(found, clients);
    });
}
