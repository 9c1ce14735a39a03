//! Generic netlink, as much of it as it takes to ask one question: the kernel's newer interfaces speak nothing else.

use std::io;

use rtnetlink::packet_core::NlasIterator;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// Bytes of `struct nlmsghdr` and of `struct genlmsghdr`.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;

// Of linux/genetlink.h.
const CONTROLLER: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NLA_F_NESTED: u16 = 1 << 15;

/// A family of commands.
pub(super) struct Genetlink {
    socket: Socket,
    family: u16,
}

impl Genetlink {
    /// Looks a family up by its name; `None`: this kernel does not have it.
    pub(super) fn open(name: &str) -> io::Result<Option<Self>> {
        let controller = Self { socket: Socket::new(NETLINK_GENERIC)?, family: CONTROLLER };
        let name = Attribute::new(CTRL_ATTR_FAMILY_NAME, format!("{name}\0").as_bytes());
        let answer = match controller.ask(CTRL_CMD_GETFAMILY, &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            answer => answer?,
        };
        let id = attributes(&answer).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
        let id = id.and_then(|(_, id)| Some(u16::from_ne_bytes(id.try_into().ok()?)));
        let family = id.ok_or_else(|| io::Error::other("a netlink family without a number"))?;
        Ok(Some(Self { socket: controller.socket, family }))
    }

    /// Asks about one thing; yields the attributes of the answer.
    pub(super) fn ask(&self, command: u8, about: &Attribute) -> io::Result<Vec<u8>> {
        let length = HEADER + GENERIC_HEADER + about.0.len();
        let mut message = u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes().to_vec();
        message.extend(self.family.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        // Sequence number and port: there is one question at a time, and the kernel knows who asks.
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(&about.0);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        body(answer)
    }
}

fn body(mut answer: Vec<u8>) -> io::Result<Vec<u8>> {
    let short = || io::Error::other("a netlink answer that ends early");
    let kind = answer.get(4..6).ok_or_else(short)?;
    if kind == NLMSG_ERROR.to_ne_bytes() {
        let code = answer.get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok()).ok_or_else(short)?;
        return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(code)));
    }
    if answer.len() < HEADER + GENERIC_HEADER {
        return Err(short());
    }
    Ok(answer.split_off(HEADER + GENERIC_HEADER))
}

/// An attribute as it goes over the wire, padding included.
pub(super) struct Attribute(Vec<u8>);

impl Attribute {
    /// One with a value.
    pub(super) fn new(kind: u16, value: &[u8]) -> Self {
        // The length is without the padding. Values here are a few bytes.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self(bytes)
    }

    /// One that holds others.
    pub(super) fn nest(kind: u16, parts: &[Self]) -> Self {
        let parts: Vec<u8> = parts.iter().flat_map(|part| &part.0).copied().collect();
        Self::new(kind | NLA_F_NESTED, &parts)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes in these bytes, by kind, up to the first that is malformed.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        (kind, &attribute.into_inner()[4..length])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_systems_error() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert_eq!(body(answer).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn an_answer_that_ends_early_is_no_answer() {
        for length in 0..HEADER + GENERIC_HEADER {
            assert!(body(vec![0; length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let written = Attribute::nest(7, &[Attribute::new(1, &[1, 2, 3]), Attribute::new(2, &[])]);
        let (kind, parts) = attributes(written.bytes()).next().unwrap();
        assert_eq!(kind, 7);
        assert_eq!(attributes(parts).collect::<Vec<_>>(), [(1, &[1, 2, 3][..]), (2, &[])]);
    }
}
