//! The sender: UDP datagrams of many flows, as live frames from one end of a veth.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions};
use vip_common::packet::checksum::Sum;

use crate::bench_object::program;
use crate::record::Cell;

/// Of the node.
pub(crate) const NODE: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Of the router that clients come by.
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];
/// The port of the VIP.
pub(crate) const PORT: u16 = 80;

/// Frames in flight at a time: what the kernel takes at once.
const BATCH: u32 = 64;

/// Ethernet, IPv4 and UDP headers, and a few bytes more.
const HEADERS: usize = 48;

/// As the option takes it: a power of two that the program can number.
pub(crate) fn flows(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(flows) if flows.is_power_of_two() && flows <= 65_536 => Ok(flows),
        _ => Err("a power of two up to 65536".to_owned()),
    }
}

/// What is sent, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) cell: Cell,
    pub(crate) destination: [u8; 4],
    pub(crate) frames: u32,
    /// Frames per second; `None`: as many as can be sent.
    pub(crate) rate: Option<u64>,
}

/// Sends it from the interface `ifindex` of this thread's namespace; returns how long that took.
pub(crate) fn send(generator: &mut Ebpf, ifindex: u32, traffic: &Traffic) -> Result<Duration> {
    prepare(generator, traffic)?;
    let begun = Instant::now();
    let Some(rate) = traffic.rate else {
        burst(generator, ifindex, traffic.cell.size, traffic.frames)?;
        return Ok(begun.elapsed());
    };
    let mut sent = 0;
    while sent < traffic.frames {
        let now = BATCH.min(traffic.frames - sent);
        burst(generator, ifindex, traffic.cell.size, now)?;
        sent += now;
        let due = begun + Duration::from_nanos(u64::from(sent) * 1_000_000_000 / rate);
        // Who is behind does not wait: then the rate is what could be sent.
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(begun.elapsed())
}

fn prepare(generator: &mut Ebpf, traffic: &Traffic) -> Result<()> {
    let template = template(traffic.cell.size, traffic.destination);
    let mut words: Array<_, [u64; HEADERS / 8]> =
        Array::try_from(generator.map_mut("TEMPLATE").context("no map TEMPLATE")?)?;
    words.set(0, bytemuck::cast::<_, [u64; HEADERS / 8]>(template), 0)?;
    let mut last: Array<_, u64> =
        Array::try_from(generator.map_mut("LAST_FLOW").context("no map LAST_FLOW")?)?;
    last.set(0, u64::from(traffic.cell.flows - 1), 0)?;
    Ok(())
}

fn burst(generator: &Ebpf, ifindex: u32, size: u16, frames: u32) -> Result<()> {
    let frame = vec![0; usize::from(size)];
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    let context: [u32; 6] = [0, u32::from(size), 0, ifindex, 0, 0];
    let result = program(generator, "generate")?
        .test_run(TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH.min(frames)),
            ..TestRunOptions::default()
        })
        .context("live frames (Linux 5.18)")?;
    ensure!(result.return_value == 0, "live frames came to {}", result.return_value);
    Ok(())
}

/// Its first bytes, with 0 as the low half of the client's address.
fn template(size: u16, destination: [u8; 4]) -> [u8; HEADERS] {
    let mut frame = [0; HEADERS];
    let ip_length = size - 14;
    frame[..6].copy_from_slice(&NODE);
    frame[6..12].copy_from_slice(&CLIENT);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..16].copy_from_slice(&[0x45, 0]);
    frame[16..18].copy_from_slice(&ip_length.to_be_bytes());
    frame[20..24].copy_from_slice(&[0x40, 0, 64, 17]);
    frame[26..30].copy_from_slice(&[10, 9, 0, 0]);
    frame[30..34].copy_from_slice(&destination);
    let checksum = frame[14..34].chunks_exact(2).fold(Sum::new(), |sum, word| sum.word([word[0], word[1]]));
    frame[24..26].copy_from_slice(&checksum.checksum());
    frame[36..38].copy_from_slice(&PORT.to_be_bytes());
    frame[38..40].copy_from_slice(&(ip_length - 20).to_be_bytes());
    // Without a checksum (RFC 768): the kernel has none to change, which favours it.
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_datagram_of_its_size() {
        let frame = template(512, [10, 0, 0, 50]);
        assert_eq!(frame[16..18], 498_u16.to_be_bytes());
        assert_eq!(frame[38..40], 478_u16.to_be_bytes());
        let sum = frame[14..34].chunks_exact(2).fold(Sum::new(), |sum, word| sum.word([word[0], word[1]]));
        assert_eq!(sum.checksum(), [0, 0], "its header's checksum is right");
    }

    #[test]
    fn flows_are_powers_of_two() {
        assert_eq!(flows("1024"), Ok(1024));
        for wrong in ["0", "3", "131072", "x"] {
            assert!(flows(wrong).is_err(), "{wrong}");
        }
    }
}
