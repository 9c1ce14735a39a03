//! The package's maintainer scripts, with a systemctl that writes down what it is asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use vip_deploy::package;

/// Runs a script where systemd runs (a private /run) and says what it had systemctl and vip-agent do. `active`: whether the
/// service runs; `reloads`: whether a reload succeeds.
fn run(script: &str, arguments: &[&str], active: bool, reloads: bool) -> Result<(bool, Vec<String>)> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    fs::write(&log, "")?;
    let code = |good: bool| if good { 0 } else { 1 };
    let systemctl = format!(
        "#!/bin/sh\necho systemctl \"$@\" >>{log}\ncase \"$*\" in *is-active*) exit {};; reload*) exit {};; esac\n",
        code(active),
        code(reloads),
        log = log.display()
    );
    program(&folder.path().join("systemctl"), &systemctl)?;
    program(
        &folder.path().join("vip-agent"),
        &format!("#!/bin/sh\necho vip-agent \"$@\" >>{}\n", log.display()),
    )?;
    let script = vip_deploy::folder().join("deb").join(script);
    let inside = "mount -t tmpfs run /run && mkdir -p /run/systemd/system && exec \"$@\"";
    let done = Command::new("unshare")
        .args(["--mount", "sh", "-c", inside, "sh"])
        .arg(script)
        .args(arguments)
        .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display()))
        .output()
        .context("cannot start unshare")?;
    let lines = fs::read_to_string(&log)?.lines().map(str::to_owned).collect();
    Ok((done.status.success(), lines))
}

fn program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[test]
fn an_upgrade_reloads_the_running_agent_and_never_restarts_it() -> Result<()> {
    for (script, arguments) in [("prerm", ["upgrade", "0.2.0"]), ("postrm", ["upgrade", "0.2.0"])] {
        let (done, asked) = run(script, &arguments, true, true)?;
        ensure!(done && asked.is_empty(), "{script}: {asked:?}");
    }
    let (done, asked) = run("postinst", &["configure", "0.1.0"], true, true)?;
    ensure!(
        done && asked.last().is_some_and(|last| last == "systemctl reload vip-agent.service"),
        "{asked:?}"
    );
    ensure!(!asked.iter().any(|line| line.contains("restart") || line.contains("stop")), "{asked:?}");
    Ok(())
}

#[test]
fn a_new_agent_that_cannot_take_over_leaves_the_old_one_and_the_package_installed() -> Result<()> {
    let (done, asked) = run("postinst", &["configure", "0.1.0"], true, false)?;
    ensure!(done, "the package would be half installed: {asked:?}");
    Ok(())
}

#[test]
fn a_first_installation_starts_nothing() -> Result<()> {
    let (done, asked) = run("postinst", &["configure"], false, true)?;
    ensure!(
        done && asked == ["systemctl daemon-reload", "systemctl --quiet is-active vip-agent.service"],
        "{asked:?}"
    );
    Ok(())
}

#[test]
fn a_removal_hands_over_and_leaves_nothing() -> Result<()> {
    let (done, asked) = run("prerm", &["remove"], true, true)?;
    ensure!(
        done && asked == ["systemctl --quiet disable --now vip-agent.service", "vip-agent cleanup"],
        "{asked:?}"
    );
    Ok(())
}

/// What `cargo xtask deb` makes of the static programs, here with one that is at hand.
#[test]
fn the_package_has_the_agent_its_unit_and_these_scripts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let programs = folder.path().join("programs");
    fs::create_dir(&programs)?;
    for name in vip_deploy::PROGRAMS {
        fs::copy("/bin/true", programs.join(name))?;
    }
    let package = package::assemble(&programs, "amd64", folder.path())?;
    let listed = Command::new("dpkg-deb").arg("--contents").arg(&package).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    for (mode, file) in [
        ("-rwxr-xr-x root/root", "./usr/bin/vip-agent"),
        ("-rwxr-xr-x root/root", "./usr/bin/vip-kube"),
        ("-rw-r--r-- root/root", "./usr/lib/systemd/system/vip-agent.service"),
        ("-rw-r--r-- root/root", "./usr/share/doc/viplane/examples/minimal.yaml"),
        ("-rw-r--r-- root/root", "./usr/share/doc/viplane/copyright"),
    ] {
        let is_it = |line: &str| line.starts_with(mode) && line.ends_with(file);
        ensure!(listed.lines().any(is_it), "{mode} {file} is missing in\n{listed}");
    }
    let unpacked = folder.path().join("unpacked");
    let done = Command::new("dpkg-deb").arg("--raw-extract").arg(&package).arg(&unpacked).status()?;
    ensure!(done.success());
    for script in package::SCRIPTS {
        let packed = fs::read_to_string(unpacked.join("DEBIAN").join(script))?;
        ensure!(
            packed == fs::read_to_string(vip_deploy::folder().join("deb").join(script))?,
            "{script} was changed"
        );
    }
    let said = Command::new("dpkg-deb")
        .arg("--field")
        .arg(&package)
        .args(["Package", "Version", "Depends"])
        .output()?;
    let said = String::from_utf8(said.stdout)?;
    ensure!(said == format!("Package: viplane\nVersion: {}\n", env!("CARGO_PKG_VERSION")), "{said}");
    Ok(())
}
