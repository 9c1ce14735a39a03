//! What an agent and its successor say to each other: `vip-agent run --take-over`.
//!
//! ```text
//! successor                                   agent
//!   TakeOver {protocol}    ─────────────────►   goes on; changes nothing of itself from here on
//!   (makes everything ready) ◄───────────────   Greeting: its configuration and places
//!   Step::Yield            ─────────────────►   announces a longer interval, falls silent
//!   (goes on in its place)   ◄───────────────   Estate, with the descriptors that keep the locks
//!   Step::Done             ─────────────────►   ends without a word, and takes nothing away
//! ```
//!
//! If the successor dies, is late or gives up before it is done, the connection ends and the agent goes on. One JSON line
//! each; answers are [`Answer`]s, so that agents without this request refuse it in words.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{Answer, MAX_LINE};
use crate::status::Takeover;
use crate::types::MonotonicTime;
use crate::vrrp::machine::Carried;

/// The version of all this: agents of different ones do not hand over to each other.
pub(crate) const PROTOCOL: u32 = 1;

/// Descriptors that come with an estate: the locks of network namespace, runtime_dir and pin_dir.
pub(crate) const LOCKS: usize = 3;
const SPACE: usize = rustix::cmsg_space!(ScmRights(LOCKS));

/// What the agent is, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// Inode of its network namespace.
    pub(crate) network_namespace: Option<u64>,
    /// Its configuration, as it was read.
    pub(crate) config: String,
    /// The service manager that it reports to, and how often its watchdog is fed.
    pub(crate) notify_socket: Option<String>,
    pub(crate) feed_every: Option<Duration>,
    /// The slots that services have in its tables, by name.
    #[serde(default)]
    pub(crate) services: BTreeMap<String, u16>,
}

/// What the successor asks for after the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Everything is ready: the agent is to fall silent.
    Yield,
    /// The successor has everything, and its adverts are out.
    Done,
}

/// What is handed on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Estate {
    /// When the agent fell silent.
    pub(crate) silent_since: MonotonicTime,
    pub(crate) instances: Vec<Inherited>,
    /// Verdicts by probe: up or not, and why not.
    pub(crate) verdicts: BTreeMap<String, (bool, Option<String>)>,
    /// What was heard last of senders that sign, by instance.
    pub(crate) heard: serde_json::Value,
    /// Transitions counted, by instance, state and cause.
    pub(crate) transitions: Vec<(String, String, String, u64)>,
    /// Whether runtime_dir goes with the last agent.
    pub(crate) runtime_dir_goes: bool,
}

/// One instance.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Inherited {
    pub(crate) name: String,
    pub(crate) carried: Carried,
    /// MAC of the former owner, and until when frames go there.
    pub(crate) former: ([u8; 6], MonotonicTime),
    /// When it entered its state, by both clocks.
    pub(crate) entered_at: MonotonicTime,
    pub(crate) since: SystemTime,
    pub(crate) changes: u64,
    pub(crate) drained: bool,
    pub(crate) last_takeover: Option<Takeover>,
    pub(crate) last_release: Option<Takeover>,
    pub(crate) connections_cut: u64,
    /// Adverts sent, refused, received.
    pub(crate) adverts: [u64; 3],
    /// Since when its addresses linger, and until when.
    pub(crate) lingers: Option<(MonotonicTime, MonotonicTime)>,
}

/// Either end of the connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: UnixStream,
    /// Of what was read, what is not a line yet.
    buffer: Vec<u8>,
    /// What came with it.
    descriptors: Vec<OwnedFd>,
}

impl Conversation {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), descriptors: Vec::new() }
    }

    /// With the agent that listens at `path`; `None` if none does.
    ///
    /// # Errors
    /// The socket may not be opened.
    pub(crate) async fn with_agent_at(path: &Path) -> io::Result<Option<Self>> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Some(Self::new(stream))),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The process at the other end, if it has a number here: one of another PID namespace has none.
    pub(crate) fn peer(&self) -> Option<i32> {
        self.stream.peer_cred().ok()?.pid().filter(|pid| *pid > 0)
    }

    /// Waits until the other end is closed, whatever it still says; false if it is not after so long.
    pub(crate) async fn ends_within(&mut self, patience: Duration) -> bool {
        let ends = async { while !matches!(self.hear::<serde_json::Value>().await, Ok(None) | Err(_)) {} };
        tokio::time::timeout(patience, ends).await.is_ok()
    }

    /// Says something, and hands these descriptors over with it.
    ///
    /// # Errors
    /// The other end is gone.
    pub(crate) async fn say(&self, what: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        let (mut rest, mut descriptors) = (line.as_slice(), descriptors);
        while !rest.is_empty() {
            let send = || send(self.stream.as_fd(), rest, descriptors);
            let sent = self.stream.async_io(Interest::WRITABLE, send).await?;
            rest = &rest[sent..];
            // They went with the first byte.
            descriptors = &[];
        }
        Ok(())
    }

    /// What the other end says next; `None`: nothing any more. May be given up and called again: nothing is lost.
    ///
    /// # Errors
    /// What it says makes no sense here.
    pub(crate) async fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.buffer.len() as u64 > MAX_LINE {
                return Err(io::Error::other("it says too much"));
            }
            let Self { stream, buffer, descriptors } = &mut *self;
            let receive = || receive(stream.as_fd(), buffer, descriptors);
            match stream.async_io(Interest::READABLE, receive).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Self::hear`], what comes as an [`Answer`].
    ///
    /// # Errors
    /// The other end is gone, makes no sense, or refuses: in its words.
    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        match self.hear().await? {
            Some(Answer::Ok(value)) => Ok(serde_json::from_value(value)?),
            Some(Answer::Error(why)) => anyhow::bail!(why),
            None => anyhow::bail!("it ended before it answered"),
        }
    }

    /// The descriptors that came so far.
    pub(crate) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("more descriptors than a message has room for"));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}

fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut chunk = [0; 4096];
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut chunk)], &mut control, flags)?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = part {
            descriptors.extend(more);
        }
    }
    buffer.extend_from_slice(&chunk[..got.bytes]);
    Ok(got.bytes)
}

/// Inode of the network namespace of the calling thread.
pub(crate) fn network_namespace() -> Option<u64> {
    std::fs::metadata("/proc/thread-self/ns/net").ok().map(|found| found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> [Conversation; 2] {
        let (here, there) = UnixStream::pair().unwrap();
        [here, there].map(Conversation::new)
    }

    #[tokio::test]
    async fn what_is_said_is_heard_with_the_descriptors_that_came_with_it() {
        let [here, mut there] = pair();
        let estate = Estate { silent_since: MonotonicTime(7), ..Estate::default() };
        let stdin = io::stdin();
        here.say(&estate, &[stdin.as_fd(), stdin.as_fd()]).await.unwrap();
        here.say(&Step::Done, &[]).await.unwrap();
        let heard: Estate = there.hear().await.unwrap().unwrap();
        assert_eq!((heard.silent_since, there.take_descriptors().len()), (MonotonicTime(7), 2));
        assert_eq!(there.hear().await.unwrap(), Some(Step::Done));
        drop(here);
        assert_eq!(there.hear::<Step>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_estate_larger_than_a_socket_buffer_arrives_whole() {
        let [here, mut there] = pair();
        let long = "x".repeat(900_000);
        let (said, heard) = tokio::join!(here.say(&long, &[]), there.hear::<String>());
        said.unwrap();
        assert_eq!(heard.unwrap().unwrap(), long);
    }

    #[tokio::test]
    async fn a_refusal_is_repeated_in_the_words_of_who_refuses() {
        let [here, mut there] = pair();
        here.say(&Answer::Error("not today".into()), &[]).await.unwrap();
        assert_eq!(there.answer::<Greeting>().await.unwrap_err().to_string(), "not today");
    }
}
