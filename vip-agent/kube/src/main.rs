//! `vip-kube`: what `vip-agent` starts to follow a cluster. Orders come by standard input, reports go by standard output.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use rustix::process::Pid;
use tokio::net::unix::pipe::{Receiver, Sender};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Follows a Kubernetes cluster for vip-agent, which starts it where its configuration has `kubernetes`. Of no use by itself.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// What the agent speaks
    #[arg(long)]
    protocol: u32,
    /// The agent's process id
    #[arg(long)]
    agent: i32,
    /// What goes to the log, as in the agent's VIPLANE_LOG
    #[arg(long, default_value = "info")]
    log: String,
    /// Whether the log is JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    log_to_stderr(&options);
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("vip-kube ends: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let ours = vip_kube_protocol::PROTOCOL;
    anyhow::ensure!(
        options.protocol == ours,
        "this vip-kube (version {}) speaks protocol {ours} and the agent {}: they are of different packages, `vip-agent upgrade` or a \
         restart of the agent makes them one",
        env!("CARGO_PKG_VERSION"),
        options.protocol
    );
    vip_kube::settle(Pid::from_raw(options.agent).context("--agent is no process id")?)?;
    let (orders, reports) = (std::io::stdin(), std::io::stdout());
    let (orders, reports) = (orders.as_fd().try_clone_to_owned()?, reports.as_fd().try_clone_to_owned()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let no_pipe = "this is started by vip-agent, with pipes to it, and of no use by itself";
        let orders = Receiver::from_owned_fd(orders).context(no_pipe)?;
        let reports = Sender::from_owned_fd(reports).context(no_pipe)?;
        vip_kube::converse(orders, reports).await
    })
}

fn log_to_stderr(options: &Options) {
    let filter = options.log.parse::<Targets>().unwrap_or_else(|_| Targets::new());
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry();
    if options.json {
        registry.with(layer.json().flatten_event(true).with_filter(filter)).init();
    } else {
        registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter)).init();
    }
}
