//! A host of its own for a test: network and mount namespaces that nobody else sees and that end with the test.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::future::Future;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

/// The namespaces that the current thread is in.
pub struct Sandbox {
    dir: TempDir,
}

/// Runs `test` in a sandbox, on a tokio runtime of one thread as the agent has. Needs root.
pub fn sandbox<F>(test: impl FnOnce(Sandbox) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let ended = thread::spawn(move || {
        let sandbox = Sandbox::enter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test(sandbox));
    })
    .join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

impl Sandbox {
    fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("namespaces (these tests need root)");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("private mounts");
        // `ip netns` keeps its names below /run.
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .expect("a /run of our own");
        let sandbox = Self { dir: TempDir::new().expect("a directory") };
        sandbox.ip("link set lo up");
        sandbox
    }

    /// An empty directory that ends with the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `ip` with these words.
    pub fn ip(&self, words: &str) -> String {
        run("ip", words)
    }

    /// An Ethernet interface that is down; its other end is `NAMEx`.
    pub fn link(&self, name: &str) {
        self.ip(&format!("link add {name} type veth peer name {name}x"));
    }

    /// Whether the kernel has VLAN interfaces; says so where it has none.
    pub fn knows_vlans(&self) -> bool {
        self.link("probe");
        let vlan = "link add link probe name probe.1 type vlan id 1";
        let made = Command::new("ip").args(vlan.split(' ')).output().expect("ip").status.success();
        self.ip("link del probe");
        if !made {
            eprintln!("not tested: this kernel has no VLAN interfaces");
        }
        made
    }

    /// eth0, up, whose other end is eth0 in the network namespace `name`, up as well.
    pub fn connect_to(&self, name: &str) {
        self.ip(&format!("netns add {name}"));
        self.ip(&format!("link add eth0 type veth peer name eth0 netns {name}"));
        self.ip("link set eth0 up");
        self.ip(&format!("-n {name} link set eth0 up"));
        self.ip(&format!("-n {name} link set lo up"));
    }

    /// Runs `work` on a thread inside of the network namespace `name`.
    pub fn inside<T: Send + 'static>(&self, name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(Path::new("/run/netns").join(name)).expect("a namespace");
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("to enter it");
            work()
        })
        .join()
        .expect("the work inside")
    }

    /// Makes /proc/sys read-only, as in an unprivileged container.
    pub fn protect_sysctls(&self) {
        run("mount", "--bind /proc/sys /proc/sys");
        run("mount", "-o remount,bind,ro /proc/sys");
    }
}

fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split_whitespace()).output().expect(program);
    assert!(
        output.status.success(),
        "{program} {words}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `condition` holds; fails after a time in which it must have, however slow the machine is.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    for _ in 0..1500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came: {what}");
}
