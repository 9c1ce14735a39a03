//! Waits until new IPv6 addresses take packets, which is later than the kernel acknowledges them.
//!
//! The local route of an address, without which packets for it are dropped, is made by a worker of the kernel
//! (`addrconf_dad_work`), duplicate address detection or not: at once on an idle machine, 10 ms later on a busy one.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::time::{Instant, sleep};

use crate::net::{NetlinkError, Rtnetlink};

/// RT_TABLE_LOCAL of linux/rtnetlink.h.
const RT_TABLE_LOCAL: u8 = 255;

/// How long the worker is waited for. A machine so busy that it takes longer has other worries, and an owner without
/// its local address still keeps everybody else from the VIP.
const PATIENCE: Duration = Duration::from_millis(500);

/// The first pause between two looks; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_micros(250);
const LONGEST_PAUSE: Duration = Duration::from_millis(4);

/// Returns when every one of `vips` is delivered locally; those that are not in the end.
pub(super) async fn wait_for(
    rtnetlink: &Rtnetlink,
    mut vips: BTreeSet<Ipv6Addr>,
) -> Result<BTreeSet<Ipv6Addr>, NetlinkError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    while !vips.is_empty() {
        let routes = rtnetlink.dump("list the local routes", local_routes()).await?;
        for delivered in routes.iter().filter_map(delivered) {
            vips.remove(&delivered);
        }
        if vips.is_empty() || Instant::now() > deadline {
            break;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(vips)
}

fn local_routes() -> RouteNetlinkMessage {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet6;
    request.header.table = RT_TABLE_LOCAL;
    RouteNetlinkMessage::GetRoute(request)
}

fn delivered(entry: &RouteNetlinkMessage) -> Option<Ipv6Addr> {
    let RouteNetlinkMessage::NewRoute(route) = entry else { return None };
    let single = route.header.destination_prefix_length == 128;
    (single && route.header.kind == RouteType::Local).then_some(())?;
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(*ip),
        _ => None,
    })
}
