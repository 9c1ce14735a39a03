//! How deep idle CPUs may sleep while hosts are watched: the kernel's CPU latency limit (Documentation/power/pm_qos_interface).
//!
//! A timer that ends while its CPU sleeps is late by the time that the CPU takes to wake: up to hundreds of microseconds from
//! the deepest states of real ones, and milliseconds where a virtual one was given back to its hypervisor.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::time::Duration;

/// Holds the limit as long as it is open. One for all CPUs; the least of all who ask holds.
const DEVICE: &str = "/dev/cpu_dma_latency";

/// Which cpuidle driver runs.
const IDLE_DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";

/// A limit that lets CPUs halt (C1) and no more: what `tuned` has for its profile `network-latency`.
const HALT: Duration = Duration::from_micros(2);

/// The limit that suits the machine: 2 us, or no sleep at all where the one way to sleep gives the CPU to a hypervisor.
#[must_use]
pub fn suitable() -> Duration {
    match std::fs::read_to_string(IDLE_DRIVER) {
        Ok(driver) if driver.trim() == "haltpoll" => Duration::ZERO,
        _ => HALT,
    }
}

/// A limit that this process holds, or none.
#[derive(Debug, Default)]
pub struct IdleLimit {
    wanted: Option<Duration>,
    held: Option<File>,
}

impl IdleLimit {
    /// CPUs must wake within `limit` (whole microseconds); `None`: they sleep as they like. Returns whether that is news; the
    /// same again does nothing, also where it could not be had.
    ///
    /// # Errors
    /// The device cannot be opened: a container has none, or it is not ours to open. Nothing is held then.
    pub fn hold(&mut self, limit: Option<Duration>) -> io::Result<bool> {
        if self.wanted == limit {
            return Ok(false);
        }
        self.wanted = limit;
        // The next one is there before the last one goes: CPUs need not fall asleep in between.
        let next = limit.map(open).transpose();
        self.held = None;
        self.held = next?;
        Ok(true)
    }
}

fn open(limit: Duration) -> io::Result<File> {
    let in_context = |error: io::Error| io::Error::new(error.kind(), format!("{DEVICE}: {error}"));
    let mut device = OpenOptions::new().write(true).open(DEVICE).map_err(in_context)?;
    let micros = i32::try_from(limit.as_micros()).unwrap_or(i32::MAX);
    device.write_all(&micros.to_ne_bytes()).map_err(in_context)?;
    Ok(device)
}
