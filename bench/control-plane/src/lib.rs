//! A real Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, without a kubelet.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use serde_json::json;
//! use vip_control_plane::ControlPlane;
//! let lab = vip_lab::Lab::builder().nodes(2).clients(2).vips(["10.0.0.50"]).build()?;
//! let plane = ControlPlane::on(&lab.clients()[1]).start()?;
//! plane.create("/api/v1/nodes", &json!({"metadata": {"name": "node1"}}))?;
//! let kubeconfig = plane.kubeconfig();
//! # Ok(()) }
//! ```
//!
//! It runs inside a node of the lab, so each has its own network and its own files, several may run at once, and all of it ends
//! with the node, however that happens. `cargo xtask kube` builds the programs once (see xtask/src/kube/), and starts them for
//! people by this crate's binary.
//!
//! The server is 1.20, from Debian's source package: the newest that packages alone bring. Nodes and Pods have no kubelet behind
//! them: a test creates them, and sets their status. discovery.k8s.io/v1 came with 1.21: here EndpointSlices are a custom resource
//! of that name, which clients list, watch and change as usual, and which nothing fills by itself. The server drops
//! `loadBalancerClass` and `ipMode`, and has no policy/v1.

mod api;
pub mod commands;
mod programs;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use vip_lab::{Node, Process};

use self::commands::Layout;
pub use self::programs::{Programs, VERSION};

/// Longer than a start takes on a machine with much else to do.
const SOON: Duration = Duration::from_secs(90);

/// A running control plane. Dropping it kills it.
#[derive(Debug)]
pub struct ControlPlane {
    // First, so that clients of etcd end before it.
    scheduler: Process,
    controller_manager: Process,
    api_server: Option<Process>,
    etcd: Process,
    node: Node,
    layout: Layout,
    programs: Programs,
}

/// How to start one.
#[derive(Clone, Debug)]
pub struct Builder {
    node: Node,
}

impl Builder {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// The programs are not built; one of them ended, or does not serve: with its log.
    pub fn start(self) -> Result<ControlPlane> {
        let Self { node } = self;
        let programs = Programs::find()?;
        let layout = Layout::new(node.file_path("kube"), node.ipv4().into(), 6443);
        prepare(&node, &layout)?;
        let run = |name: &str| -> Result<Process> {
            let [program, arguments @ ..] = &layout.command(name, &programs)[..] else { bail!("no {name}") };
            node.command(program).args(arguments).spawn(name)
        };
        let etcd = run("etcd")?;
        let api_server = run("kube-apiserver")?;
        let until = Instant::now() + SOON;
        wait_ready(&node, &layout, &api_server, until)?;
        let client = api::Client { node: &node, layout: &layout };
        client.call("POST", commands::CRDS, Some(&commands::endpoint_slices()))?;
        let plane = ControlPlane {
            scheduler: run("kube-scheduler")?,
            controller_manager: run("kube-controller-manager")?,
            api_server: Some(api_server),
            etcd,
            node,
            layout,
            programs,
        };
        plane.wait("EndpointSlices are served", || plane.get(commands::SLICES).is_ok())?;
        // The controllers make it; whoever creates a pod needs it, and it says that they work.
        plane.wait("the controllers work", || {
            plane.get("/api/v1/namespaces/default/serviceaccounts/default").is_ok()
        })?;
        Ok(plane)
    }
}

impl ControlPlane {
    /// One that will run inside this node.
    pub fn on(node: &Node) -> Builder {
        Builder { node: node.clone() }
    }

    /// The administrator's kubeconfig, as text: nodes of the lab do not see each other's files.
    pub fn kubeconfig(&self) -> String {
        self.layout.kubeconfig(&self.authority())
    }

    /// The same for somebody with this bearer token.
    pub fn kubeconfig_for(&self, token: &str) -> String {
        self.layout.clone().with_token(token.to_owned()).kubeconfig(&self.authority())
    }

    /// The certificate that the server's own one leads to, in PEM.
    fn authority(&self) -> String {
        // What starts anew makes no other one.
        self.node.read_file(self.layout.authority()).unwrap_or_default()
    }

    /// An object, or a list of objects, by its path.
    ///
    /// # Errors
    /// There is none, or the server's answer.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.client().call("GET", path, None)
    }

    /// Creates an object in a collection.
    ///
    /// # Errors
    /// The server's answer.
    pub fn create(&self, collection: &str, object: &Value) -> Result<Value> {
        self.client().call("POST", collection, Some(object))
    }

    /// Changes an object by a merge patch (RFC 7396): what is null goes.
    ///
    /// # Errors
    /// The server's answer.
    pub fn patch(&self, path: &str, change: &Value) -> Result<Value> {
        self.client().call("PATCH", path, Some(change))
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The server's answer.
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.client().call("DELETE", path, None)
    }

    /// Ends the API server at once, as a crash does. etcd and all else goes on.
    ///
    /// # Errors
    /// It cannot be reaped.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.api_server.take().map_or(Ok(()), |server| server.kill())
    }

    /// Starts it again, and waits until it serves.
    ///
    /// # Errors
    /// It does not: with its log.
    pub fn start_api_server(&mut self) -> Result<()> {
        let [program, arguments @ ..] = &self.layout.command("kube-apiserver", &self.programs)[..] else {
            bail!("no kube-apiserver");
        };
        let server = self.node.command(program).args(arguments).spawn("kube-apiserver")?;
        wait_ready(&self.node, &self.layout, &server, Instant::now() + SOON)?;
        self.api_server = Some(server);
        Ok(())
    }

    /// The server's process, if it runs: to be stopped and continued.
    pub fn api_server(&self) -> Option<&Process> {
        self.api_server.as_ref()
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
        let until = Instant::now() + SOON;
        while !done() {
            if Instant::now() > until {
                let mut logs = String::new();
                for process in [Some(&self.etcd), self.api_server.as_ref(), Some(&self.controller_manager)] {
                    let words = process.map(Process::last_words).unwrap_or_default();
                    let _ = write!(logs, "\n---\n{words}");
                }
                bail!("control plane: not within {SOON:?}: {what}{logs}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn client(&self) -> api::Client<'_> {
        api::Client { node: &self.node, layout: &self.layout }
    }

    /// The scheduler's process.
    pub fn scheduler(&self) -> &Process {
        &self.scheduler
    }
}

/// Writes what the programs read.
fn prepare(node: &Node, layout: &Layout) -> Result<()> {
    let pki: PathBuf = layout.pki();
    node.command("mkdir").args(["-p"]).arg(&pki).read()?;
    for (program, arguments) in layout.key_pair() {
        node.command(program).args(arguments).read().context("make the service accounts' key by openssl")?;
    }
    node.write_file(pki.join("tokens.csv"), layout.tokens())
}

fn wait_ready(node: &Node, layout: &Layout, server: &Process, until: Instant) -> Result<()> {
    let client = api::Client { node, layout };
    loop {
        if client.call("GET", "/readyz", None).is_ok() {
            // Now that it has made its certificate, the others can be told about it.
            let authority = node.read_file(layout.authority())?;
            return node.write_file(layout.kubeconfig_path(), layout.kubeconfig(&authority));
        }
        if !server.is_running() || Instant::now() > until {
            bail!("kube-apiserver does not serve:\n{}", server.last_words());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
