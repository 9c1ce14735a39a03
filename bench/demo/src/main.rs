//! `vip-demo`: nodes that share a VIP under fire, watched by a client; a table, a picture and JSON of what happened.
//!
//! [`story`] acts, [`evidence`] is what the instruments saw, [`measure`] makes numbers of it, [`expect`] judges them;
//! [`table`], [`timeline`] and [`record`] show them.

mod cast;
mod evidence;
mod expect;
mod interrupt;
mod measure;
mod options;
mod record;
mod results;
mod screen;
mod stage;
mod story;
mod table;
mod timeline;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let plan = match options::Options::parse().plan() {
        Ok(plan) => plan,
        Err(wrong) => wrong.exit(),
    };
    // Before any thread starts: threads inherit the signal mask.
    let played = interrupt::leave_cleanly_on_signals().and_then(|()| results::play(&plan));
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
