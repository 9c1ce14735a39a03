//! What the kernel says about one interface: its kind, and the XDP programs that it runs.
//!
//! Asked by netlink, never by sysfs: a mounted /sys may show another network namespace's interfaces.

use std::io;

use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::links::XdpMode;

/// One interface.
#[derive(Debug, Default)]
pub(super) struct Netdev {
    /// Kind of a virtual interface; `None` for a NIC.
    pub(super) kind: Option<InfoKind>,
    /// The programs that run on it, by mode.
    pub(super) programs: Vec<(XdpMode, u32)>,
}

impl Netdev {
    /// Asks for an interface of the calling thread's network namespace; `None` if there is none of that index.
    pub(super) fn query(ifindex: u32) -> io::Result<Option<Self>> {
        let mut request = LinkMessage::default();
        request.header.index = ifindex;
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(request));
        request.header.flags = NLM_F_REQUEST;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);

        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(Self::read(&link))),
            NetlinkPayload::Error(error) if error.raw_code() == -libc::ENODEV => Ok(None),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            other => Err(io::Error::other(format!("unexpected answer {other:?}"))),
        }
    }

    fn read(link: &LinkMessage) -> Self {
        let mut netdev = Self::default();
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::LinkInfo(infos) => {
                    netdev.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                }
                LinkAttribute::Xdp(xdp) => netdev.programs = programs(xdp),
                _ => {}
            }
        }
        netdev
    }

    /// The mode in which a program runs here.
    pub(super) fn mode_of(&self, program: u32) -> Option<XdpMode> {
        self.programs.iter().find(|(_, id)| *id == program).map(|(mode, _)| *mode)
    }
}

fn programs(xdp: &[LinkXdp]) -> Vec<(XdpMode, u32)> {
    let several: Vec<_> = xdp
        .iter()
        .filter_map(|attribute| match attribute {
            LinkXdp::DrvProgId(id) => Some((XdpMode::Driver, *id)),
            LinkXdp::SkbProgId(id) => Some((XdpMode::Skb, *id)),
            LinkXdp::HwProgId(id) => Some((XdpMode::Hardware, *id)),
            _ => None,
        })
        .collect();
    if !several.is_empty() {
        return several;
    }
    // Kernels before 4.19 name the one program without its mode's own attribute.
    let mode = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Driver),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Skb),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpMode::Hardware),
        _ => None,
    });
    let id = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    mode.zip(id).into_iter().collect()
}
