//! Ctrl-C: the terminal as it was, and out. The lab lives in threads and handles of this process, so it is gone then.

use std::io::{IsTerminal as _, Write as _};
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};

/// What a shell makes of a process that a signal ended: 128 and the signal's number.
const ENDED_BY_SIGNAL: i32 = 128;

/// Ends the process on SIGINT, SIGTERM and SIGHUP. To be called before other threads exist.
///
/// # Errors
/// The kernel refuses the mask or the thread.
pub(crate) fn leave_cleanly_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("block the signals that end the demo")?;
    let wait = move || {
        let Ok(signal) = signals.wait() else { return };
        let mut terminal = std::io::stdout();
        if terminal.is_terminal() {
            // Nothing is left to be done about a terminal that is gone.
            let _ = write!(terminal, "{}", crate::screen::RESTORE).and_then(|()| terminal.flush());
        }
        eprintln!("\n{signal}: the lab is gone, no results were written");
        std::process::exit(ENDED_BY_SIGNAL + signal as i32);
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map(drop).context("start the signals' thread")
}
