//! A place to try the BPF side in: a network namespace with a veth pair, and a BPF file system of its own.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, Socket, Type};
use vip_agent::dataplane::{Attached, Dataplane, LoadOptions, OBJECT, RouterSlot, XdpModeChoice};
use vip_agent::types::{MacAddr, MonotonicTime};
use vip_common::maps::Vip;

/// The interface that programs are attached to.
pub(crate) const NIC: &str = "nic";
/// Its veth peer, from which questions are asked.
pub(crate) const PEER: &str = "peer";
/// The VIP of [`Loaded::serve`].
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
/// The MAC that answers for it.
pub(crate) const VIP_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x50]);

const LOADER: &str = "VIPLANE_TEST_LOADER_PIN_DIR";
const NO_PINS: &str = "none";

/// The namespaces of one test. They end with the test's thread and its children.
pub(crate) struct Sandbox {
    bpffs: tempfile::TempDir,
}

impl Sandbox {
    /// Runs a test in a new one, in a thread of its own, since namespaces belong to threads.
    pub(crate) fn run(test: impl FnOnce(&Sandbox) + Send) {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| test(&Self::new()));
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("needs root: run `cargo xtask test`");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        let bpffs = tempfile::tempdir().expect("a directory");
        mount(Some("bpf"), bpffs.path(), Some("bpf"), MsFlags::empty(), none).expect("a BPF file system");
        ip(&format!("link add {NIC} type veth peer name {PEER}"));
        ip(&format!("link set {NIC} up"));
        ip(&format!("link set {PEER} up"));
        Self { bpffs }
    }

    /// The BPF file system.
    pub(crate) fn bpffs(&self) -> PathBuf {
        self.bpffs.path().to_owned()
    }

    /// Where agents pin.
    pub(crate) fn pin_dir(&self) -> PathBuf {
        self.bpffs().join("viplane")
    }

    /// Options for an agent that pins.
    pub(crate) fn pinned(&self) -> LoadOptions {
        LoadOptions { pin_dir: Some(self.pin_dir()), xdp_mode: XdpModeChoice::Auto }
    }

    /// Everything under the BPF file system, sorted.
    pub(crate) fn pins(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.bpffs()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                // The kernel's own, in every BPF file system.
                if path.extension().is_some_and(|extension| extension == "debug") {
                    continue;
                }
                if path.is_dir() {
                    directories.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }

    /// A process that has loaded, attached to [`NIC`], owns [`VIP`], and waits to be killed.
    pub(crate) fn loader(&self, pinned: bool) -> Loader {
        let pin_dir = if pinned { self.pin_dir().display().to_string() } else { NO_PINS.to_owned() };
        let mut loader = Loader::spawn(&pin_dir);
        loader.wait_for("attached");
        loader
    }

    /// A process that pins, and has only just begun to load.
    pub(crate) fn loader_starting(&self) -> Loader {
        let mut loader = Loader::spawn(&self.pin_dir().display().to_string());
        loader.wait_for("loading");
        loader
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.bpffs.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Options for an agent that does not pin.
pub(crate) fn unpinned(xdp_mode: XdpModeChoice) -> LoadOptions {
    LoadOptions { pin_dir: None, xdp_mode }
}

/// Runs `ip` in the calling thread's network namespace.
pub(crate) fn ip(arguments: &str) {
    run("ip", arguments);
}

/// Runs a command and returns what it printed.
pub(crate) fn run(command: &str, arguments: &str) -> String {
    let output = Command::new(command).args(arguments.split_whitespace()).output().expect(command);
    assert!(output.status.success(), "{command} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The index of an interface.
pub(crate) fn ifindex(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).expect(interface)
}

/// Mode and id of the program on an interface, as iproute2 sees it.
pub(crate) fn xdp_on(interface: &str) -> Option<(&'static str, u32)> {
    let links: serde_json::Value =
        serde_json::from_str(&run("ip", &format!("-j link show dev {interface}"))).expect("JSON");
    let xdp = links[0].get("xdp")?;
    let mode = match xdp["mode"].as_u64() {
        Some(1) => "driver",
        Some(2) => "skb",
        other => panic!("mode {other:?}"),
    };
    Some((mode, u32::try_from(xdp["prog"]["id"].as_u64().expect("an id")).expect("an id")))
}

/// The id of the link by which the program on an interface is attached, as bpftool sees it.
pub(crate) fn link_id(interface: &str) -> Option<u64> {
    let links: serde_json::Value = serde_json::from_str(&run("bpftool", "-j link show")).expect("JSON");
    let program = xdp_on(interface)?.1;
    let mut links = links.as_array().expect("a list").iter();
    links.find(|link| link["prog_id"] == program).and_then(|link| link["id"].as_u64())
}

/// What a test does with a loaded dataplane.
pub(crate) trait Loaded {
    /// Attaches to an interface by name.
    fn attach_to(&mut self, interface: &str) -> Attached;
    /// Makes [`VIP`] a VIP on [`NIC`], which must be attached, and owns it for a time.
    fn serve(&mut self, lease: Duration) -> RouterSlot;
    /// As an agent does at its start: fill, attach to [`NIC`], take charge.
    fn start(&mut self) -> Attached;
}

impl Loaded for Dataplane {
    fn attach_to(&mut self, interface: &str) -> Attached {
        self.attach(ifindex(interface), interface).expect("attach")
    }

    fn serve(&mut self, lease: Duration) -> RouterSlot {
        let router = self.allocate_router().expect("a slot");
        let vip = Vip { router: router.get(), link: 0, mac: VIP_MAC.0, answering: VIP_MAC.0, flags: 0 };
        self.insert_vip(ifindex(NIC), IpAddr::V4(VIP), vip).expect("a VIP");
        self.words().store(router, MonotonicTime::now() + lease);
        router
    }

    fn start(&mut self) -> Attached {
        self.serve(Duration::from_secs(3600));
        let attached = self.attach_to(NIC);
        self.commit().expect("commit");
        attached
    }
}

/// Loads another program than viplane's: one that passes everything.
pub(crate) fn other_program() -> aya::Ebpf {
    let mut ebpf = aya::Ebpf::load(OBJECT).expect("the object");
    pass(&mut ebpf).load().expect("load");
    ebpf
}

/// The program of [`other_program`].
pub(crate) fn pass(ebpf: &mut aya::Ebpf) -> &mut aya::programs::Xdp {
    ebpf.program_mut("pass").expect("pass").try_into().expect("an XDP program")
}

/// Asks for addresses by ARP on [`PEER`].
pub(crate) struct ArpClient {
    socket: Socket,
}

impl ArpClient {
    /// Opens a socket in the calling thread's network namespace; it may move to another thread then.
    pub(crate) fn new() -> Self {
        let protocol = Protocol::from(i32::from(0x0806_u16.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("a packet socket");
        let address = libc::sockaddr_ll {
            sll_family: 17,
            sll_protocol: 0x0806_u16.to_be(),
            sll_ifindex: i32::try_from(ifindex(PEER)).expect("an index"),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = u32::try_from(size_of_val(&address)).expect("a size");
        // SAFETY: the address is a sockaddr_ll of the given length, alive across the call.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        assert_eq!(bound, 0, "bind");
        Self { socket }
    }

    /// Who has it? The MAC that answers. Patient, so that an answer that is late on a busy machine is none that is
    /// lost.
    pub(crate) fn ask(&self, address: Ipv4Addr) -> Option<MacAddr> {
        self.ask_for(address, Duration::from_secs(3))
    }

    /// Whether nobody answers.
    pub(crate) fn nobody_has(&self, address: Ipv4Addr) -> bool {
        self.ask_for(address, Duration::from_millis(200)).is_none()
    }

    fn ask_for(&self, address: Ipv4Addr, patience: Duration) -> Option<MacAddr> {
        self.socket.set_read_timeout(Some(patience)).expect("a timeout");
        self.send(1, Ipv4Addr::new(192, 0, 2, 9), address);
        self.answer_from(address, patience)
    }

    /// Claims an address for this station, by a gratuitous reply.
    pub(crate) fn claim(&self, address: Ipv4Addr) {
        self.send(2, address, address);
    }

    /// This station's MAC.
    pub(crate) const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn send(&self, operation: u8, sender: Ipv4Addr, target: Ipv4Addr) {
        let mut frame = [0; 42];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&Self::MAC.0);
        frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame[22..28].copy_from_slice(&Self::MAC.0);
        frame[28..32].copy_from_slice(&sender.octets());
        frame[38..].copy_from_slice(&target.octets());
        assert_eq!(self.socket.send(&frame).expect("send"), frame.len());
    }

    fn answer_from(&self, address: Ipv4Addr, patience: Duration) -> Option<MacAddr> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let mut frame = [0; 64];
            let len = nix::sys::socket::recv(
                self.socket.as_raw_fd(),
                &mut frame,
                nix::sys::socket::MsgFlags::empty(),
            )
            .ok()?;
            if len >= 42 && frame[12..14] == [8, 6] && frame[21] == 2 && frame[28..32] == address.octets() {
                let mac: [u8; 6] = frame[22..28].try_into().expect("six bytes");
                return Some(MacAddr(mac));
            }
        }
        None
    }
}

/// A process of [`Sandbox::loader`].
pub(crate) struct Loader {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Loader {
    fn spawn(pin_dir: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_loader_for_the_tests_to_kill", "--ignored", "--nocapture"])
            .env(LOADER, pin_dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test again");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, output }
    }

    /// Waits until it says so.
    pub(crate) fn wait_for(&mut self, word: &str) {
        let said = (&mut self.output).lines().map_while(Result::ok).any(|line| line.contains(word));
        assert!(said, "the loader never said {word:?}");
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A figure of its /proc/PID/status, in KiB.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect(name);
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Kills it without notice, and waits until the kernel has let go of what it held.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The loader process itself: runs in the namespaces of the test that started it.
pub(crate) fn be_the_loader() {
    be_the_loader_with(|_| {});
}

/// The same, which does something between loading and attaching.
pub(crate) fn be_the_loader_with(prepare: impl FnOnce(&mut Dataplane)) {
    let Ok(pin_dir) = std::env::var(LOADER) else { return };
    let pin_dir = (pin_dir != NO_PINS).then(|| PathBuf::from(pin_dir));
    println!("loading");
    let mut dataplane =
        Dataplane::load(&LoadOptions { pin_dir, xdp_mode: XdpModeChoice::Auto }).expect("load");
    prepare(&mut dataplane);
    dataplane.start();
    println!("attached");
    loop {
        std::thread::park();
    }
}
