//! One agent per network namespace, and one per runtime directory.
//!
//! Two would undo each other's work and answer each other's adverts. The kernel keeps both locks for exactly as long
//! as the process lives, stopped or not: an abstract socket, whose names are per network namespace, and a flock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
};

/// Name of the abstract socket.
const NAME: &[u8] = b"viplane";
/// In runtime_dir: locked as long as the agent lives.
pub(crate) const LOCK_FILE: &str = "agent.lock";

/// Who holds a lock, if it can be told: a process of another PID namespace has no number here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(Option<i32>);

impl Holder {
    /// Its process id.
    pub fn pid(self) -> Option<i32> {
        self.0
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "pid {pid}"),
            None => write!(f, "in another container"),
        }
    }
}

/// Why this process may not be the agent.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// An agent runs in this network namespace.
    #[error(
        "vip-agent ({holder}) runs already on this host; it serves all instances of this network namespace"
    )]
    Running {
        /// That agent.
        holder: Holder,
    },
    /// An agent of another network namespace uses the same runtime directory.
    #[error(
        "{runtime_dir} is in use by vip-agent ({holder}) of another network namespace; give this one a runtime_dir and \
         a state_dir of its own"
    )]
    DirectoryInUse {
        /// The directory.
        runtime_dir: PathBuf,
        /// That agent.
        holder: Holder,
    },
    /// The system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// "create", "lock"...
        action: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Held by the agent for as long as it lives; dropping it lets the next one in and leaves no file behind.
#[derive(Debug)]
pub struct InstanceLock {
    namespace: OwnedFd,
    directory: Flock<File>,
    path: PathBuf,
    /// The directory goes as well if nothing is left in it: it was missing before.
    directory_goes: bool,
}

impl Drop for InstanceLock {
    /// The file goes while it is still locked; whoever has it open by then finds that it is no longer in its place.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if self.directory_goes
            && let Some(directory) = self.path.parent()
        {
            // Not empty: then it is not only ours.
            let _ = fs::remove_dir(directory);
        }
    }
}

impl InstanceLock {
    /// Takes both locks, or says who has them. `runtime_dir` is made if missing.
    ///
    /// # Errors
    /// Another agent holds one of them, or the directory cannot be written.
    pub fn acquire(runtime_dir: &Path) -> Result<Self, LockError> {
        let path = runtime_dir.join(LOCK_FILE);
        let namespace = match bind_name() {
            Ok(socket) => socket,
            Err(Errno::EADDRINUSE) => {
                let holder = holder().and_then(Holder::pid).or_else(|| pid_in(&path));
                return Err(LockError::Running { holder: Holder(holder) });
            }
            Err(error) => {
                return Err(LockError::Io { action: "bind", path: "@viplane".into(), source: error.into() });
            }
        };
        let directory_goes = !runtime_dir.exists();
        let directory = lock_directory(runtime_dir, &path)?;
        Ok(Self { namespace, directory, path, directory_goes })
    }

    /// What keeps the locks, for a successor: they stay as long as either process has these open.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.namespace.as_fd(), self.directory.as_fd()]
    }

    /// Takes both locks over from an agent that has handed them on and still runs: nobody comes in between. Dropping this
    /// while that one goes on would take its locks away: forget it then.
    ///
    /// # Errors
    /// These are not what keeps an agent's locks.
    pub(crate) fn inherit(
        namespace: OwnedFd,
        directory: OwnedFd,
        runtime_dir: &Path,
        directory_goes: bool,
    ) -> io::Result<Self> {
        // The same lock, as it belongs to what is open and not to who has opened it.
        let directory = Flock::lock(File::from(directory), FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| io::Error::from(error))?;
        let path = runtime_dir.join(LOCK_FILE);
        let mut lock = Self { namespace, directory, path, directory_goes };
        lock.claim()?;
        Ok(lock)
    }

    /// Makes this process the one that others take for the holder, as [`holder`] tells.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn claim(&mut self) -> io::Result<()> {
        // The kernel remembers who called this last.
        listen(&self.namespace, Backlog::MAXCONN)?;
        write_pid(&mut self.directory)
    }

    /// Whether the directory goes at the end.
    pub(crate) fn removes_directory(&self) -> bool {
        self.directory_goes
    }

    /// Removes the directory at the end, too, unless something is left in it: a dead agent has made it.
    pub fn remove_directory(&mut self) {
        self.directory_goes = true;
    }
}

fn bind_name() -> Result<OwnedFd, Errno> {
    let socket = unix_socket(SockFlag::empty())?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new_abstract(NAME)?)?;
    // Nobody accepts: a connection that waits is all that it takes to read our credentials.
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket)
}

/// Who is the agent of this network namespace, if there is one and it can be asked: its queue may be full.
///
/// By SO_PEERCRED: the kernel remembers who called listen(2), so a stopped process answers as well.
pub(crate) fn holder() -> Option<Holder> {
    // Not blocking: the backlog of a holder that was asked very often is full.
    let socket = unix_socket(SockFlag::SOCK_NONBLOCK).ok()?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new_abstract(NAME).ok()?).ok()?;
    let credentials = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
    Some(Holder(Some(credentials.pid()).filter(|&pid| pid > 0)))
}

fn unix_socket(flags: SockFlag) -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)
}

fn lock_directory(runtime_dir: &Path, path: &Path) -> Result<Flock<File>, LockError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| LockError::Io { action, path, source }
    };
    loop {
        fs::create_dir_all(runtime_dir).map_err(failed("create", runtime_dir))?;
        // Truncated only once it is ours: until then it names its holder.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed("open", path))?;
        let mut file =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
                Errno::EWOULDBLOCK => LockError::DirectoryInUse {
                    runtime_dir: runtime_dir.to_owned(),
                    holder: Holder(pid_in(path)),
                },
                error => failed("lock", path)(error.into()),
            })?;
        if is_in_place(&file, path).map_err(failed("look at", path))? {
            write_pid(&mut file).map_err(failed("write", path))?;
            return Ok(file);
        }
        // Its last holder removed it between our opening and our locking.
    }
}

fn is_in_place(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn pid_in(path: &Path) -> Option<i32> {
    let mut text = String::new();
    File::open(path).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
