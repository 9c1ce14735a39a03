//! `cargo xtask bench`: release builds of the benchmarks, run one after another as root.

use anyhow::Result;

use crate::workspace::run;
use crate::{elevate, release};

/// What is to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bench {
    /// Takeovers, beside keepalived's: target/bench/failover.json
    Failover,
    /// What the program costs per packet: target/bench/throughput.json
    Dataplane,
    /// 255 instances with 4096 VIPs, beside keepalived's: target/bench/scale.json
    Scale,
    /// All of them.
    All,
}

impl Bench {
    /// The packages, each with one binary of its name.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Failover => &["vip-failover"],
            Self::Dataplane => &["vip-bench-dataplane"],
            Self::Scale => &["vip-scale"],
            Self::All => &["vip-failover", "vip-bench-dataplane", "vip-scale"],
        }
    }
}

/// Measures, with the benchmarks' own `options`.
pub(crate) fn measure(bench: Bench, options: &[String]) -> Result<()> {
    elevate::require_namespaces()?;
    for package in bench.packages() {
        run(&mut release::prepare(package, "target/bench", options)?, package)?;
    }
    Ok(())
}
