//! `vip-sim`: plays simulated networks by seed; a failing run is shrunk, shown, and named by the command that repeats it.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use vip_sim::{FAMILIES, Failure, Family, Mutation, Tally};

#[derive(Parser)]
#[command(name = "cargo xtask sim", about = "Play VRRP networks by seed, and check what must hold in them")]
struct Options {
    /// This seed alone, and its trace if it fails
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds of each family
    #[arg(long, default_value_t = 2000, conflicts_with = "seed")]
    runs: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// One family alone
    #[arg(long, value_parser = Family::named)]
    family: Option<&'static Family>,
    /// Break a rule on purpose: `list` names them
    #[arg(long)]
    mutation: Option<String>,
    /// Show the trace of a run that holds, too
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Show a failing run as it was, with all that it does not need
    #[arg(long)]
    whole: bool,
}

/// As `println!`, but whoever reads may stop to.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mutation = match options.mutation.as_deref().map(str::parse::<Mutation>) {
        _ if options.mutation.as_deref() == Some("list") => {
            for mutation in Mutation::ALL {
                say!("{:<21}{}", mutation.name(), mutation.what().trim());
            }
            return ExitCode::SUCCESS;
        }
        None => None,
        Some(Ok(mutation)) => Some(mutation),
        Some(Err(unknown)) => {
            eprintln!("error: {unknown}");
            return ExitCode::from(2);
        }
    };
    let seeds =
        options.seed.map_or(options.from..options.from.saturating_add(options.runs), |seed| seed..seed + 1);
    let mut held = true;
    for family in options.family.map_or(&FAMILIES[..], std::slice::from_ref) {
        let began = Instant::now();
        match play_all(family, &seeds, mutation) {
            Ok(tally) => {
                if options.trace {
                    say!("{}", vip_sim::trace(family, seeds.start, mutation).join("\n"));
                }
                report(family, &tally, began);
            }
            Err(failure) => {
                held = false;
                show(*failure, options.whole);
            }
        }
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays the seeds on all CPUs; the failure of the lowest seed.
fn play_all(
    family: &'static Family,
    seeds: &std::ops::Range<u64>,
    mutation: Option<Mutation>,
) -> Result<Tally, Box<Failure>> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut total = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(total);
            }
            match vip_sim::play(family, seed, mutation) {
                Ok(tally) => total = total + tally,
                Err(failure) => {
                    // The others finish what they have begun: it may be a lower seed.
                    next.store(seeds.end, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut total = Ok(Tally::default());
        for worker in workers {
            let done = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            total = match (total, done) {
                (Ok(total), Ok(tally)) => Ok(total + tally),
                (Err(one), Err(other)) => Err(if one.seed < other.seed { one } else { other }),
                (Err(failure), _) | (_, Err(failure)) => Err(failure),
            };
        }
        total
    })
}

fn report(family: &Family, tally: &Tally, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    say!(
        "{:<9} {:>7} runs hold  {:>7.0} runs/s  {:>5.1} M events/s  {:>8} s of virtual time  {}",
        family.name,
        tally.runs,
        tally.runs as f64 / seconds,
        tally.events as f64 / seconds / 1e6,
        tally.virtual_ms / 1000,
        family.what,
    );
}

fn show(failure: Failure, whole: bool) {
    let found = failure.violation.clone();
    let failure = if whole { failure } else { failure.shrunk() };
    say!("{}", failure.trace().join("\n"));
    say!("\n{} seed {} breaks {}", failure.family, failure.seed, failure.violation);
    let (nodes, acts) = failure.left_out();
    if !nodes.is_empty() || acts > 0 {
        say!(
            "left out, because it breaks without: {} routers, {acts} acts (--whole shows all: {found})",
            nodes.len()
        );
    }
    say!("again: {}\n", failure.command());
}
