//! The command line (clap): `vip-agent --help`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Virtual IPs that move in microseconds: XDP answers for them, VRRP elects their owner.
#[derive(Debug, Parser)]
#[command(name = "vip-agent", version, max_term_width = 100)]
pub struct Cli {
    /// Control socket of the agent [default: runtime_dir/agent.sock, or /run/viplane/agent.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. Exit code 0: done, 1: failed, 2: wrong usage; `preflight` has its own.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent. SIGHUP reloads; SIGTERM and SIGINT hand over, then remove everything of ours; a second one skips
    /// the waiting
    Run {
        /// Which configuration.
        #[command(flatten)]
        file: ConfigFile,
        /// Fail if the configuration file is broken, and do not run by the last good configuration in state_dir
        #[arg(long)]
        no_last_good: bool,
        /// Take everything over from the agent that runs, and lose nothing; an ordinary start if none does
        #[arg(long)]
        take_over: bool,
    },
    /// Have this program take over from the agent that runs, unless that is this very program; returns when it has, or
    /// says why the old one goes on
    Upgrade(ConfigFile),
    /// Check a configuration file; errors as FILE:LINE:COL: path.to.field: message
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print the effective configuration of the running agent (or of FILE), secrets masked
    Config(ConfigFile),
    /// Show how the agent and its VIPs are
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Again every second, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// Hand VIPs over to a peer and keep out of the election; returns when they have moved
    Drain(InstanceName),
    /// Take part in the election again
    Undrain(InstanceName),
    /// Apply the configuration file anew; returns when applied, or says why the old one stays
    Reload,
    /// List the flows of services: client, VIP and backend of each
    Flows {
        /// Of this VIP
        #[arg(long, value_name = "IP")]
        vip: Option<IpAddr>,
        /// To this backend
        #[arg(long, value_name = "IP")]
        backend: Option<IpAddr>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look at host and network, and say what is not as the agent needs it. Changes nothing. Exit code 0: ok, 1:
    /// warnings, 2: errors
    Preflight {
        /// Which configuration.
        #[command(flatten)]
        file: ConfigFile,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print another program's configuration as ours, with remarks on what has no equivalent
    #[command(subcommand)]
    Import(Import),
    /// The cluster role (Kubernetes): not in this version
    Controller,
    /// Remove what a dead agent left: pins, addresses, sysctls. Refuses while one runs
    Cleanup(ConfigFile),
}

/// What to import.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// The VRRP part of a keepalived.conf, with the files that it includes
    Keepalived {
        /// The file.
        file: PathBuf,
        /// Which `@ID` lines count, as keepalived's option of that name [default: the host's name]
        #[arg(long, value_name = "ID")]
        config_id: Option<String>,
    },
    /// The ConfigMap of kube-keepalived-vip: its VIPs, and for what Services they stand
    Configmap {
        /// The file: the resource, or its `data` alone.
        file: PathBuf,
    },
    /// The values of the chart keepalived-ingress-vip
    ChartValues {
        /// The file: the values, or the HelmChart resource that holds them.
        file: PathBuf,
    },
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// Configuration file [default: /etc/viplane/config.yaml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which instance.
#[derive(Debug, Args)]
pub struct InstanceName {
    /// Its name [default: all instances]
    #[arg(value_name = "INSTANCE")]
    pub instance: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
