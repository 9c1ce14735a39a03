//! The watcher's own process: few pages, two threads, no allocation once the agent is dead.

use std::io::{self, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_name;

use super::NAME;
use super::lifeline::{End, Lifeline};
use super::message::{Message, Received};
use super::plan::Plan;
use super::resignation::{Done, Resignation};
use crate::dataplane::Deadlines;
use crate::net::instance_lock;
use crate::privilege;
use crate::vrrp::driver::realtime;

/// Of the thread that waits for the lifeline: it holds a copy of the deadlines (8 KiB) and little else.
const STACK: usize = 64 * 1024;

/// The kernel keeps 15 letters.
const COMM: &std::ffi::CStr = c"vip-agent-watch";

/// How long an agent that has closed its end may take to die.
const LAST_BREATH: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Whether this process was started to be a watcher.
pub fn is_called() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Runs it to its end: when the agent has ended, in whatever way. The agent's socket is standard input.
pub fn main() -> ExitCode {
    match watch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {error}; it is started by vip-agent, and of no use by itself");
            ExitCode::FAILURE
        }
    }
}

/// What both threads share.
#[derive(Clone)]
struct Watch {
    resignation: Arc<Mutex<Resignation>>,
    agent: u32,
    json: bool,
}

fn watch() -> io::Result<()> {
    prepare_process()?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let received = Message::receive(socket.as_fd())?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let Message::Hello { agent, json } = received.message else {
        return Err(io::Error::other("an agent says hello first"));
    };
    let mut descriptors = received.descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(|| io::Error::other("a descriptor is missing"));
    let (lifeline, deadlines) = (Lifeline::open(next()?)?, Deadlines::map(next()?.as_fd())?);
    let pidfd = descriptors.next();

    let scheduling = realtime::scheduling(libc::SCHED_FIFO).is_ok();
    let memory = realtime::memory().is_ok();
    drop_privileges();
    let pid = agent.cast_signed();
    let succeeded = move || instance_lock::holder().is_some_and(|holder| holder.pid() != Some(pid));
    let watch =
        Watch { resignation: Arc::new(Mutex::new(Resignation::new(deadlines, succeeded))), agent, json };
    rehearse()?;
    watch.start_waiting(lifeline)?;
    Message::Ready { scheduling, memory }.send(socket.as_fd(), &[])?;
    watch.listen(socket, pidfd.as_ref())
}

impl Watch {
    /// Starts the thread that waits for the lifeline; from then on the process may do no more than watching takes.
    fn start_waiting(&self, lifeline: Lifeline) -> io::Result<()> {
        let waiting = self.clone();
        let begun = Arc::new(Barrier::new(2));
        let begins = Arc::clone(&begun);
        std::thread::Builder::new().name("lifeline".into()).stack_size(STACK).spawn(move || {
            // A thread's own beginning takes more than watching does.
            begins.wait();
            waiting.wait_for(&lifeline);
        })?;
        begun.wait();
        // It may run without a filter of its own as well.
        let _ = privilege::become_watcher();
        Ok(())
    }

    /// Waits for the death of the driver thread. Its orderly end is the beginning of the agent's.
    fn wait_for(&self, lifeline: &Lifeline) {
        if lifeline.wait().is_ok_and(|end| end == End::Died) {
            self.resign();
            std::process::exit(0);
        }
    }

    /// Follows what the agent says, until it has ended.
    fn listen(&self, socket: OwnedFd, pidfd: Option<&OwnedFd>) -> io::Result<()> {
        let mut socket = Some(socket);
        loop {
            let news = wait_for_news(socket.as_ref(), pidfd)?;
            // What it said last counts, even if it is dead by now.
            if let (true, Some(open)) = (news.message, &socket) {
                match Message::receive(open.as_fd())? {
                    Some(received) => {
                        if self.hear(received).is_break() {
                            return Ok(());
                        }
                    }
                    None => socket = None,
                }
            } else if news.death {
                self.resign();
                return Ok(());
            }
            if socket.is_none() && pidfd.is_none() {
                self.resign();
                return Ok(());
            }
            if !news.message && !news.death {
                // It closed its end long ago, and lives: it can be told nothing any more.
                return Ok(());
            }
        }
    }

    /// Whether there is more to come.
    fn hear(&self, received: Received) -> ControlFlow<()> {
        match received.message {
            Message::Plan { slot } => {
                let plan = read_plan(received.descriptors);
                self.lock().plan(slot, plan);
            }
            Message::Forget { slot } => self.lock().plan(slot, None),
            Message::Crashed => {
                self.resign();
                return ControlFlow::Break(());
            }
            Message::Goodbye => return ControlFlow::Break(()),
            Message::Hello { .. } | Message::Ready { .. } => {}
        }
        ControlFlow::Continue(())
    }

    fn lock(&self) -> MutexGuard<'_, Resignation> {
        self.resignation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By whichever thread hears of it first; the other waits for its end, and finds nothing left to do.
    fn resign(&self) {
        let resignation = self.lock();
        let done = resignation.carry_out();
        if !done.silenced.is_empty() {
            self.report(&done);
        }
    }

    fn report(&self, done: &Done) {
        let Done { silenced, said, succeeded } = done;
        let text = format!(
            "vip-agent (pid {}) died without a word: silenced {}; priority 0 sent {} times, refused {} times{}",
            self.agent,
            silenced.join(" "),
            said.sent,
            said.refused,
            if *succeeded { ", then another agent was there" } else { "" },
        );
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        let line = if self.json {
            let line = serde_json::json!({ "timestamp": now.to_string(), "level": "WARN", "message": text });
            format!("{line}\n")
        } else {
            format!("{now}  WARN {text}\n")
        };
        // Whoever reads the log may be gone with the agent, or slow: nothing may wait for that here.
        let stderr = io::stderr();
        let mut writable = [PollFd::new(&stderr, PollFlags::OUT)];
        if poll(&mut writable, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1) {
            let _ = stderr.lock().write_all(line.as_bytes());
        }
    }
}

/// What [`wait_for_news`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct News {
    /// A message waits, or the agent's end of the socket is closed.
    message: bool,
    /// The agent is dead.
    death: bool,
}

/// Waits for a message or the agent's death. Neither, if the socket is closed already and nothing happens for some time.
fn wait_for_news(socket: Option<&OwnedFd>, pidfd: Option<&OwnedFd>) -> io::Result<News> {
    let mut fds: ArrayVec<PollFd<'_>, 2> =
        socket.into_iter().chain(pidfd).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = socket.is_none().then_some(&LAST_BREATH);
    while let Err(error) = poll(&mut fds, timeout) {
        if error != rustix::io::Errno::INTR {
            return Err(error.into());
        }
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    let message = socket.is_some() && ready.next().unwrap_or_default();
    Ok(News { message, death: pidfd.is_some() && ready.next().unwrap_or_default() })
}

/// A plan that cannot be read is none: its router is silenced, and peers wait out Active_Down.
fn read_plan(descriptors: impl IntoIterator<Item = OwnedFd>) -> Option<Plan> {
    let mut descriptors = descriptors.into_iter();
    let mut bytes = Vec::new();
    std::fs::File::from(descriptors.next()?).read_to_end(&mut bytes).ok()?;
    Plan::decode(&bytes, descriptors.collect())
}

/// Touches every page of code, stack and data that the agent's death will need, so that they are in memory (and locked
/// there) by then: does everything, with words that are nobody's and a socket that is none.
fn rehearse() -> io::Result<()> {
    let memory = rustix::fs::memfd_create("rehearsal", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&memory, u64::from(vip_common::maps::MAX_ROUTERS) * 8)?;
    let words = Deadlines::map(memory.as_fd())?;
    let asks = || {
        let _ = instance_lock::holder();
        false
    };
    Resignation::new(words, asks).rehearse(memory);
    Ok(())
}

/// Makes of a copy of the agent's program what it is to be here.
fn prepare_process() -> io::Result<()> {
    set_name(COMM)?;
    block_signals()?;
    close_all_but_standard();
    // Each instance has a socket per family.
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    Ok(())
}

/// What is meant for the agent (Ctrl-C in a terminal, SIGTERM to a whole control group) is no reason to end before it.
fn block_signals() -> io::Result<()> {
    let all = nix::sys::signal::SigSet::all();
    Ok(all.thread_block()?)
}

/// Whatever the agent itself inherited stays with it.
fn close_all_but_standard() {
    // SAFETY: nothing in this process has opened a descriptor yet that anything refers to. Before Linux 5.9 there is no
    // such call, and what is inherited stays open.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Everything is open by now. Memory that is yet to be mapped must stay within what may be locked.
fn drop_privileges() {
    // It may run with what it has as well.
    let _ = privilege::limit_to(privilege::WATCHER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_without_its_text_is_none() {
        assert!(read_plan([]).is_none());
    }

    #[test]
    fn a_closed_socket_and_a_dead_agent_are_told_apart() {
        let (readable, closed) = nix::unistd::pipe().unwrap();
        let (quiet, _open) = nix::unistd::pipe().unwrap();
        drop(closed);
        let news = |socket, pidfd| wait_for_news(socket, pidfd).unwrap();
        assert_eq!(news(Some(&readable), Some(&quiet)), News { message: true, death: false });
        assert_eq!(news(Some(&quiet), Some(&readable)), News { message: false, death: true });
        assert_eq!(news(None, Some(&readable)), News { message: false, death: true });
        assert_eq!(news(Some(&readable), None), News { message: true, death: false });
    }
}
