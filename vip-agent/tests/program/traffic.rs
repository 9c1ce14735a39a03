//! Traffic to a VIP, and what goes on to the former owner after a planned move.

use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Result;

use vip_common::maps::Handover;

use crate::common::frames::*;
use crate::common::world::World;
use crate::kernel::{Kernel, passed, transmitted};

/// The frame on its way to the former owner.
fn forwarded(segment: &Tcp) -> Vec<u8> {
    Tcp { to: FORMER, from: OWN, ..segment.clone() }.bytes()
}

#[test]
fn traffic_to_a_vip_passes_and_is_counted() -> Result<()> {
    let owner = Kernel::with(&World::owning())?;
    let backup = Kernel::with(&World::not_owning())?;
    for frame in [Tcp::v4().bytes(), Tcp::v6().bytes()] {
        assert_eq!(owner.run(&frame)?, passed(&frame, &["traffic_owned"]));
        assert_eq!(backup.run(&frame)?, passed(&frame, &["traffic_not_owned"]));
    }
    Ok(())
}

#[test]
fn a_segment_of_an_unknown_flow_goes_to_the_former_owner() -> Result<()> {
    let kernel = Kernel::with(&World::taking_over())?;
    for segment in [Tcp::v4(), Tcp::v6()] {
        for tags in [vec![], vec![VLAN], vec![SERVICE_VLAN, VLAN_200]] {
            for flags in [ACK, SYN | ACK, 0x04] {
                let segment = Tcp { tags: tags.clone(), flags, ..segment.clone() };
                let outcome = kernel.run(&segment.bytes())?;
                assert_eq!(outcome, transmitted(forwarded(&segment), "handover_forwarded"));
            }
        }
    }
    Ok(())
}

#[test]
fn a_flow_whose_syn_we_saw_is_ours() -> Result<()> {
    let kernel = Kernel::with(&World::taking_over())?;
    for segment in [Tcp::v4(), Tcp::v6()] {
        let syn = Tcp { flags: SYN, ..segment.clone() }.bytes();
        assert_eq!(kernel.run(&syn)?, passed(&syn, &["traffic_owned"]));
        let ours = segment.bytes();
        assert_eq!(kernel.run(&ours)?, passed(&ours, &["traffic_owned"]));
        let other = Tcp { client_port: segment.client_port + 1, ..segment };
        assert_eq!(kernel.run(&other.bytes())?, transmitted(forwarded(&other), "handover_forwarded"));
    }
    Ok(())
}

/// A client may use the port again, for a connection with the node that became the owner in between.
#[test]
fn a_flow_of_an_earlier_handover_is_not_known_in_the_next() -> Result<()> {
    let world = World::taking_over();
    let mut kernel = Kernel::with(&world)?;
    for segment in [Tcp::v4(), Tcp::v6()] {
        let syn = Tcp { flags: SYN, ..segment.clone() }.bytes();
        assert_eq!(kernel.run(&syn)?, passed(&syn, &["traffic_owned"]));
        kernel.set_handover(Handover { until: world.handover.until - 1, ..world.handover })?;
        let outcome = kernel.run(&segment.bytes())?;
        assert_eq!(outcome, transmitted(forwarded(&segment), "handover_forwarded"));
        kernel.set_handover(world.handover)?;
    }
    Ok(())
}

#[test]
fn nothing_goes_back_to_whom_it_came_from_or_away_that_was_not_for_us() -> Result<()> {
    let kernel = Kernel::with(&World::taking_over())?;
    for segment in [Tcp::v4(), Tcp::v6()] {
        for frame in [Tcp { from: FORMER, ..segment.clone() }, Tcp { to: STRANGER, ..segment }] {
            let frame = frame.bytes();
            assert_eq!(kernel.run(&frame)?, passed(&frame, &["traffic_owned"]));
        }
    }
    Ok(())
}

#[test]
fn after_the_grace_everything_is_ours() -> Result<()> {
    let mut world = World::taking_over();
    world.handover.until = 1;
    let kernel = Kernel::with(&world)?;
    for frame in [Tcp::v4().bytes(), Tcp::v6().bytes()] {
        assert_eq!(kernel.run(&frame)?, passed(&frame, &["traffic_owned"]));
    }
    Ok(())
}

#[test]
fn one_who_does_not_own_forwards_nothing() -> Result<()> {
    let kernel = Kernel::with(&World { deadline: 0, ..World::taking_over() })?;
    for frame in [Tcp::v4().bytes(), Tcp::v6().bytes()] {
        assert_eq!(kernel.run(&frame)?, passed(&frame, &["traffic_not_owned"]));
    }
    Ok(())
}

#[test]
fn a_first_fragment_is_forwarded_and_a_later_one_has_no_ports() -> Result<()> {
    let kernel = Kernel::with(&World::taking_over())?;
    let first = Tcp { fragment: 0x2000, ..Tcp::v4() };
    assert_eq!(kernel.run(&first.bytes())?, transmitted(forwarded(&first), "handover_forwarded"));
    let later = Tcp { fragment: 0x2001, ..Tcp::v4() }.bytes();
    assert_eq!(kernel.run(&later)?, passed(&later, &["traffic_owned"]));
    Ok(())
}

#[test]
fn what_is_not_tcp_or_holds_no_header_is_ours() -> Result<()> {
    let kernel = Kernel::with(&World::taking_over())?;
    let frames = [
        ethernet(OWN, CLIENT, &[], 0x0800, &ipv4(CLIENT4, VIP4, 17, 0, &[0; 20])),
        ethernet(OWN, CLIENT, &[], 0x0800, &ipv4(CLIENT4, VIP4, 6, 0, &[0; 13])),
        ethernet(OWN, CLIENT, &[], 0x86dd, &ipv6(CLIENT6, VIP6, 58, 64, &[128; 20])),
        ethernet(OWN, CLIENT, &[], 0x86dd, &ipv6(CLIENT6, VIP6, 6, 64, &[0; 13])),
    ];
    for frame in frames {
        assert_eq!(kernel.run(&frame)?, passed(&frame, &["traffic_owned"]));
    }
    Ok(())
}

#[test]
fn ipv4_options_do_not_hide_the_ports() -> Result<()> {
    let kernel = Kernel::with(&World::taking_over())?;
    let mut frame = Tcp { flags: SYN, ..Tcp::v4() }.bytes();
    frame[14] = 0x46;
    frame.splice(34..34, [1, 1, 1, 0]);
    assert_eq!(kernel.run(&frame)?, passed(&frame, &["traffic_owned"]));
    let known = Tcp::v4().bytes();
    assert_eq!(kernel.run(&known)?, passed(&known, &["traffic_owned"]));
    Ok(())
}

#[test]
fn a_flow_of_a_local_socket_is_ours_and_one_that_listens_or_has_ended_does_not_count() -> Result<()> {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address)?;
        let connection = TcpStream::connect(listener.local_addr()?)?;
        let (accepted, _) = listener.accept()?;
        let (client, vip) = (connection.local_addr()?, listener.local_addr()?);
        let world = World::taking_over().with_vip4([127, 0, 0, 1]);
        let kernel = Kernel::with(&world.with_vip6(std::net::Ipv6Addr::LOCALHOST.octets()))?;
        let segment = Tcp {
            client: family(client),
            vip: family(vip),
            client_port: client.port(),
            vip_port: vip.port(),
            ..Tcp::v4()
        };
        let known = segment.bytes();
        assert_eq!(kernel.run(&known)?, passed(&known, &["traffic_owned"]));
        let unknown = Tcp { client_port: 1, ..segment.clone() };
        assert_eq!(kernel.run(&unknown.bytes())?, transmitted(forwarded(&unknown), "handover_forwarded"));
        // The server closes first, so it is the one that remembers (TIME_WAIT).
        drop(accepted);
        drop(connection);
        let ended = kernel.run(&known)?;
        assert_eq!(ended, transmitted(forwarded(&segment), "handover_forwarded"));
    }
    Ok(())
}

fn family(address: SocketAddr) -> Address {
    match address {
        SocketAddr::V4(address) => Address::V4(address.ip().octets()),
        SocketAddr::V6(address) => Address::V6(address.ip().octets()),
    }
}
