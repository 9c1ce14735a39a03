//! A driver thread that hangs: stopped alone, by ptrace, while the rest of the agent runs.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use vip_lab::agent::Agent;

use crate::agents::{self, SOON, ms};
use crate::client::{get, wait_status};

/// A thread that is stopped until this is dropped. ptrace wants to be told so by the thread that began it.
struct Stopped(Pid);

fn ptrace(request: libc::c_uint, thread: Pid) -> Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests (SEIZE, INTERRUPT, DETACH) read and write no memory of ours.
    let done = unsafe { libc::ptrace(request, thread.as_raw(), nothing, nothing) };
    ensure!(done == 0, "ptrace({request}): {}", std::io::Error::last_os_error());
    Ok(())
}

impl Stopped {
    /// Stops the VRRP driver thread of an agent.
    fn driver_of(agent: &Agent) -> Result<Self> {
        let tasks = format!("/proc/{}/task", agent.process().pid());
        let mut threads = fs::read_dir(tasks)?.flatten();
        let driver = threads.find(|thread| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == "vrrp")
        });
        let driver = driver.context("no thread vrrp")?;
        let thread = Pid::from_raw(driver.file_name().to_string_lossy().parse()?);
        ptrace(libc::PTRACE_SEIZE, thread)?;
        let stopped = Self(thread);
        ptrace(libc::PTRACE_INTERRUPT, thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // The agent may have been killed.
        let _ = ptrace(libc::PTRACE_DETACH, self.0);
    }
}

/// What a service manager hears next.
fn next(manager: &UnixDatagram) -> Result<String> {
    let mut message = [0; 256];
    manager.set_read_timeout(Some(SOON))?;
    let length = manager.recv(&mut message).context("the service manager hears nothing")?;
    Ok(String::from_utf8(message[..length].to_vec())?)
}

/// What a service manager heard within `span`, one message each.
fn heard(manager: &UnixDatagram, span: Duration) -> Result<Vec<String>> {
    let (mut messages, end) = (Vec::new(), Instant::now() + span);
    let mut message = [0; 256];
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        manager.set_read_timeout(Some(left))?;
        if let Ok(length) = manager.recv(&mut message) {
            messages.push(String::from_utf8(message[..length].to_vec())?);
        }
    }
    Ok(messages)
}

#[test]
fn a_driver_that_hangs_fails_healthz_and_starves_the_watchdog_until_it_runs_again() -> Result<()> {
    let lab = agents::lab().nodes(1).build()?;
    let path = lab.node(1).file_path("notify");
    let socket = path.clone();
    let manager = lab.node(1).run(move || UnixDatagram::bind(socket))?;
    let agent = agents::agent(&lab, 1)
        .grace(ms(100))
        .env("NOTIFY_SOCKET", &path.to_string_lossy())
        .env("WATCHDOG_USEC", "1000000")
        .start()?;
    agent.wait_state("active", SOON)?;
    let node = agent.node();
    ensure!(next(&manager)? == "READY=1");
    for _ in 0..3 {
        ensure!(next(&manager)? == "WATCHDOG=1");
    }
    ensure!(get(node, "/healthz")?.status == 200);

    let stopped = Stopped::driver_of(&agent)?;
    let sick = wait_status(node, "/healthz", 503)?;
    ensure!(sick.body.starts_with("the VRRP driver thread has given no sign of life for"), "{sick:?}");
    // Fed at most until it was noticed.
    heard(&manager, ms(500))?;
    let starved = heard(&manager, ms(1500))?;
    ensure!(starved.is_empty(), "{starved:?}");
    ensure!(get(node, "/readyz")?.status == 503);
    // What does not need the driver is told all the same.
    for path in ["/status", "/metrics"] {
        let answer = get(node, path)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
    }
    drop(stopped);

    wait_status(node, "/healthz", 200)?;
    agent.wait_state("active", SOON)?;
    ensure!(next(&manager)? == "WATCHDOG=1");
    agent.signal(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(agent.wait(SOON)?.success(), "{}", agent.log());
    ensure!(heard(&manager, ms(100))?.contains(&"STOPPING=1".to_owned()));
    Ok(())
}
