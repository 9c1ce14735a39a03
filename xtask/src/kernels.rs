//! `cargo xtask bench kernels`: whether this kernel and others take the programs and run them, each other one in a virtual
//! machine.
//!
//! Debian's kernel packages are fetched by apt-get and unpacked, not installed. The machines are emulated: no KVM is needed, a
//! minute is enough for each, and nothing there is timed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::setup::packages::refresh_lists;
use crate::workspace::{cargo, find_program, output, root, run};
use crate::{elevate, release};

/// What asks a kernel.
const PROGRAM: &str = "vip-bench-dataplane";

/// The oldest kernel that must do, and one with TCX; both are Debian 12's.
const PACKAGES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

/// Of a machine, from its start to its end.
const LIMIT: Duration = Duration::from_secs(300);

/// One that ends when its kernel does, well or not.
const HARDWARE: &str = "-m 1024 -smp 1 -cpu max -display none -monitor none -no-reboot";

/// The machine's only process. The second serial port has nothing but the answer.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
insmod /veth.ko
/bin/ask --accept >/dev/ttyS1
poweroff -f
";

/// What one kernel made of the programs, as `vip-bench-dataplane --accept` prints it.
#[derive(Deserialize, Serialize)]
struct Acceptance {
    kernel: String,
    programs: Vec<Verified>,
    attached: Vec<String>,
    steered: Vec<String>,
    refused: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Verified {
    program: String,
    /// The kernel tells since 5.16.
    instructions: Option<u32>,
}

/// Asks this kernel and those of `packages`, or of [`PACKAGES`].
///
/// # Errors
/// A kernel refuses something; a machine does not come to its end.
pub(crate) fn ask(packages: &[String]) -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!("the machines are x86_64, and this one is {}", env::consts::ARCH);
    }
    // Unlike what is measured, what is asked does not depend on the profile.
    run(cargo().args(["build", "--package", PROGRAM]), "cargo build")?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |at| root().join(at));
    let program = target.join("debug").join(PROGRAM);
    let machines = Machines::prepare(root().join("target/kernels"), &program)?;
    let mut packages = packages.to_vec();
    if packages.is_empty() {
        packages = PACKAGES.map(str::to_owned).to_vec();
    }
    let mut all = Vec::new();
    for package in &packages {
        all.push(machines.ask(package).with_context(|| package.clone())?);
    }
    let here = elevate::command(&program)?.arg("--accept").stderr(Stdio::inherit()).output();
    all.push(answer(&here.with_context(|| format!("cannot start {}", program.display()))?.stdout)?);
    release::folder("target/bench")?;
    fs::write(root().join("target/bench/kernels.json"), serde_json::to_vec_pretty(&all)?)
        .context("cannot write target/bench/kernels.json")?;
    print!("{}", table(&all));
    let refused =
        all.iter().filter_map(|one| Some(format!("Linux {}: {}", one.kernel, one.refused.as_ref()?)));
    let refused: Vec<_> = refused.collect();
    if !refused.is_empty() {
        bail!("{}", refused.join("\n"));
    }
    Ok(())
}

/// Instructions by program and kernel, as docs/steering.md has them.
fn table(all: &[Acceptance]) -> String {
    let mut table = String::from("| Program |");
    for one in all {
        let _ = write!(table, " {} |", one.kernel);
    }
    let _ = writeln!(table, "\n|---|{}", "---|".repeat(all.len()));
    let mut names: Vec<&str> = Vec::new();
    for one in all.iter().flat_map(|one| &one.programs) {
        if !names.contains(&one.program.as_str()) {
            names.push(&one.program);
        }
    }
    for name in names {
        let _ = write!(table, "| `{name}` |");
        for one in all {
            let count = one.programs.iter().find(|verified| verified.program == name);
            let count = count.and_then(|verified| verified.instructions);
            let _ = write!(table, " {} |", count.map_or_else(|| "-".to_owned(), |count| count.to_string()));
        }
        table.push('\n');
    }
    table
}

/// The line of JSON among what else was printed.
fn answer(printed: &[u8]) -> Result<Acceptance> {
    let printed = String::from_utf8_lossy(printed);
    let line = printed.lines().find(|line| line.starts_with('{')).context("no answer")?;
    serde_json::from_str(line).context("the answer is not understood")
}

/// Where machines are made.
struct Machines {
    folder: PathBuf,
    busybox: PathBuf,
    program: PathBuf,
    ip: PathBuf,
}

impl Machines {
    fn prepare(folder: PathBuf, program: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("packages")).context("cannot make target/kernels")?;
        refresh_lists()?;
        let busybox = unpack(&folder, "busybox-static")?.join("bin/busybox");
        // With its debug information it would be ten times as large.
        let small = folder.join("ask");
        run(Command::new("strip").arg("-o").arg(&small).arg(program), "strip")?;
        let ip = find_program("ip").context("there is no `ip`")?;
        Ok(Self { folder, busybox, program: small, ip })
    }

    /// Boots the kernel of a package, or of that which the package stands for.
    fn ask(&self, package: &str) -> Result<Acceptance> {
        let depends = output(Command::new("apt-cache").args(["depends", package])).unwrap_or_default();
        let image = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        let release = image.or_else(|| package.strip_prefix("linux-image-"));
        let release = release.context("not the name of a kernel's package (linux-image-...)")?;
        eprintln!("booting Linux {release} ...");
        let kernel = unpack(&self.folder, &format!("linux-image-{release}"))?;
        let initramfs = self.initramfs(release, &kernel)?;
        let [console, report] =
            ["console", "report"].map(|port| self.folder.join(format!("{port}-{release}")));
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(HARDWARE.split(' '));
        for port in [&console, &report] {
            qemu.arg("-serial").arg(format!("file:{}", port.display()));
        }
        qemu.arg("-kernel").arg(kernel.join("boot").join(format!("vmlinuz-{release}")));
        qemu.arg("-initrd").arg(initramfs).args(["-append", "console=ttyS0 panic=-1 mitigations=off"]);
        let said = || format!("what it said is in {}", console.display());
        until_its_end(&mut qemu).with_context(said)?;
        answer(&fs::read(&report).context("no answer")?).with_context(said)
    }

    /// All that the machine has: init, what asks, and what that needs.
    fn initramfs(&self, release: &str, kernel: &Path) -> Result<PathBuf> {
        let files = self.folder.join(format!("root-{release}"));
        if files.exists() {
            fs::remove_dir_all(&files).context("cannot clear an old machine")?;
        }
        for folder in ["bin", "dev", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(files.join(folder)).context("cannot make a machine")?;
        }
        for (program, place) in
            [(&self.busybox, "bin/busybox"), (&self.program, "bin/ask"), (&self.ip, "usr/bin/ip")]
        {
            bring(program, &files.join(place))?;
            for library in libraries(program) {
                bring(Path::new(&library), &files.join(library.trim_start_matches('/')))?;
            }
        }
        let drivers = kernel.join("lib/modules").join(release).join("kernel/drivers/net");
        fs::write(files.join("veth.ko"), module(&drivers.join("veth.ko"))?)
            .context("cannot write veth.ko")?;
        let init = files.join("init");
        fs::write(&init, INIT).context("cannot write init")?;
        // Executable as busybox is.
        fs::set_permissions(&init, fs::metadata(&self.busybox)?.permissions())?;
        let initramfs = self.folder.join(format!("initramfs-{release}"));
        let mut pack = Command::new("sh");
        pack.args(["-eu", "-c", r#"find . | "$0" cpio -o -H newc >"$1" 2>/dev/null"#]);
        run(pack.arg(&self.busybox).arg(&initramfs).current_dir(&files), "packing the machine's files")?;
        Ok(initramfs)
    }
}

/// Fetches a package unless it is here, and returns the folder with its files.
fn unpack(folder: &Path, package: &str) -> Result<PathBuf> {
    let unpacked = folder.join("unpacked").join(package);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    let packages = folder.join("packages");
    run(
        Command::new("apt-get").args(["-q", "download", package]).current_dir(&packages),
        &format!("apt-get download {package} (does /etc/apt have Debian's suites?)"),
    )?;
    let start = format!("{package}_");
    let file = fs::read_dir(&packages)?
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
        .with_context(|| format!("no package in {}", packages.display()))?;
    // Under its name only when all of it is there.
    let partly = folder.join("unpacked/partly");
    drop(fs::remove_dir_all(&partly));
    fs::create_dir_all(&partly).context("cannot make a folder")?;
    run(Command::new("dpkg").arg("-x").arg(&file).arg(&partly), "unpacking")?;
    fs::rename(&partly, &unpacked).context("cannot rename a folder")?;
    Ok(unpacked)
}

/// Those that a program names, by path; none of a static one.
fn libraries(program: &Path) -> Vec<String> {
    let named = output(Command::new("ldd").arg(program)).unwrap_or_default();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    named.lines().filter_map(path).collect()
}

fn bring(file: &Path, place: &Path) -> Result<()> {
    let copy = || {
        fs::create_dir_all(place.parent().unwrap_or(place))?;
        fs::copy(file, place)
    };
    copy().with_context(|| format!("cannot copy {} to {}", file.display(), place.display())).map(drop)
}

/// A kernel module as it was before Debian packed it.
fn module(path: &Path) -> Result<Vec<u8>> {
    if path.exists() {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let packed = path.with_extension("ko.xz");
    let plain = Command::new("xz").arg("-dc").arg(&packed).output().context("cannot start xz")?;
    if !plain.status.success() {
        bail!("cannot unpack {}: {}", packed.display(), String::from_utf8_lossy(&plain.stderr).trim());
    }
    Ok(plain.stdout)
}

/// Runs a machine, which ends by itself.
fn until_its_end(qemu: &mut Command) -> Result<()> {
    let mut machine = qemu.stdin(Stdio::null()).spawn().context("cannot start qemu-system-x86_64")?;
    let end = Instant::now() + LIMIT;
    loop {
        match machine.try_wait().context("cannot wait for the machine")? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("the machine failed ({status})"),
            None if Instant::now() > end => {
                machine.kill().context("cannot end the machine")?;
                machine.wait().context("cannot wait for the machine")?;
                bail!("the machine was not done after {} s", LIMIT.as_secs());
            }
            None => thread::sleep(Duration::from_millis(200)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acceptance(kernel: &str, programs: &[(&str, Option<u32>)]) -> Acceptance {
        let programs = programs.iter();
        let programs = programs.map(|(program, instructions)| Verified {
            program: (*program).to_owned(),
            instructions: *instructions,
        });
        let (attached, steered) = Default::default();
        Acceptance {
            kernel: kernel.to_owned(),
            programs: programs.collect(),
            attached,
            steered,
            refused: None,
        }
    }

    #[test]
    fn a_kernel_that_refuses_keeps_its_column() {
        let all = [acceptance("6.1", &[]), acceptance("6.12", &[("viplane", Some(7)), ("vip_icmp4", None)])];
        assert_eq!(
            table(&all),
            "| Program | 6.1 | 6.12 |\n|---|---|---|\n| `viplane` | - | 7 |\n| `vip_icmp4` | - | - |\n"
        );
    }

    #[test]
    fn the_answer_is_found_behind_other_lines_and_carriage_returns() {
        let printed = b"a word\r\n{\"kernel\":\"6.1\",\"programs\":[],\"attached\":[],\"steered\":[],\"refused\":null}\r\n";
        assert_eq!(answer(printed).expect("works").kernel, "6.1");
        assert!(answer(b"no line of JSON").is_err());
    }
}
