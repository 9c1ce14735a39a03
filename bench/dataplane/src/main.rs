//! What the XDP program costs per frame, and how fast it answers ARP beside the kernel.
//!
//! Both are ratios to something that runs in the same minute on the same machine. Needs root; touches no network but
//! its own nameless namespaces.

mod answering;
mod cost;
mod kernel;
mod object;
mod steering;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde::Serialize;

/// What the XDP program costs per frame, and how fast it answers ARP beside the kernel.
#[derive(Parser)]
#[command(name = "vip-bench-dataplane")]
struct Options {
    /// Rounds, in each of which every case runs once; medians are reported.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Frames per case and round.
    #[arg(long, default_value_t = 200_000)]
    frames: u32,
    /// Fail if a budget is missed.
    #[arg(long)]
    enforce: bool,
    /// Measure nothing: load all programs, run and attach them once, and print what the kernel says, as a line of JSON.
    #[arg(long)]
    accept: bool,
    /// Where the JSON goes.
    #[arg(long, default_value_os_t = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench/dataplane.json"))]
    output: PathBuf,
}

#[derive(Serialize)]
struct Report {
    kernel: String,
    cpu: String,
    cost: Vec<cost::Cost>,
    steering: steering::Steering,
    arp: answering::Answering,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let kernel = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    if options.accept {
        println!("{}", serde_json::to_string(&kernel::Acceptance::of(kernel)?)?);
        return Ok(());
    }
    let report = Report {
        kernel,
        cpu: cpu(&read("/proc/cpuinfo")?),
        cost: cost::measure(options.rounds, options.frames)?,
        steering: steering::measure(options.rounds)?,
        arp: answering::measure(options.rounds, options.frames)?,
    };
    print(&report);
    if let Some(folder) = options.output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(&options.output, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", options.output.display()))?;
    let mut costs = report.cost.iter().chain(&report.steering.cost);
    if options.enforce && !(costs.all(cost::Cost::is_met) && report.arp.is_met()) {
        bail!("a budget is missed");
    }
    Ok(())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn cpu(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

fn print(report: &Report) {
    println!("{}, Linux {}", report.cpu, report.kernel);
    println!("{:<44} {:>8} {:>11} {:>8} {:>9}", "frame", "ns", "over pass", "least", "budget");
    for cost in report.cost.iter().chain(&report.steering.cost) {
        let budget = cost.budget_ns.map_or_else(|| "-".to_owned(), |budget| format!("{budget} ns"));
        let mark = if cost.is_met() { "" } else { "  MISSED" };
        let cost::Cost { frame, ns, over_pass_ns, least_over_pass_ns, .. } = cost;
        println!("{frame:<44} {ns:>8} {over_pass_ns:>+11} {least_over_pass_ns:>+8} {budget:>9}{mark}");
    }
    for steering::Verified { program, instructions } in &report.steering.verified {
        let instructions = instructions.map_or_else(|| "-".to_owned(), |count| count.to_string());
        println!("{program:<44} {instructions:>8} instructions verified");
    }
    let arp = &report.arp;
    let mark = if arp.is_met() { "" } else { "  MISSED" };
    println!(
        "ARP answers per second: program {:.2} M, kernel {:.2} M, ratio {:.1} (budget {}){mark}",
        arp.program_per_second / 1e6,
        arp.kernel_per_second / 1e6,
        arp.ratio,
        arp.budget
    );
}

/// The middle value; `values` must not be empty.
fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}
