//! The agent's end: starts the watcher, keeps it informed, hears when it is gone.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use arrayvec::ArrayVec;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::lifeline::Lifeline;
use super::message::{Message, Received};
use super::{NAME, crash, plan};
use crate::dataplane::RouterSlot;
use crate::vrrp::driver::Binding;

/// The agent's own program, even where its file has been replaced since.
const PROGRAM: &str = "/proc/self/exe";

/// How long a watcher that was told goodbye may take to go, in steps of a millisecond.
const FAREWELL: u32 = 200;

/// A running watcher. Dropping it tells it that all is in good order, unless the dropping thread panics.
#[derive(Debug)]
pub struct Watcher {
    child: Child,
    socket: AsyncFd<OwnedFd>,
}

/// What is heard of a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It watches from now on.
    Ready(Ready),
    /// It is gone, or does not make sense.
    Gone,
}

/// How a watcher runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// With real-time priority.
    pub scheduling: bool,
    /// With locked memory.
    pub memory: bool,
}

impl Watcher {
    /// Starts one for this process. The lifeline must be held by now; to be called within the tokio runtime.
    ///
    /// # Errors
    /// No process can be started, or /proc is not mounted.
    pub fn start(lifeline: &Lifeline, deadlines: BorrowedFd<'_>, json: bool) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        // Before Linux 5.3 there are none; the lifeline and the closed socket tell enough.
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).ok();
        let mut descriptors: ArrayVec<BorrowedFd<'_>, 3> = ArrayVec::from_iter([lifeline.as_fd(), deadlines]);
        descriptors.extend(pidfd.as_ref().map(AsFd::as_fd));
        let agent = std::process::id();
        Message::Hello { agent, json }.send(ours.as_fd(), &descriptors)?;
        // SAFETY: an OwnedFd stays the same open descriptor until it is dropped, and the result owns it.
        let socket = unsafe { AsyncFd::register_with_interest(ours, Interest::READABLE) }?;
        let child = Command::new(PROGRAM)
            .arg0(NAME)
            .arg(agent.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()?;
        crash::tell(Some(socket.as_raw_fd()));
        Ok(Self { child, socket })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Prepares what it has to say for a router, in place of what it had before. To be told before the driver gets the
    /// binding.
    ///
    /// # Errors
    /// It is gone, or does not listen any more.
    pub fn prepare(&self, slot: RouterSlot, name: &str, binding: &Binding) -> io::Result<()> {
        let mut text = File::from(memfd_create("viplane-plan", MemfdFlags::CLOEXEC)?);
        text.write_all(&plan::encode(name, binding))?;
        text.rewind()?;
        let sockets = binding.families.iter().map(|family| family.sender.as_fd());
        let descriptors: ArrayVec<BorrowedFd<'_>, 3> = std::iter::once(text.as_fd()).chain(sockets).collect();
        Message::Plan { slot: slot.get() }.send(self.socket.as_fd(), &descriptors)
    }

    /// There is nothing more to say for the router in this slot.
    ///
    /// # Errors
    /// As for [`Self::prepare`].
    pub fn forget(&self, slot: RouterSlot) -> io::Result<()> {
        Message::Forget { slot: slot.get() }.send(self.socket.as_fd(), &[])
    }

    /// What is heard of it next.
    pub async fn event(&self) -> Event {
        loop {
            let Ok(mut ready) = self.socket.readable().await else { return Event::Gone };
            match Message::receive(self.socket.as_fd()) {
                Ok(Some(Received { message: Message::Ready { scheduling, memory }, .. })) => {
                    return Event::Ready(Ready { scheduling, memory });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Ok(_) | Err(_) => return Event::Gone,
            }
        }
    }

    /// Says goodbye and sees it go.
    fn dismiss(&mut self) {
        // It may be gone already.
        let _ = Message::Goodbye.send(self.socket.as_fd(), &[]);
        for _ in 0..FAREWELL {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Somebody has stopped it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        crash::tell(None);
        // Nobody hands over in a panic: the end of the process is a death to the peers, and to the watcher.
        if !std::thread::panicking() {
            self.dismiss();
        }
    }
}
