//! The open TCP connections to given VIPs, by inet_diag: what a move would cut, and whether grace can end early.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use rtnetlink::packet_core::{
    DecodeError, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};
use rtnetlink::proto::sys::protocols;

use super::NetlinkError;
use super::netlink::Netlink;

/// State of linux/tcp_states.h in which our side has closed and the other has not.
const FIN_WAIT2: u8 = 5;

/// An open connection to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// The VIP and the service's port; plain IPv4 also where the socket is an IPv6 one.
    pub local: SocketAddr,
    /// The client.
    pub remote: SocketAddr,
}

/// Open connections by client, with how many each has.
pub type ByClient = BTreeMap<IpAddr, usize>;

/// A connection to the kernel for questions about sockets.
#[derive(Debug)]
pub struct Connections {
    diag: Netlink<Diag>,
}

impl Connections {
    /// Connects to the network namespace of the calling thread. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn connect() -> Result<Self, NetlinkError> {
        Ok(Self { diag: Netlink::open(protocols::NETLINK_SOCK_DIAG)? })
    }

    /// The connections to `vips` over which something may still pass: from the SYN that was answered until both sides
    /// have closed and all is acknowledged. A half-closed one counts while a process holds it.
    ///
    /// The kernel does the choosing, so that a host with many other connections does not pay for them.
    ///
    /// # Errors
    /// Only what netlink itself fails with.
    pub async fn open_to(&self, vips: &BTreeSet<IpAddr>) -> Result<Vec<Connection>, NetlinkError> {
        let mut open = Vec::new();
        if vips.is_empty() {
            return Ok(open);
        }
        for family in [AF_INET, AF_INET6] {
            let question = Diag::Question(Question { family, filter: filter::local_address_in(vips) });
            let answers = self.diag.dump("list the TCP connections", question).await?;
            open.extend(
                answers
                    .iter()
                    .filter_map(Diag::open_connection)
                    .filter(|found| vips.contains(&found.local.ip())),
            );
        }
        Ok(open)
    }

    /// How many open connections to `vips` each client has.
    ///
    /// # Errors
    /// Only what netlink itself fails with.
    pub async fn by_client(&self, vips: &BTreeSet<IpAddr>) -> Result<ByClient, NetlinkError> {
        let mut clients = ByClient::new();
        for connection in self.open_to(vips).await? {
            *clients.entry(connection.remote.ip()).or_default() += 1;
        }
        Ok(clients)
    }
}

#[derive(Clone, Debug)]
enum Diag {
    Question(Question),
    Answer(Box<InetResponse>),
    Other,
}

#[derive(Clone, Debug)]
struct Question {
    family: u8,
    /// An INET_DIAG_REQ_BYTECODE attribute.
    filter: Vec<u8>,
}

impl Question {
    fn request(&self) -> InetRequest {
        InetRequest {
            family: self.family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::ESTABLISHED
                | StateFlags::SYN_RECV
                | StateFlags::FIN_WAIT1
                | StateFlags::FIN_WAIT2
                | StateFlags::CLOSE_WAIT
                | StateFlags::LAST_ACK
                | StateFlags::CLOSING,
            socket_id: if self.family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
        }
    }
}

impl Diag {
    fn open_connection(&self) -> Option<Connection> {
        let Self::Answer(answer) = self else { return None };
        let header = &answer.header;
        let is_abandoned = header.state == FIN_WAIT2 && header.inode == 0;
        let id = &header.socket_id;
        (!is_abandoned).then(|| Connection {
            local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
            remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        })
    }
}

impl NetlinkSerializable for Diag {
    fn message_type(&self) -> u16 {
        netlink_packet_sock_diag::SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Question(question) => question.request().buffer_len() + question.filter.len(),
            Self::Answer(_) | Self::Other => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Question(question) = self {
            let request = question.request();
            let (head, tail) = buffer.split_at_mut(request.buffer_len());
            request.emit(head);
            tail.copy_from_slice(&question.filter);
        }
    }
}

impl NetlinkDeserializable for Diag {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(match SockDiagMessage::deserialize(header, payload)? {
            SockDiagMessage::InetResponse(answer) => Self::Answer(answer),
            _ => Self::Other,
        })
    }
}

/// The little language by which the kernel chooses sockets (linux/inet_diag.h, net/ipv4/inet_diag.c).
mod filter {
    use super::{BTreeSet, IpAddr, Ipv4Addr};

    const INET_DIAG_REQ_BYTECODE: u16 = 1;
    const INET_DIAG_BC_JMP: u8 = 1;
    const INET_DIAG_BC_S_COND: u8 = 7;
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;

    /// Length of struct inet_diag_bc_op.
    const OP: usize = 4;
    /// Jumps are 16 bits wide; more addresses than this are left to the caller to choose from.
    const MAX_ADDRESSES: usize = 1024;

    /// The attribute that lets pass what has one of `vips` as its local address; none for more than fit.
    ///
    /// A condition with an IPv4 address holds for IPv6 sockets with the mapped address too.
    pub(super) fn local_address_in(vips: &BTreeSet<IpAddr>) -> Vec<u8> {
        if vips.len() > MAX_ADDRESSES {
            return Vec::new();
        }
        let conditions: Vec<_> = vips.iter().map(|&vip| condition(vip)).collect();
        let total: usize = conditions.iter().map(|condition| OP + condition.len()).sum::<usize>()
            + OP * conditions.len().saturating_sub(1);
        let mut code = Vec::with_capacity(OP + total);
        let mut rest = total;
        for (index, condition) in conditions.iter().enumerate() {
            let is_last = index + 1 == conditions.len();
            let length = OP + condition.len();
            // Held: go on right behind, where a jump leads to the end = accepted. Not held: over that jump, which
            // behind the last condition is past the end = refused.
            op(&mut code, INET_DIAG_BC_S_COND, length, length + OP);
            code.extend_from_slice(condition);
            rest -= length;
            if !is_last {
                op(&mut code, INET_DIAG_BC_JMP, OP, rest);
                rest -= OP;
            }
        }
        attribute(&code)
    }

    fn op(code: &mut Vec<u8>, kind: u8, yes: usize, no: usize) {
        let narrow = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        code.push(kind);
        code.push(u8::try_from(yes).unwrap_or(u8::MAX));
        code.extend_from_slice(&narrow(no).to_ne_bytes());
    }

    /// struct inet_diag_hostcond with any port.
    fn condition(vip: IpAddr) -> Vec<u8> {
        let (family, prefix, octets) = match vip {
            IpAddr::V4(ip) => (AF_INET, Ipv4Addr::BITS, ip.octets().to_vec()),
            IpAddr::V6(ip) => (AF_INET6, 128, ip.octets().to_vec()),
        };
        let mut condition = vec![family, u8::try_from(prefix).unwrap_or(u8::MAX), 0, 0];
        condition.extend_from_slice(&(-1_i32).to_ne_bytes());
        condition.extend_from_slice(&octets);
        condition
    }

    fn attribute(code: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + code.len()).unwrap_or(u16::MAX);
        [&length.to_ne_bytes()[..], &INET_DIAG_REQ_BYTECODE.to_ne_bytes()[..], code].concat()
    }
}
