//! `cargo xtask bench`: release builds of the benchmarks, run one after another as root.

use anyhow::Result;

use crate::setup::Need;
use crate::workspace::run;
use crate::{elevate, kernels, release};

/// What is to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bench {
    /// Takeovers, beside keepalived's: target/bench/failover.json
    Failover,
    /// What the program costs per packet: target/bench/dataplane.json
    Dataplane,
    /// Packets per second to a backend, beside the kernel's own ways: target/bench/throughput.{json,svg}
    Throughput,
    /// 255 instances with 4096 VIPs, beside keepalived's: target/bench/scale.json
    Scale,
    /// One virtual router at rest, with and without probes, beside keepalived's: target/bench/idle.json
    Idle,
    /// Whether this kernel and Debian's others take the programs, or those of the packages that are named:
    /// target/bench/kernels.json
    Kernels,
    /// All of them.
    All,
}

impl Bench {
    /// What has to be there.
    pub(crate) fn needs(self) -> &'static [Need] {
        match self {
            // Its probes ask a server with a certificate, which openssl makes.
            Self::Idle => &[Need::Lab, Need::Peers],
            Self::Kernels => &[Need::Lab, Need::Machine],
            Self::All => &[Need::Lab, Need::Peers, Need::Machine],
            Self::Failover | Self::Dataplane | Self::Throughput | Self::Scale => &[Need::Lab],
        }
    }

    /// The packages, each with one binary of its name, and what it is told.
    fn programs(self) -> Vec<(&'static str, &'static [&'static str])> {
        match self {
            Self::Failover => vec![("vip-failover", &[])],
            Self::Dataplane => vec![("vip-bench-dataplane", &[])],
            Self::Throughput => vec![("vip-throughput", &[])],
            Self::Scale => vec![("vip-scale", &[])],
            Self::Idle => vec![("vip-scale", &["--idle"])],
            Self::Kernels => Vec::new(),
            Self::All => [Self::Failover, Self::Dataplane, Self::Throughput, Self::Scale, Self::Idle]
                .into_iter()
                .flat_map(Self::programs)
                .collect(),
        }
    }
}

/// Measures, with the benchmarks' own `options`.
pub(crate) fn measure(bench: Bench, options: &[String]) -> Result<()> {
    elevate::require_namespaces()?;
    for (package, own) in bench.programs() {
        let told: Vec<String> =
            own.iter().map(|&option| option.to_owned()).chain(options.iter().cloned()).collect();
        run(&mut release::prepare(package, "target/bench", &told)?, package)?;
    }
    match bench {
        Bench::Kernels => kernels::ask(options),
        Bench::All => kernels::ask(&[]),
        _ => Ok(()),
    }
}
