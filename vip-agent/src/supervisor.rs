//! What a service manager is told: sd_notify(3), and the watchdog that it may want to be fed.
//!
//! By hand, as it is one datagram: the crate sd-notify knows no abstract sockets (`@NAME`), which service managers in
//! containers use.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    name: Option<OsString>,
    /// How often it is told that we live: half of what it waits for.
    feed_every: Option<Duration>,
    fed: Option<Instant>,
}

impl Supervisor {
    /// Who is named by NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID in the environment. One that cannot be reached is logged.
    pub fn from_environment() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.as_deref().and_then(reach);
        let [usec, pid] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(|name| env::var(name).ok());
        let feed_every = feeding(usec.as_deref(), pid.as_deref(), std::process::id());
        Self { socket, name, feed_every, fed: None }
    }

    /// Where it is, and how often its watchdog is fed: for a successor, which the service manager did not start.
    pub(crate) fn place(&self) -> (Option<String>, Option<Duration>) {
        let name = self.name.clone().filter(|_| self.socket.is_some());
        (name.and_then(|name| name.into_string().ok()), self.feed_every)
    }

    /// The one that the predecessor reported to, unless the environment names another.
    pub(crate) fn inherit(&mut self, name: Option<String>, feed_every: Option<Duration>) {
        if self.socket.is_none()
            && let Some(name) = name.map(OsString::from)
        {
            self.socket = reach(&name);
            self.name = Some(name);
        }
        self.feed_every = self.feed_every.or(feed_every);
    }

    /// Another process is the service from now on.
    pub(crate) fn succeeded_by(&self, pid: Option<i32>) {
        if let Some(pid) = pid {
            self.say(&format!("MAINPID={pid}"));
        }
    }

    /// The agent takes part in its elections.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// It hands over and ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Feeds the watchdog, if there is one and it is time. To be called only while all is well.
    pub fn feed(&mut self) {
        let Some(every) = self.feed_every else { return };
        if self.fed.is_some_and(|fed| fed.elapsed() < every) {
            return;
        }
        self.fed = Some(Instant::now());
        self.say("WATCHDOG=1");
    }

    fn say(&self, what: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(what.as_bytes()) {
            tracing::warn!(%error, "the service manager was not told {what}");
        }
    }
}

fn reach(name: &OsStr) -> Option<UnixDatagram> {
    let connected = connect(name);
    connected
        .inspect_err(|error| tracing::warn!(%error, "cannot reach NOTIFY_SOCKET {}", name.display()))
        .ok()
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    // A service manager that hangs must not make us hang.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How often the watchdog is to be fed, if it is meant for this process (sd_watchdog_enabled(3)).
fn feeding(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let patience = usec?.parse().ok().filter(|usec| *usec > 0).map(Duration::from_micros)?;
    Some(patience / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_fed_twice_in_its_time_and_only_if_it_is_ours() {
        let half = Some(Duration::from_millis(750));
        assert_eq!(feeding(Some("1500000"), Some("7"), 7), half);
        assert_eq!(feeding(Some("1500000"), None, 7), half);
        for (usec, pid) in
            [(Some("1500000"), Some("8")), (None, None), (Some("0"), None), (Some("soon"), None)]
        {
            assert_eq!(feeding(usec, pid, 7), None);
        }
    }

    #[test]
    fn sockets_are_found_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("viplane-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let managers = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&address).unwrap()];
        let names = [path.into_os_string(), format!("@{name}").into()];
        for (manager, name) in managers.iter().zip(names) {
            let socket = Some(connect(&name).unwrap());
            Supervisor { socket, name: None, feed_every: None, fed: None }.ready();
            let mut said = [0; 64];
            let length = manager.recv(&mut said).unwrap();
            assert_eq!(&said[..length], b"READY=1");
        }
        assert!(connect(OsStr::new("/nowhere")).is_err());
    }
}
