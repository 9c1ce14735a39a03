//! `exec`, `file` and `interface`: whatever becomes of what they look at.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use vip_lab::{Lab, wait};

use super::agents::SOON;
use super::{Case, children, hold};

#[test]
fn commands_files_and_interfaces_are_up_and_down_as_they_are_and_leave_nothing() -> Result<()> {
    let lab = Lab::builder().nodes(1).clients(0).vips(["10.0.0.50"]).build()?;
    let node = lab.node(1);
    let path = |name: &str| node.file_path(name).display().to_string();
    node.write_file(path("script"), "#!/bin/sh\nexit 0\n")?;
    node.write_file(path("words"), "no program\n")?;
    node.command("chmod").args(["755", &path("words")]).read()?;
    node.command("ln").args(["-s", "/nowhere", &path("dangling")]).read()?;
    node.ip("link add down0 type veth peer name far0")?;
    node.ip("link add cut0 type veth peer name end0")?;
    node.ip("link set cut0 up")?;
    let exec =
        |name, command: &[&str], expected| Case::new(name, "exec", json!({"command": command}), expected);
    let shell = |name, script: &str, expected| exec(name, &["sh", "-c", script], expected);
    let file = |name, path: String, expected| Case::new(name, "file", json!({"path": path}), expected);
    let link = |name, link: &str, expected| Case::new(name, "interface", json!({"name": link}), expected);
    // Of this test alone.
    let long = format!("10{}", std::process::id());
    let (script, words) = (path("script"), path("words"));
    let cases = [
        exec("true", &["true"], Ok(())),
        exec("false", &["false"], Err("exit status 1")),
        shell("status", "exit 255", Err("exit status 255")),
        shell("signal", "kill -SEGV $$", Err("killed by signal 11")),
        exec("missing", &["/no/such"], Err("cannot run /no/such: No such file")),
        exec("not-executable", &[&script], Err("Permission denied")),
        exec("no-program", &[&words], Err("Exec format error|exit status")),
        exec("directory", &["/"], Err("Permission denied")),
        exec("stdin", &["cat"], Ok(())),
        exec("sleeps", &["sleep", &long], Err("no answer within 1s: sleep still ran, and was killed")),
        shell(
            "ignores-term",
            &format!("trap '' TERM INT HUP; while :; do sleep {long}; done"),
            Err("still ran, and was killed"),
        ),
        shell("forks", &format!("sleep {long} & sleep {long} & exit 0"), Ok(())),
        shell("forks-and-hangs", &format!("(sleep {long}; sleep {long}) | cat & wait"), Err("still ran")),
        // It leaves the group, and holds the pipe: nobody waits for it. It ends by itself.
        shell("daemon", "setsid sleep 0.2 & exit 0", Ok(())),
        exec("floods", &["cat", "/dev/zero"], Err("no answer within 1s: cat still ran, and was killed")),
        exec("much", &["head", "-c", "2000000", "/dev/zero"], Ok(())),
        // What it inherits: no blocked signals, no real-time priority.
        shell("signals", "grep -q 'SigBlk:.0000000000000000' /proc/self/status", Ok(())),
        shell("scheduling", "set -- $(cat /proc/self/stat); test ${41} -eq 0", Ok(())),
        file("file", script.clone(), Ok(())),
        file("directory-is-there", "/".to_owned(), Ok(())),
        file("file-missing", path("none"), Err("No such file")),
        file("dangling", path("dangling"), Err("No such file")),
        file("below-a-file", format!("{script}/x"), Err("Not a directory")),
        link("link", "eth0", Ok(())),
        link("link-down", "down0", Err("down0 is down")),
        link("link-cut", "cut0", Err("cut0 has no carrier")),
        link("link-missing", "eth7", Err("there is no interface eth7")),
    ];
    let agent = hold(&lab, &cases)?;
    node.ip("link set end0 up")?;
    let whole = || {
        agent.status().is_ok_and(|status| {
            status.raw.to_string().contains(r#""up":true,"name":"link-cut""#)
                || status.raw["instances"][0]["probes"].as_array().is_some_and(|probes| {
                    probes.iter().any(|probe| probe["name"] == "link-cut" && probe["up"] == true)
                })
        })
    };
    wait::until(SOON, whole)?;

    // Commands come and go; what has ended is reaped.
    let pid = agent.process().pid();
    let reaped = || children(pid).iter().all(|(state, _)| *state != 'Z');
    wait::until(SOON, reaped).map_err(|error| error.context(format!("zombies: {:?}", children(pid))))?;
    let sleeping = || {
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let lines = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| *line == format!("sleep\0{long}\0")).count()
    };
    // Three of those that hang, and three of one that has just ended, at most; not one more for each round.
    ensure!(sleeping() <= 12, "{} commands are left", sleeping());
    agent.signal(Signal::SIGTERM)?;
    agent.wait(SOON)?;
    wait::until(SOON, || sleeping() == 0)
}
