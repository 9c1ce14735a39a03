//! Nanoseconds per frame by BPF_PROG_TEST_RUN, over a program that only passes.
//!
//! Only paths that leave the frame as it was can be measured so: an answered question is no question the next time.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use serde::Serialize;

use crate::median;
use crate::object::{self, OWN, VIP4, VIP6};

/// The loopback interface, which test runs come from.
pub(crate) const LOOPBACK: u32 = 1;

/// What one kind of frame costs.
#[derive(Serialize)]
pub(crate) struct Cost {
    pub(crate) frame: &'static str,
    /// Median, the harness's own share included.
    pub(crate) ns: i64,
    /// Median of the differences to `pass` in the same round.
    pub(crate) over_pass_ns: i64,
    /// Of the quickest round, over the quickest one of `pass`: what other work on the machine adds the least to.
    pub(crate) least_over_pass_ns: i64,
    pub(crate) budget_ns: Option<i64>,
}

/// The rounds of one kind of frame.
#[derive(Default)]
pub(crate) struct Rounds {
    floors: Vec<i64>,
    times: Vec<i64>,
}

impl Rounds {
    /// One more: nanoseconds of `pass`, and of the program.
    pub(crate) fn push(&mut self, floor: i64, time: i64) {
        self.floors.push(floor);
        self.times.push(time);
    }

    /// What they come to; `None` if there are none.
    pub(crate) fn cost(self, frame: &'static str, budget_ns: Option<i64>) -> Option<Cost> {
        let differences = self.times.iter().zip(&self.floors).map(|(time, floor)| time - floor).collect();
        Some(Cost {
            frame,
            least_over_pass_ns: self.times.iter().min()? - self.floors.iter().min()?,
            over_pass_ns: median(differences)?,
            ns: median(self.times)?,
            budget_ns,
        })
    }
}

impl Cost {
    /// Whether it keeps within its budget, if it has one.
    pub(crate) fn is_met(&self) -> bool {
        self.budget_ns.is_none_or(|budget| self.over_pass_ns <= budget)
    }
}

const FOREIGN_VIRTUAL: [u8; 6] = [0, 0, 0x5e, 0, 1, 52];

struct Case {
    name: &'static str,
    frame: Vec<u8>,
    budget_ns: Option<i64>,
}

/// Runs every case once per round, each beside `pass`.
pub(crate) fn measure(rounds: usize, frames: u32) -> Result<Vec<Cost>> {
    let ebpf = object::load(LOOPBACK)?;
    let (viplane, pass) = (object::program(&ebpf, "viplane")?, object::program(&ebpf, "pass")?);
    let cases = cases();
    let mut measured: Vec<Rounds> = cases.iter().map(|_| Rounds::default()).collect();
    for _ in 0..rounds {
        for (case, measured) in cases.iter().zip(&mut measured) {
            measured.push(run(pass, &case.frame, frames)?, run(viplane, &case.frame, frames)?);
        }
    }
    let costs = cases.iter().zip(measured).map(|(case, measured)| measured.cost(case.name, case.budget_ns));
    costs.collect::<Option<_>>().context("no rounds")
}

/// Nanoseconds per frame.
fn run(program: &Xdp, frame: &[u8], repeat: u32) -> Result<i64> {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    let result = program.test_run(options).context("BPF_PROG_TEST_RUN (root is needed)")?;
    ensure!(result.return_value == 2, "the frame did not pass but came to {}", result.return_value);
    Ok(i64::try_from(result.duration.as_nanos())?)
}

fn cases() -> Vec<Case> {
    let case = |name, frame, budget_ns| Case { name, frame, budget_ns };
    let mut foreign6 = VIP6;
    foreign6[15] ^= 1;
    vec![
        case("another EtherType", ethernet(0x88cc, &[0; 46]), None),
        case("IPv4, not ours", ipv4([10, 0, 0, 51], 6), Some(10)),
        case("IPv6, not ours", ipv6(foreign6, 6), Some(14)),
        case("VRRP over IPv4", ipv4([224, 0, 0, 18], 112), Some(10)),
        case("VRRP over IPv6", ipv6(VIP6, 112), Some(14)),
        case("IPv4, a virtual MAC that is not ours", to(FOREIGN_VIRTUAL, ipv4([10, 0, 0, 51], 6)), None),
        case("IPv4 to an owned VIP", ipv4(VIP4, 6), None),
        case("IPv6 to an owned VIP", ipv6(VIP6, 6), None),
    ]
}

/// The frame, sent to another MAC.
fn to(mac: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac);
    frame
}

pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&OWN[..], &[2, 0, 0, 0, 0, 0xc1], &ethertype.to_be_bytes(), payload].concat()
}

fn ipv4(destination: [u8; 4], protocol: u8) -> Vec<u8> {
    let start = [0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 9];
    ethernet(0x0800, &[&start[..], &destination, &[0; 40]].concat())
}

fn ipv6(destination: [u8; 16], next_header: u8) -> Vec<u8> {
    let start = [0x60, 0, 0, 0, 0, 40, next_header, 255];
    let source = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    ethernet(0x86dd, &[&start[..], &source, &destination, &[0; 40]].concat())
}
