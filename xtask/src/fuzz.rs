//! `cargo xtask fuzz`: one fuzz target for long, led by coverage: libFuzzer, which the crate bolero brings.
//!
//! What `cargo bolero` does, for the one test binary that matters: it would build all of the package's. The compiler is the
//! workspace's own; sanitizers, which want another, would find nothing that safe Rust does not panic on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::workspace::{cargo, find_program, output, root, run};

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Fuzz {
    /// What
    #[arg(value_enum)]
    target: Target,
    /// For how long, in seconds
    #[arg(long, default_value = "60", value_parser = seconds)]
    time: Duration,
    /// Processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
}

/// A test with `bolero::check!`. What it begins with lies in `__fuzz__/NAME/corpus` beside its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// Adverts: decoding against a model, and encoding again
    Codec,
    /// Ethernet frames: which are adverts for an instance
    Frame,
    /// Ethernet frames: what the XDP program's decision makes of them, against a model
    Decision,
    /// Events and times: the state machine
    Machine,
}

/// What cargo-bolero gives the compiler for libFuzzer.
const INSTRUMENTED: [&str; 8] = [
    "--cfg fuzzing",
    "--cfg fuzzing_libfuzzer",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
];

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Codec => "codec",
            Self::Frame => "frame",
            Self::Decision => "decision",
            Self::Machine => "machine",
        }
    }

    const fn package(self) -> &'static str {
        match self {
            Self::Decision => "vip-common",
            _ => "vip-agent",
        }
    }

    /// What cargo calls the binary that the test is in.
    const fn binary(self) -> &'static [&'static str] {
        match self {
            Self::Codec | Self::Frame => &["--test", "wire"],
            Self::Decision => &["--test", "decision"],
            Self::Machine => &["--lib"],
        }
    }

    const fn test(self) -> &'static str {
        match self {
            Self::Codec => "fuzz::any_payload_is_read_as_the_model_reads_it",
            Self::Frame => "fuzz::any_frame_is_received_as_the_model_receives_it",
            Self::Decision => "fuzz::any_frame_comes_to_what_the_model_says",
            Self::Machine => "vrrp::machine::tests::fuzz::no_order_of_events_and_times_breaks_the_machine",
        }
    }

    fn folder(self) -> PathBuf {
        let beside = match self {
            Self::Codec | Self::Frame => "vip-agent/tests/wire",
            Self::Decision => "vip-common/tests/decision",
            Self::Machine => "vip-agent/src/vrrp/machine/tests",
        };
        root().join(beside).join("__fuzz__").join(self.name())
    }
}

/// Fuzzes for as long as was asked; a failure is shown, shrunk, and kept among the target's `crashes`, which the tests try
/// first from then on.
pub(crate) fn search(Fuzz { target, time, jobs }: &Fuzz) -> Result<()> {
    ensure!(
        find_program("c++").is_some(),
        "libFuzzer is built from C++: install a compiler (`apt install g++`)"
    );
    let found = root().join("target/fuzz/found").join(target.name());
    let [seeds, crashes] = ["corpus", "crashes"].map(|name| target.folder().join(name));
    for folder in [&found, &crashes] {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    // New inputs go to the first folder: the corpus that is kept stays as it is.
    let mut arguments = vec![found.display().to_string(), crashes.display().to_string()];
    arguments.extend(seeds.is_dir().then(|| seeds.display().to_string()));
    arguments.push(format!("-artifact_prefix={}/", crashes.display()));
    arguments.push(format!("-max_total_time={}", time.as_secs()));
    arguments.push("-timeout=10".to_owned());
    if *jobs > 1 {
        arguments.push(format!("-fork={jobs}"));
    }

    let mut fuzzer = cargo();
    fuzzer.args(["test", "--package", target.package()]).args(target.binary());
    // A triple keeps the flags from build scripts and macros.
    fuzzer.args(["--profile", "fuzz", "--target", &host()?, "--target-dir", "target/fuzz"]);
    fuzzer.args(["--", target.test(), "--exact", "--nocapture", "--quiet", "--test-threads=1"]);
    fuzzer.env("RUSTFLAGS", INSTRUMENTED.join(" ")).env("BOLERO_FUZZER", "libfuzzer");
    fuzzer.env("BOLERO_TEST_NAME", target.test()).env("BOLERO_LIBTEST_HARNESS", "1");
    fuzzer.env("BOLERO_LIBFUZZER_ARGS", arguments.join(" "));
    let ran = run(&mut fuzzer, "fuzzing");
    // Left empty, it would only be in the way.
    let _ = std::fs::remove_dir(&crashes);
    ran.with_context(|| format!("{}: see what was printed, and {}", target.name(), crashes.display()))
}

fn host() -> Result<String> {
    let version = output(std::process::Command::new("rustc").arg("-vV")).context("cannot find rustc")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it builds for")
}

/// `60` or `60s`.
fn seconds(text: &str) -> Result<Duration> {
    let number: u64 = text.strip_suffix('s').unwrap_or(text).parse().context("a number of seconds")?;
    ensure!(number > 0, "at least a second");
    Ok(Duration::from_secs(number))
}
