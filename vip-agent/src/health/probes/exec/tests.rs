//! Commands that do not mean well: what they keep from others, and what they leave behind.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn asker(program: &str, arguments: &[&str]) -> Asker {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Asker::new("probe", CommandLine { program: program.to_owned(), arguments })
}

async fn ask(asker: &Asker, timeout: Duration) -> Result<(), String> {
    asker.ask(Limit { until: Instant::now() + timeout, timeout }).await
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Waits until there is no process of the number in a file any more, not even a zombie.
async fn is_reaped(file: &Path) -> bool {
    let pid = std::fs::read_to_string(file).unwrap();
    let gone = async {
        while Path::new("/proc").join(pid.trim()).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.is_ok()
}

#[test]
fn a_command_that_never_stops_talking_has_neither_the_runtime_nor_more_than_its_time() {
    let (tell, told) = mpsc::channel();
    // In a thread of its own: a runtime that is kept would keep this test, too.
    std::thread::spawn(move || {
        run(async {
            let ticks = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&ticks);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
            let outcome = ask(&asker("cat", &["/dev/zero"]), Duration::from_millis(500)).await;
            let _ = tell.send((outcome, ticks.load(Ordering::Relaxed)));
        });
    });
    let (outcome, ticks) = told.recv_timeout(PATIENCE).expect("it has the runtime for itself");
    assert_eq!(outcome.unwrap_err(), "no answer within 500ms: cat still ran, and was killed");
    assert!(ticks > 20, "others had their turn {ticks} times in 500 ms");
}

#[test]
fn much_that_is_said_is_read_to_its_end() {
    assert_eq!(run(ask(&asker("head", &["-c", "3000000", "/dev/zero"]), PATIENCE)), Ok(()));
}

#[test]
fn what_a_command_leaves_to_us_is_reaped_whether_it_ended_or_was_killed() {
    // As the init of a container is asked to.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (ended, killed) = (dir.path().join("ended"), dir.path().join("killed"));
    run(async {
        let leave = |file: &Path, then: &str| {
            asker("sh", &["-c", &format!("sleep 1000 & echo $! > {}; {then}", file.display())])
        };
        assert_eq!(ask(&leave(&ended, "exit 0"), PATIENCE).await, Ok(()));
        assert!(is_reaped(&ended).await, "a zombie is left of a command that ended");
        let hung = leave(&killed, "trap '' TERM; wait");
        assert!(ask(&hung, Duration::from_millis(500)).await.is_err());
        assert!(is_reaped(&killed).await, "a zombie is left of a command that was killed");
    });
}

#[test]
fn a_command_that_leaves_its_group_is_killed_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let flee = "setpgrp(0, getpgrp(getppid())) or die; open F, '>', shift; print F $$; close F; sleep 1000";
    run(async {
        let fled = asker("perl", &["-e", flee, pid.to_str().unwrap()]);
        let told = ask(&fled, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(told, "no answer within 1s: perl still ran, and was killed");
        assert!(is_reaped(&pid).await, "it still runs");
    });
}

#[test]
fn commands_that_do_not_go_are_not_joined_by_ever_more() {
    let asker = asker("true", &[]);
    let seats: Vec<Seat> = std::iter::from_fn(|| asker.seats.take()).collect();
    assert_eq!(seats.len(), MOST);
    run(async {
        let told = ask(&asker, PATIENCE).await.unwrap_err();
        assert_eq!(told, "4 earlier ones are killed, but not gone");
        drop(seats);
        // Its own seat is free again each time.
        for _ in 0..2 * MOST {
            assert_eq!(ask(&asker, PATIENCE).await, Ok(()));
        }
    });
}
