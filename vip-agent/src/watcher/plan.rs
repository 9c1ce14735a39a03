//! What is to be said for one virtual router when its agent is dead: prebuilt, down to the arguments of each system call.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::vrrp::driver::Binding;

/// The priority-0 adverts of one virtual router, in all of its families and to all destinations, with the sockets for
/// them.
#[derive(Debug)]
pub(super) struct Plan {
    /// The instance's name, for the log.
    pub(super) name: String,
    sockets: Vec<OwnedFd>,
    adverts: Vec<Advert>,
}

#[derive(Debug, PartialEq, Eq)]
struct Advert {
    /// Index of its socket.
    socket: usize,
    /// A sockaddr of any kind.
    destination: Vec<u8>,
    payload: Vec<u8>,
}

/// What became of a plan's adverts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The kernel took them.
    pub(super) sent: usize,
    /// It did not.
    pub(super) refused: usize,
}

/// Writes a binding's plan. The sockets go beside it, in the order of the families.
pub(super) fn encode(name: &str, binding: &Binding) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, name.as_bytes());
    for (socket, family) in binding.families.iter().enumerate() {
        for (destination, payload) in family.sender.prepare(&family.leaving) {
            put(&mut bytes, &[u8::try_from(socket).unwrap_or(u8::MAX)]);
            put(&mut bytes, &destination);
            put(&mut bytes, payload);
        }
    }
    bytes
}

/// Adverts and addresses are far shorter than 64 KiB.
fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    let len = u16::try_from(part.len()).unwrap_or(u16::MAX);
    bytes.extend(len.to_ne_bytes());
    bytes.extend(&part[..usize::from(len)]);
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(usize::from(u16::from_ne_bytes(*len)))?;
    *bytes = rest;
    Some(part)
}

impl Plan {
    /// Reads one; `None` if it is none, or names a socket that did not come with it.
    pub(super) fn decode(mut bytes: &[u8], sockets: Vec<OwnedFd>) -> Option<Self> {
        let name = String::from_utf8_lossy(take(&mut bytes)?).into_owned();
        let mut adverts = Vec::new();
        while !bytes.is_empty() {
            let &[socket] = take(&mut bytes)? else { return None };
            let (destination, payload) = (take(&mut bytes)?.to_vec(), take(&mut bytes)?.to_vec());
            adverts.push(Advert { socket: usize::from(socket), destination, payload });
        }
        let complete = adverts.iter().all(|advert| advert.socket < sockets.len());
        complete.then_some(Self { name, sockets, adverts })
    }

    /// One that says `payload` once, through `socket` to `destination` (a sockaddr).
    pub(super) fn of_one(name: &str, socket: OwnedFd, destination: &[u8], payload: &[u8]) -> Self {
        let advert = Advert { socket: 0, destination: destination.to_vec(), payload: payload.to_vec() };
        Self { name: name.to_owned(), sockets: vec![socket], adverts: vec![advert] }
    }

    /// Says it all once. No allocation, no waiting.
    pub(super) fn say(&self) -> Said {
        let mut said = Said::default();
        for advert in &self.adverts {
            if self.send(advert).is_ok() { said.sent += 1 } else { said.refused += 1 }
        }
        said
    }

    fn send(&self, advert: &Advert) -> io::Result<()> {
        let Advert { socket, destination, payload } = advert;
        let length = libc::socklen_t::try_from(destination.len()).unwrap_or(0);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: both pointers are to live memory of the lengths that go with them; the kernel copies the address, so
        // that it needs no alignment, and checks what it says.
        let sent = unsafe {
            libc::sendto(
                self.sockets[*socket].as_raw_fd(),
                payload.as_ptr().cast(),
                payload.len(),
                flags,
                destination.as_ptr().cast(),
                length,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;

    use super::*;

    fn any_socket() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn encoded(name: &str, adverts: &[(u8, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, name.as_bytes());
        for (socket, destination, payload) in adverts {
            [&[*socket], destination.as_slice(), payload.as_slice()]
                .iter()
                .for_each(|part| put(&mut bytes, part));
        }
        bytes
    }

    #[test]
    fn a_plan_comes_out_as_it_went_in() {
        let adverts = [(0, vec![1; 16], vec![2; 12]), (1, vec![3; 28], vec![4; 4088])];
        let plan = Plan::decode(&encoded("edge", &adverts), vec![any_socket(), any_socket()]).unwrap();
        let read: Vec<_> = plan
            .adverts
            .iter()
            .map(|advert| (advert.socket as u8, advert.destination.clone(), advert.payload.clone()))
            .collect();
        assert_eq!((plan.name.as_str(), read.as_slice()), ("edge", adverts.as_slice()));
    }

    #[test]
    fn a_plan_without_its_sockets_is_none() {
        assert!(Plan::decode(&encoded("edge", &[(1, vec![0; 16], vec![])]), vec![any_socket()]).is_none());
    }

    #[test]
    fn what_the_kernel_does_not_take_is_counted() {
        let plan = encoded("edge", &[(0, vec![0; 16], vec![1]), (0, vec![0; 16], vec![2])]);
        let said = Plan::decode(&plan, vec![any_socket()]).unwrap().say();
        assert_eq!(said, Said { sent: 0, refused: 2 });
    }

    proptest! {
        #[test]
        fn a_torn_plan_is_none_or_shorter(cut in 0usize..60) {
            let whole = encoded("edge", &[(0, vec![1; 16], vec![2; 12]), (0, vec![3; 16], vec![4; 12])]);
            let torn = Plan::decode(&whole[..cut.min(whole.len())], vec![any_socket()]);
            prop_assert!(torn.is_none_or(|plan| plan.adverts.iter().all(|advert| advert.payload.len() == 12)));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
            drop(Plan::decode(&bytes, vec![any_socket()]));
        }
    }
}
