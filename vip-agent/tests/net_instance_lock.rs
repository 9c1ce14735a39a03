//! One agent per network namespace, told who has it.

#[path = "support/sandbox.rs"]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Sandbox, sandbox};
use vip_agent::net::instance_lock::{InstanceLock, LockError};

const RUNTIME_DIR: &str = "VIPLANE_TEST_RUNTIME_DIR";

/// The other agent: this program once more, with only this test.
#[test]
fn holds_the_lock_where_another_test_asks_for_it() {
    let Some(runtime_dir) = std::env::var_os(RUNTIME_DIR) else { return };
    let _lock = InstanceLock::acquire(&PathBuf::from(runtime_dir)).expect("the lock");
    println!("\nheld");
    std::io::stdout().flush().expect("a pipe");
    std::io::stdin().lines().next();
}

struct Agent(Child);

impl Agent {
    fn start(runtime_dir: &Path) -> Self {
        let mut agent = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "holds_the_lock_where_another_test_asks_for_it", "--nocapture"])
            .env(RUNTIME_DIR, runtime_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the other agent");
        let output = BufReader::new(agent.stdout.take().expect("its output"));
        let held = output.lines().map_while(Result::ok).any(|line| line == "held");
        assert!(held, "the other agent did not get the lock");
        Self(agent)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a pid")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("a signal");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().expect("a running agent");
        self.0.wait().expect("its end");
    }
}

/// The lock, which nobody holds any more. Another test of this process may be starting a program meanwhile: between its fork and
/// its exec that one has all that this process had open, the sockets that were dropped included.
fn acquire_at_last(runtime_dir: &Path) -> InstanceLock {
    for _ in 0..1500 {
        match InstanceLock::acquire(runtime_dir) {
            Err(LockError::Running { .. } | LockError::DirectoryInUse { .. }) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other.expect("the lock"),
        }
    }
    panic!("never came: the lock of {}", runtime_dir.display());
}

fn running(runtime_dir: &Path) -> String {
    let error = InstanceLock::acquire(runtime_dir).expect_err("one runs already");
    assert!(matches!(error, LockError::Running { .. }), "{error}");
    error.to_string()
}

#[test]
fn a_second_agent_is_told_of_the_first_whatever_its_directory() {
    sandbox(async |host: Sandbox| {
        let first = Agent::start(&host.dir().join("first"));
        let expected = format!(
            "vip-agent (pid {}) runs already on this host; it serves all instances of this network namespace",
            first.pid()
        );
        assert_eq!(running(&host.dir().join("first")), expected);
        assert_eq!(running(&host.dir().join("second")), expected);
    });
}

#[test]
fn a_stopped_agent_still_holds_the_lock_and_is_named() {
    sandbox(async |host: Sandbox| {
        let first = Agent::start(host.dir());
        first.signal(Signal::SIGSTOP);
        assert!(running(host.dir()).contains(&format!("pid {}", first.pid())));
    });
}

#[test]
fn the_holder_is_named_however_often_it_is_asked() {
    sandbox(async |host: Sandbox| {
        let first = Agent::start(host.dir());
        // Nobody accepts, so the backlog of the socket fills; its largest is 4096.
        for _ in 0..4200 {
            assert!(running(host.dir()).contains(&format!("pid {}", first.pid())));
        }
    });
}

#[test]
fn a_killed_agent_leaves_no_lock() {
    sandbox(async |host: Sandbox| {
        let first = Agent::start(host.dir());
        running(host.dir());
        drop(first);
        let lock = acquire_at_last(host.dir());
        running(host.dir());
        drop(lock);
        acquire_at_last(host.dir());
    });
}

#[test]
fn another_network_namespace_has_its_own_agent_but_not_in_the_same_directory() {
    sandbox(async |host: Sandbox| {
        let _here = InstanceLock::acquire(&host.dir().join("here")).expect("the lock");
        host.ip("netns add other");
        let dir = host.dir().to_owned();
        host.inside("other", move || {
            let error = InstanceLock::acquire(&dir.join("here")).expect_err("the directory is in use");
            assert!(matches!(error, LockError::DirectoryInUse { .. }), "{error}");
            assert!(
                error
                    .to_string()
                    .contains(&format!("(pid {}) of another network namespace", std::process::id()))
            );
            acquire_at_last(&dir.join("there"));
        });
    });
}
