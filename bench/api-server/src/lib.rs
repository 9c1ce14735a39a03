//! A stand-in for a Kubernetes API server: lists, watches and answers as slowly and as badly as a test wants. It keeps whatever objects
//! it is given, checks nothing of them, and so has any number of them at once, of any version of the API.
//!
//! What a real one makes of objects is tested with a real one (`vip-control-plane`).

mod answer;
pub mod objects;
mod store;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::store::Store;

/// How requests are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Before each answer, watches included.
    pub delay: Duration,
    /// A status with which every request is answered.
    pub status: Option<u16>,
    /// A resource as in `services`, requests for which are answered by 403.
    pub forbidden: Option<String>,
}

/// A server, until it is dropped.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    /// The store's revision: who watches waits for another one.
    revision: watch::Sender<u64>,
    /// Status writes heard.
    writes: Mutex<Vec<String>>,
}

impl ApiServer {
    /// Serves on a socket, which is where it was made: in a network namespace, for example.
    ///
    /// # Errors
    /// The socket is none that can be served on; there is no thread left.
    pub fn serve(listener: TcpListener) -> Result<Self> {
        let address = listener.local_addr().context("the server's address")?;
        listener.set_nonblocking(true).context("a socket that does not block")?;
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            faults: Mutex::default(),
            revision: watch::Sender::new(1),
            writes: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let state = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("api-server".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, state) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// How it is reached.
    pub fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "stand-in",
            "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "nobody"}}],
            "clusters": [{"name": "stand-in", "cluster": {"server": server}}],
            "users": [{"name": "nobody", "user": {}}],
        })
        .to_string()
    }

    /// Has an object, which replaces one of its kind, namespace and name. `resource` is its collection's path without a namespace: `/api/v1/services`.
    pub fn put(&self, resource: &str, object: Value) {
        let revision = self.store().put(resource, object);
        self.shared.revision.send_replace(revision);
    }

    /// Has many at once.
    pub fn put_all(&self, resource: &str, objects: impl IntoIterator<Item = Value>) {
        let mut store = self.store();
        for object in objects {
            store.put(resource, object);
        }
        let revision = store.revision();
        drop(store);
        self.shared.revision.send_replace(revision);
    }

    /// Has it no more. Fine if there was none.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let revision = self.store().delete(resource, namespace, name);
        self.shared.revision.send_replace(revision);
    }

    /// An object as it is now.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store().get(resource, namespace, name).cloned()
    }

    /// Forgets all that has changed up to now: watches end with 410, and none can be resumed.
    pub fn expire(&self) {
        let revision = self.store().expire();
        self.shared.revision.send_replace(revision);
    }

    /// Answers like this from now on.
    pub fn set_faults(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// The paths that were patched so far, in their order.
    pub fn writes(&self) -> Vec<String> {
        self.shared.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.shared.store()
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let answer = service_fn(move |request| answer::answer(request, Arc::clone(&shared)));
        // Whoever goes away is none of its business.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}
