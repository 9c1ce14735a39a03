//! How many packets a second get through a node to a backend: viplane's way beside the kernel's, on wires of the same kind.
//!
//! Live frames of BPF_PROG_TEST_RUN are the senders: several flows, of several sizes, each header written anew; what counts is
//! what arrives at the backend. All contenders take turns in each round. Needs root; touches no network but its own
//! nameless namespaces.

mod bench_object;
mod contender;
mod generator;
mod netns;
mod plot;
mod record;
mod steering;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde::Serialize;
use vip_lab::agent::binary_beside;
use vip_lab::machine::Machine;

use contender::{Contender, Topology};
use record::{Cell, Group, Run, groups};

/// Least ratio of packet rates, steering to nftables DNAT, that has to be held in every cell.
const BUDGET: f64 = 5.0;

/// How many packets a second get through a node to a backend.
#[derive(Debug, Parser)]
#[command(name = "vip-throughput", max_term_width = 100)]
struct Options {
    /// Rounds; in each, every contender has every cell once
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Frames that are sent for one measurement
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1000..))]
    frames: u32,
    /// Lengths of frames in bytes, without the checksum that ends them on a real wire
    #[arg(long, value_delimiter = ',', default_value = "60,512,1514", value_parser = clap::value_parser!(u16).range(60..=1514))]
    sizes: Vec<u16>,
    /// Numbers of flows, powers of two
    #[arg(long, value_delimiter = ',', default_value = "1,1024,65536", value_parser = generator::flows)]
    flows: Vec<u32>,
    /// Frames offered per second, instead of as many as can be sent: what is lost then
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1000..))]
    rate: Option<u64>,
    /// Which contenders [default: all]
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Contender>,
    /// Fail if steering is less than five times as fast as nftables DNAT
    #[arg(long)]
    enforce: bool,
    /// Where throughput.json and throughput.svg go
    #[arg(long, default_value_os_t = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench"))]
    output: PathBuf,
}

/// The JSON.
#[derive(Serialize)]
struct Results {
    machine: Machine,
    /// Frames offered per second; `None`: as many as could be sent.
    offered_per_second: Option<u64>,
    frames: u32,
    summary: Vec<Group>,
    runs: Vec<Run>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let agent = binary_beside(None, "`cargo xtask bench throughput`")?;
    let mut machine = Machine::describe(&agent);
    let contenders = if options.only.is_empty() { Contender::usual() } else { options.only.clone() };
    let runs = measure(&options, &contenders)?;
    machine.finish();
    let summary = groups(&runs);
    let results =
        Results { machine, offered_per_second: options.rate, frames: options.frames, summary, runs };
    print!("{}", table::text(&results.machine, &results.summary));
    write(&options.output, &results)?;
    let missed = table::missed(&results.summary, BUDGET);
    if options.enforce && !missed.is_empty() {
        bail!("steering is less than {BUDGET} times as fast as nftables DNAT: {}", missed.join(", "));
    }
    Ok(())
}

fn measure(options: &Options, contenders: &[Contender]) -> Result<Vec<Run>> {
    let home = netns::stay_on_one_cpu()?;
    let topologies: Vec<Topology> = contenders
        .iter()
        .map(|contender| Topology::build(*contender).with_context(|| format!("setting up {contender}")))
        .collect::<Result<_>>()?;
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        for &size in &options.sizes {
            for &flows in &options.flows {
                let cell = Cell { size, flows };
                for topology in &topologies {
                    let run = topology.run(cell, options.frames, options.rate, round);
                    runs.push(run.with_context(|| format!("{}, {cell}", topology.contender()))?);
                }
            }
        }
        eprintln!("round {round} of {}", options.rounds);
    }
    drop(topologies);
    home.enter()?;
    Ok(runs)
}

fn write(folder: &Path, results: &Results) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let svg = plot::svg(&results.machine, &results.summary, &results.runs);
    for (name, contents) in
        [("throughput.json", serde_json::to_vec_pretty(results)?), ("throughput.svg", svg.into_bytes())]
    {
        let path = folder.join(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
