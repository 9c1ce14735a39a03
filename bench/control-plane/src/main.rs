//! A control plane for people: `cargo xtask kube up` and `down`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vip_control_plane::Programs;
use vip_control_plane::commands::{CRDS, Layout, PORTS, PROGRAMS, endpoint_slices};

/// How long a start, or an end, may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(name = "vip-control-plane", about = "A real Kubernetes control plane on this host's loopback")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start it, and print where its kubeconfig is
    Up {
        /// Its files
        dir: PathBuf,
        /// First of five ports [default: the first that are free from 16443 on]
        #[arg(long)]
        port: Option<u16>,
    },
    /// End it
    Down {
        /// Its files
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Up { dir, port } => up(&dir, port),
        Task::Down { dir } => down(&dir),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn up(dir: &Path, port: Option<u16>) -> Result<()> {
    let programs = Programs::find()?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    if let Some((name, pid)) = running(&dir).into_iter().next() {
        bail!("{name} runs already (pid {pid}): `cargo xtask kube down` ends it");
    }
    let layout = Layout::new(dir.clone(), Ipv4Addr::LOCALHOST.into(), port.map_or_else(free_ports, Ok)?);
    // Others on this host reach the port as well.
    let layout = layout.with_token(token(&dir)?);
    fs::create_dir_all(layout.pki())?;
    if !layout.pki().join("sa.key").exists() {
        for (program, arguments) in layout.key_pair() {
            let made = Command::new(program).args(arguments).stderr(Stdio::null()).status();
            if !made.is_ok_and(|status| status.success()) {
                bail!("openssl cannot make a key: is it installed (`cargo xtask setup`)?");
            }
        }
    }
    fs::write(layout.pki().join("tokens.csv"), layout.tokens())?;
    for name in &PROGRAMS[..2] {
        spawn(&dir, &layout, name, &programs)?;
    }
    let until = Instant::now() + PATIENCE;
    while curl(&layout, &["/readyz"]).is_err() {
        let ended = PROGRAMS[..2].iter().find(|name| running(&dir).iter().all(|(other, _)| other != *name));
        if ended.is_some() || Instant::now() > until {
            let name = ended.copied().unwrap_or("kube-apiserver");
            let log = fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(10).collect();
            down(&dir)?;
            bail!("{name} does not serve:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let authority = fs::read_to_string(layout.authority())?;
    fs::write(layout.kubeconfig_path(), layout.kubeconfig(&authority))?;
    // A start over files of before finds it there.
    let slices = endpoint_slices().to_string();
    let _ = curl(&layout, &[CRDS, "--header", "Content-Type: application/json", "--data-binary", &slices]);
    for name in &PROGRAMS[2..] {
        spawn(&dir, &layout, name, &programs)?;
    }
    println!("export KUBECONFIG={}", layout.kubeconfig_path().display());
    Ok(())
}

fn spawn(dir: &Path, layout: &Layout, name: &str, programs: &Programs) -> Result<()> {
    let [program, arguments @ ..] = &layout.command(name, programs)[..] else { bail!("no {name}") };
    let log = File::create(dir.join(format!("{name}.log")))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.process_group(0).spawn();
    let child =
        child.with_context(|| format!("cannot start {name}: is it installed (`cargo xtask setup`)?"))?;
    Ok(fs::write(pid_file(dir, name), child.id().to_string())?)
}

fn down(dir: &Path) -> Result<()> {
    let dir = dir.canonicalize().with_context(|| format!("there is nothing in {}", dir.display()))?;
    let until = Instant::now() + PATIENCE;
    for (_, pid) in running(&dir).into_iter().rev() {
        let _ = kill(pid, Signal::SIGTERM);
    }
    while let Some((name, pid)) = running(&dir).into_iter().next() {
        if Instant::now() > until {
            eprintln!("{name} does not end: killing it");
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for name in PROGRAMS {
        let _ = fs::remove_file(pid_file(&dir, name));
    }
    Ok(())
}

/// Those that run by the files in `dir`, told from others that have got their process ids meanwhile by their command lines.
fn running(dir: &Path) -> Vec<(&'static str, Pid)> {
    let of = |name: &'static str| {
        let pid: i32 = fs::read_to_string(pid_file(dir, name)).ok()?.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let ours = line.contains(name) && line.contains(&dir.display().to_string());
        ours.then(|| (name, Pid::from_raw(pid)))
    };
    PROGRAMS.into_iter().filter_map(of).collect()
}

fn pid_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.pid"))
}

fn curl(layout: &Layout, arguments: &[&str]) -> Result<()> {
    let [path, options @ ..] = arguments else { bail!("no path") };
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--insecure", "--fail", "--max-time", "10", "--header"]);
    curl.arg(layout.authorization()).args(options).arg(layout.url(path));
    let status = curl.stdout(Stdio::null()).status().context("cannot start curl (`cargo xtask setup`)")?;
    if !status.success() {
        bail!("{path}: {status}");
    }
    Ok(())
}

/// A secret of this directory.
fn token(dir: &Path) -> Result<String> {
    let file = dir.join("token");
    if let Ok(token) = fs::read_to_string(&file) {
        return Ok(token);
    }
    let mut random = [0; 16];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(&file, &token)?;
    Ok(token)
}

fn free_ports() -> Result<u16> {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut starts = (16443..17443).step_by(usize::from(PORTS));
    starts.find(|&first| (first..first + PORTS).all(free)).context("no five free ports from 16443 to 17443")
}
