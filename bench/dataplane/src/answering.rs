//! ARP answers per second over a veth: the program's, and the kernel's own on a wire of the same kind.
//!
//! Live frames of BPF_PROG_TEST_RUN ask, an XDP program at the asking end counts: an AF_PACKET sender would be slower
//! than either answerer. On the kernel's wire a passing program stands at the answering end, since without one veth
//! takes no such frames.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::Ebpf;
use aya::maps::PerCpuArray;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, XdpMode};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use serde::Serialize;

use crate::{median, object};

/// Frames in flight at a time: what the kernel takes at once.
const BATCH: u32 = 64;

/// How fast both answer.
#[derive(Serialize)]
pub(crate) struct Answering {
    pub(crate) program_per_second: f64,
    pub(crate) kernel_per_second: f64,
    pub(crate) ratio: f64,
    pub(crate) budget: f64,
}

impl Answering {
    /// Whether the program is as much faster as it has to be.
    pub(crate) fn is_met(&self) -> bool {
        self.ratio >= self.budget
    }
}

/// Asks both in turn, on one CPU, in a network namespace that ends with the measurement.
pub(crate) fn measure(rounds: usize, frames: u32) -> Result<Answering> {
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("no network namespace (root is needed)")?;
        let mut cpu = CpuSet::new();
        cpu.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &cpu).context("cannot stay on CPU 0")?;
        rates(rounds, frames)
    })
    .join()
    .map_err(|_| anyhow!("the measuring thread panicked"))?
}

fn rates(rounds: usize, frames: u32) -> Result<Answering> {
    let program = Wire::new("program", "viplane")?;
    let kernel = Wire::new("kernel", "pass")?;
    ip("address add 10.0.0.50/24 dev kernel1")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(program.answers_per_second(frames)?);
        theirs.push(kernel.answers_per_second(frames)?);
    }
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    Ok(Answering {
        program_per_second: median(ours).context("no rounds")?,
        kernel_per_second: median(theirs).context("no rounds")?,
        ratio: median(ratios).context("no rounds")?,
        budget: 3.5,
    })
}

/// A veth: questions leave at its end 0, and are answered at its end 1.
struct Wire {
    client: Ebpf,
    asking_end: u32,
    /// Keeps its program attached.
    _answerer: Ebpf,
}

impl Wire {
    fn new(name: &str, answerer: &str) -> Result<Self> {
        let (asking, answering) = (format!("{name}0"), format!("{name}1"));
        ip(&format!("link add {asking} type veth peer name {answering}"))?;
        for end in [&asking, &answering] {
            ip(&format!("link set {end} addrgenmode none up"))?;
        }
        let mut node = object::load(if_nametoindex(answering.as_str())?)?;
        object::program_mut(&mut node, answerer)?
            .attach(&answering, XdpMode::Driver)
            .with_context(|| format!("cannot attach to {answering}"))?;
        let mut client = object::load_client()?;
        object::program_mut(&mut client, "count")?
            .attach(&asking, XdpMode::Driver)
            .with_context(|| format!("cannot attach to {asking}"))?;
        Ok(Self { client, asking_end: if_nametoindex(asking.as_str())?, _answerer: node })
    }

    fn answers_per_second(&self, questions: u32) -> Result<f64> {
        let frame = [0; 60];
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context: [u32; 6] = [0, u32::try_from(frame.len())?, 0, self.asking_end, 0, 0];
        let before = self.answers()?;
        let start = Instant::now();
        object::program(&self.client, "ask")?
            .test_run(TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(bytemuck::bytes_of(&context)),
                repeat: questions,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            })
            .context("live frames (Linux 5.18)")?;
        let elapsed = start.elapsed();
        // What is still under way is not counted for this round, nor for the next.
        let answers = self.answers()? - before;
        thread::sleep(Duration::from_millis(5));
        ensure!(answers > u64::from(questions) / 2, "only {answers} of {questions} questions were answered");
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        Ok(answers as f64 / elapsed.as_secs_f64())
    }

    fn answers(&self) -> Result<u64> {
        let answers: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.client.map("ANSWERS").context("no map ANSWERS")?)?;
        Ok(answers.get(&0, 0)?.iter().sum())
    }
}

/// Runs `ip` with these words, in this thread's network namespace.
pub(crate) fn ip(words: &str) -> Result<()> {
    let output = Command::new("ip").args(words.split_whitespace()).output().context("cannot run ip")?;
    ensure!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
