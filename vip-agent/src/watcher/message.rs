//! What agent and watcher tell each other: eight bytes on a SOCK_SEQPACKET, whole or not at all, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Descriptors that come with one message.
const DESCRIPTORS: usize = 4;
const SPACE: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS));
const LEN: usize = 8;

pub(super) type Bytes = [u8; LEN];

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Agent, first of all: its process id and whether its log is JSON. Descriptors: lifeline, DEADLINES, and a pidfd
    /// where there are such.
    Hello { agent: u32, json: bool },
    /// Watcher: it watches; with real-time priority, with locked memory.
    Ready { scheduling: bool, memory: bool },
    /// Agent: what to say for the router in this slot from now on. Descriptors: the encoded [`super::plan::Plan`], and a
    /// socket for each family.
    Plan { slot: u16 },
    /// Agent: nothing more for this one.
    Forget { slot: u16 },
    /// Agent: it ends in good order, nothing is to be said.
    Goodbye,
    /// The agent's handler of fatal signals: it will never write to a word again.
    Crashed,
}

/// A message and what came with it.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) message: Message,
    pub(super) descriptors: ArrayVec<OwnedFd, DESCRIPTORS>,
}

impl Message {
    pub(super) const fn encode(self) -> Bytes {
        match self {
            Self::Hello { agent, json } => {
                let [a, b, c, d] = agent.to_ne_bytes();
                [b'H', json as u8, 0, 0, a, b, c, d]
            }
            Self::Ready { scheduling, memory } => [b'R', scheduling as u8, memory as u8, 0, 0, 0, 0, 0],
            Self::Plan { slot } => with_slot(b'P', slot),
            Self::Forget { slot } => with_slot(b'F', slot),
            Self::Goodbye => with_slot(b'G', 0),
            Self::Crashed => with_slot(b'C', 0),
        }
    }

    pub(super) const fn decode(bytes: Bytes) -> Option<Self> {
        let [kind, first, second, _, a, b, c, d] = bytes;
        let slot = u16::from_ne_bytes([a, b]);
        Some(match kind {
            b'H' => Self::Hello { agent: u32::from_ne_bytes([a, b, c, d]), json: first != 0 },
            b'R' => Self::Ready { scheduling: first != 0, memory: second != 0 },
            b'P' => Self::Plan { slot },
            b'F' => Self::Forget { slot },
            b'G' => Self::Goodbye,
            b'C' => Self::Crashed,
            _ => return None,
        })
    }

    /// Sends it, without waiting.
    ///
    /// # Errors
    /// The other end is gone, or does not read (WouldBlock).
    pub(super) fn send(self, socket: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("more descriptors than a message has room for"));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(socket, &[IoSlice::new(&self.encode())], &mut control, flags)?;
        Ok(())
    }

    /// The next message; `None`: the other end is closed.
    ///
    /// # Errors
    /// None waits and the socket does not block; or it is no message.
    pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Received>> {
        let mut bytes = Bytes::default();
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                // The other end went with something of ours unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                got => break got?,
            }
        };
        if got.bytes == 0 {
            return Ok(None);
        }
        let message = Self::decode(bytes).filter(|_| got.bytes == LEN);
        let message = message.ok_or_else(|| io::Error::other("not a message of ours"))?;
        let mut descriptors = ArrayVec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = part {
                descriptors.extend(more.take(DESCRIPTORS));
            }
        }
        Ok(Some(Received { message, descriptors }))
    }
}

const fn with_slot(kind: u8, slot: u16) -> Bytes {
    let [a, b] = slot.to_ne_bytes();
    [kind, 0, 0, 0, a, b, 0, 0]
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn every_message_comes_out_as_it_went_in() {
        let (here, there) = pair();
        for message in [
            Message::Hello { agent: 4711, json: true },
            Message::Ready { scheduling: true, memory: false },
            Message::Plan { slot: 1023 },
            Message::Forget { slot: 258 },
            Message::Goodbye,
            Message::Crashed,
        ] {
            message.send(here.as_fd(), &[there.as_fd()]).unwrap();
            let received = Message::receive(there.as_fd()).unwrap().unwrap();
            assert_eq!((received.message, received.descriptors.len()), (message, 1));
        }
    }

    #[test]
    fn the_end_of_the_other_is_told_from_a_message() {
        let (here, there) = pair();
        Message::Goodbye.send(here.as_fd(), &[]).unwrap();
        drop(here);
        assert_eq!(Message::receive(there.as_fd()).unwrap().unwrap().message, Message::Goodbye);
        assert!(Message::receive(there.as_fd()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (here, there) = pair();
        rustix::io::write(&here, b"Z0000000").unwrap();
        assert!(Message::receive(there.as_fd()).is_err());
        rustix::io::write(&here, b"G").unwrap();
        assert!(Message::receive(there.as_fd()).is_err());
    }
}
