//! A node: a thread that lives in network, mount and UTS namespaces of its own.
//!
//! The namespaces have no name, so nothing survives the process, and parallel labs cannot meet. The thread lives as
//! long as the node does, which makes it a fit parent for processes that shall die with it (`PR_SET_PDEATHSIG` fires at
//! the end of the parent *thread*).

use std::any::Any;
use std::fmt::{self, Display};
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle, ThreadId};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::Mac;
use crate::process::NodeCommand;

type Job = Box<dyn FnOnce() + Send>;

/// Where a node keeps its files: on its own tmpfs, gone with it.
const PRIVATE_FILES: &str = "/run/lab";

/// Who a node is on the lab's network; its interface is always `eth0`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Host name, and name of its port in the switch.
    pub name: Arc<str>,
    /// Address in the lab's IPv4 subnet.
    pub ipv4: Ipv4Addr,
    /// Global address in `fd00::/64`.
    pub ipv6: Ipv6Addr,
    /// Address of `eth0`.
    pub mac: Mac,
}

/// A handle on a node; clones are the same node. The namespaces end with the last handle.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    tid: i32,
    thread_id: ThreadId,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    logs: Option<PathBuf>,
}

// === impl Node ===

impl Node {
    /// Starts the node's thread in fresh namespaces, `lo` up, without `eth0`: the switch plugs that in.
    pub(crate) fn start(identity: Identity, logs: Option<&Path>) -> Result<Self> {
        let name = Arc::clone(&identity.name);
        let (jobs, queue) = channel::<Job>();
        let (ready, started) = channel();
        let host = name.to_string();
        let thread = thread::Builder::new()
            .name(host.clone())
            .spawn(move || live(&host, &queue, &ready))
            .context("start a node's thread")?;
        let thread_id = thread.thread().id();
        let tid = started.recv().context("a node's thread died at its start")?;
        let mut inner = Inner {
            identity,
            tid: 0,
            thread_id,
            jobs: Some(jobs),
            thread: Some(thread),
            logs: logs.map(Path::to_owned),
        };
        inner.tid = tid.with_context(|| {
            format!("give {name} its own namespaces (root is needed: run by `cargo xtask test`)")
        })?;
        let node = Self { inner: Arc::new(inner) };
        node.ip("link set lo up")?;
        Ok(node)
    }

    /// Host name.
    pub fn name(&self) -> &str {
        &self.inner.identity.name
    }

    /// Name and addresses.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Address in the lab's IPv4 subnet.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.inner.identity.ipv4
    }

    /// Global address in `fd00::/64`.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.inner.identity.ipv6
    }

    /// Link-local address of `eth0`, made from its MAC (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac().0;
        let group = |high, low| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, group(a ^ 2, b), group(c, 0xff), group(0xfe, d), group(e, f))
    }

    /// The node's address of the family that `like` has.
    pub fn address_like(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.ipv4().into() } else { self.ipv6().into() }
    }

    /// Address of `eth0`.
    pub fn mac(&self) -> Mac {
        self.inner.identity.mac
    }

    /// The kernel's id of the node's thread.
    pub fn tid(&self) -> i32 {
        self.inner.tid
    }

    /// The node's network namespace as a path, valid while the node lives.
    pub fn netns_path(&self) -> PathBuf {
        format!("/proc/{}/task/{}/ns/net", std::process::id(), self.inner.tid).into()
    }

    /// Runs `job` on the node's thread, so inside its namespaces, and returns what it returns; a panic comes through.
    ///
    /// Keep it short: the node does one job at a time. Sockets opened and threads spawned by it stay in the node.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        if thread::current().id() == self.inner.thread_id {
            return job();
        }
        let (sender, answer) = channel::<Result<T, Box<dyn Any + Send>>>();
        let job: Job = Box::new(move || {
            // The caller waits for the answer, so the receiver is there.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(job)));
        });
        let sent = self.inner.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        assert!(sent, "{}: the node's thread is gone", self.name());
        match answer.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => panic!("{}: the node's thread died at work", self.name()),
        }
    }

    /// Starts a thread inside the node for work that takes long.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let name = format!("{}/{name}", self.name());
        self.run(move || {
            thread::Builder::new()
                .name(name.clone())
                .spawn(work)
                .with_context(|| format!("start the thread {name}"))
        })
    }

    /// A command to run inside the node; it is killed when the lab ends, however that happens.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> NodeCommand {
        NodeCommand::new(self.clone(), program.as_ref())
    }

    /// `ip ARGUMENTS`, split at blanks, inside the node.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.command("ip").args(arguments.split_whitespace()).read()
    }

    /// Sets `eth0` down or up as an administrator would.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.ip(if up { "link set eth0 up" } else { "link set eth0 down" }).map(drop)
    }

    /// A kernel setting by its dotted name, as the node sees it.
    ///
    /// # Errors
    /// There is no such setting.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let path = sysctl_path(name);
        self.run(move || fs::read_to_string(&path).with_context(|| format!("read {path}")))
            .map(|value| value.trim_end().to_owned())
    }

    /// Sets a kernel setting by its dotted name, in the node only (so: below `net.`).
    ///
    /// # Errors
    /// It is not a network setting, there is none of that name, or the value is refused.
    pub fn set_sysctl(&self, name: &str, value: impl Display + Copy) -> Result<()> {
        if !name.starts_with("net.") {
            bail!("{name} is not of the network namespace: the lab leaves the host's settings alone");
        }
        let (path, value) = (sysctl_path(name), value.to_string());
        self.run(move || fs::write(&path, &value).with_context(|| format!("write {value} to {path}")))
    }

    /// A path for a file of the node, on its own tmpfs: unseen by others, gone with the node.
    pub fn file_path(&self, name: &str) -> PathBuf {
        Path::new(PRIVATE_FILES).join(name)
    }

    /// Writes a file inside the node.
    ///
    /// # Errors
    /// The place does not exist, or is not writable.
    pub fn write_file(&self, path: impl Into<PathBuf>, text: impl Into<String>) -> Result<()> {
        let (path, text) = (path.into(), text.into());
        self.run(move || fs::write(&path, text).with_context(|| format!("write {}", path.display())))
    }

    /// Reads a file inside the node.
    ///
    /// # Errors
    /// It is missing, or no text.
    pub fn read_file(&self, path: impl Into<PathBuf>) -> Result<String> {
        let path = path.into();
        self.run(move || fs::read_to_string(&path).with_context(|| format!("read {}", path.display())))
    }

    /// Whether a path exists inside the node (its own `/run`, `/sys/fs/bpf`, `/var/lib`).
    pub fn exists(&self, path: impl Into<PathBuf>) -> bool {
        let path = path.into();
        self.run(move || path.exists())
    }

    /// Opens a log for appending and, by the same handle, reading: in the directory of [`crate::LabBuilder::logs`] on
    /// the host as `NODE-NAME.log`, else on the node's tmpfs.
    pub(crate) fn open_log(&self, name: &str) -> Result<File> {
        let open = |path: PathBuf| {
            let mut options = File::options();
            options.create(true).append(true).read(true);
            options.open(&path).with_context(|| format!("open the log {}", path.display()))
        };
        match &self.inner.logs {
            Some(logs) => open(logs.join(format!("{}-{name}.log", self.name()))),
            None => {
                let path = self.file_path(&format!("{name}.log"));
                self.run(move || open(path))
            }
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("identity", &self.inner.identity).field("tid", &self.inner.tid).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        // The last handle may go inside one of the node's own jobs; the thread then ends after that.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// The node's thread: enters its namespaces, says so, works until the last handle is gone.
fn live(host: &str, queue: &Receiver<Job>, ready: &Sender<Result<i32>>) {
    let entered = enter_namespaces(host);
    let failed = entered.is_err();
    // `Node::start` waits for this.
    let _ = ready.send(entered.map(|()| nix::unistd::gettid().as_raw()));
    if failed {
        return;
    }
    while let Ok(job) = queue.recv() {
        job();
    }
}

fn enter_namespaces(host: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("unshare")?;
    nix::unistd::sethostname(host).context("set the host name")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make mounts private")?;
    mount_fresh("tmpfs", "/run")?;
    fs::create_dir(PRIVATE_FILES).context("create the node's directory")?;
    isolate_var_lib()?;
    // A new sysfs shows this namespace's interfaces; a new bpffs holds this node's pins alone.
    mount_fresh("sysfs", "/sys")?;
    mount_fresh("bpf", "/sys/fs/bpf")
}

/// `/var/lib` as on the host, but what the node writes there (`/var/lib/viplane`) stays in the node.
///
/// An overlay, so that no directory is made on the host and a checkout below /var/lib stays visible.
fn isolate_var_lib() -> Result<()> {
    let (upper, work) = (format!("{PRIVATE_FILES}/.var-lib"), format!("{PRIVATE_FILES}/.var-lib-work"));
    fs::create_dir(&upper)
        .and_then(|()| fs::create_dir(&work))
        .context("create the overlay's directories")?;
    let options = format!("lowerdir=/var/lib,upperdir={upper},workdir={work}");
    let overlaid =
        mount(Some("overlay"), "/var/lib", Some("overlay"), MsFlags::empty(), Some(options.as_str()));
    if overlaid.is_err() {
        // No overlayfs, or none on this file system.
        mount_fresh("tmpfs", "/var/lib")?;
    }
    let state = Path::new("/var/lib/viplane");
    if state.exists() {
        // An agent is installed on this host: its state is none of the lab's.
        mount_fresh("tmpfs", "/var/lib/viplane")?;
    }
    Ok(())
}

fn mount_fresh(kind: &str, place: &str) -> Result<()> {
    mount(Some("lab"), place, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount a fresh {kind} on {place}"))
}

fn sysctl_path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}
