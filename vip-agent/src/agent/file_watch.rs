//! Follows the configuration file where `reload_on_change` asks for that.
//!
//! By looking at it every second, in a thread of its own. Not by inotify, which counts instances and watches per user (a
//! node full of containers runs out of them), sees nothing on network file systems, and would have to follow each of the
//! links by which Kubernetes mounts a ConfigMap (`config.yaml` -> `..data` -> a directory that is replaced). What stat(2)
//! says at the end of the links is enough, however an editor or a mount replaces what.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::sync::Notify;

/// How often it is looked at. What has changed must stay the same for as long: nobody is heard in the middle of writing.
const EVERY: Duration = Duration::from_secs(1);

/// The thread does nothing but stat(2).
const STACK: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct FileWatch {
    shared: Arc<Shared>,
    follower: Option<Follower>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// As it was when it was read last.
    read: Mutex<Signature>,
    changed: Notify,
}

/// Tells a file from what it was; `None`: there is none, or it cannot be looked at.
type Signature = Option<[i64; 6]>;

/// A thread that looks, until this is dropped.
#[derive(Debug)]
struct Follower {
    stop: Arc<AtomicBool>,
    thread: Thread,
}

impl FileWatch {
    /// Follows nothing yet. The file is about to be read, or was just read.
    pub(super) fn new(path: &Path) -> Self {
        let read = Mutex::new(look(path));
        let shared = Shared { path: path.to_owned(), read, changed: Notify::new() };
        Self { shared: Arc::new(shared), follower: None }
    }

    /// Follows the file from now on, or no more.
    pub(super) fn follow(&mut self, wanted: bool) {
        if !wanted {
            self.follower = None;
        } else if self.follower.is_none() {
            match Follower::start(&self.shared, EVERY) {
                Ok(follower) => {
                    tracing::info!(file = %self.shared.path.display(), "changes of the file are applied");
                    self.follower = Some(follower);
                }
                Err(error) => tracing::warn!(%error, "the configuration file is not followed: no thread"),
            }
        }
    }

    /// The file is about to be read: what it is now is no news.
    pub(super) fn reading(&self) {
        *self.shared.read() = look(&self.shared.path);
    }

    /// Resolves when it has changed since it was read; never, while it is not followed.
    pub(super) async fn changed(&self) {
        match self.follower {
            Some(_) => self.shared.changed.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl Shared {
    fn read(&self) -> std::sync::MutexGuard<'_, Signature> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    fn start(shared: &Arc<Shared>, every: Duration) -> std::io::Result<Self> {
        let (shared, stop) = (Arc::clone(shared), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("config-watch".into()).stack_size(STACK);
        let handle = thread.spawn(move || {
            let mut before = None;
            while !stopped.load(Ordering::Relaxed) {
                let now = look(&shared.path);
                let mut read = shared.read();
                if *read != now && before == Some(now) {
                    *read = now;
                    shared.changed.notify_one();
                }
                drop(read);
                before = Some(now);
                thread::park_timeout(every);
            }
        })?;
        Ok(Self { stop, thread: handle.thread().clone() })
    }
}

impl Drop for Follower {
    /// Does not wait: looking may hang where the file is.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

fn look(path: &Path) -> Signature {
    let file = std::fs::metadata(path).ok()?;
    let (size, inode) = (file.size().cast_signed(), file.ino().cast_signed());
    Some([inode, size, file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    /// Several looks of the tests' followers.
    const A_WHILE: Duration = Duration::from_millis(100);

    fn followed(path: &Path) -> FileWatch {
        let mut watch = FileWatch::new(path);
        watch.follower = Some(Follower::start(&watch.shared, Duration::from_millis(10)).unwrap());
        watch
    }

    async fn is_news(watch: &FileWatch) -> bool {
        tokio::time::timeout(SOON, watch.changed()).await.is_ok()
    }

    async fn is_quiet(watch: &FileWatch) -> bool {
        tokio::time::timeout(A_WHILE, watch.changed()).await.is_err()
    }

    #[tokio::test]
    async fn a_file_that_is_written_replaced_removed_or_comes_back_is_news_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "one").unwrap();
        let watch = followed(&path);
        assert!(is_quiet(&watch).await);
        let replaced = || fs::rename(dir.path().join("new"), &path);
        let changes: [&dyn Fn() -> std::io::Result<()>; 4] = [
            &|| fs::write(&path, "two"),
            &|| fs::write(dir.path().join("new"), "six").and_then(|()| replaced()),
            &|| fs::remove_file(&path),
            &|| fs::write(&path, "six"),
        ];
        for change in changes {
            change().unwrap();
            assert!(is_news(&watch).await);
            assert!(is_quiet(&watch).await);
        }
    }

    #[tokio::test]
    async fn a_config_map_that_is_mounted_anew_is_news() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["..1", "..2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("config.yaml"), "same").unwrap();
        }
        symlink("..1", dir.path().join("..data")).unwrap();
        symlink("..data/config.yaml", dir.path().join("config.yaml")).unwrap();
        let watch = followed(&dir.path().join("config.yaml"));
        symlink("..2", dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        assert!(is_news(&watch).await);
    }

    #[tokio::test]
    async fn what_is_being_read_by_request_is_no_news() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(&path);
        fs::write(&path, "another").unwrap();
        watch.reading();
        watch.follow(true);
        assert!(is_quiet(&watch).await);
        watch.follow(false);
        assert!(watch.follower.is_none());
    }
}
