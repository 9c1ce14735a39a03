//! The bpf(2) commands that aya does not offer: links by descriptor and identity, pins of any kind, feature probes, and
//! loading without the kernel's own type information.
//!
//! aya attaches XDP links too, but falls back to netlink on EINVAL, hides the link's interface, and cannot say what kind
//! of object a path pins; a pin has to be identified before it is trusted.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::bpf_prog_info;
use bytemuck::{Pod, Zeroable};

pub(super) use batch::{Cursor, create_ring, delete_all, look_up, look_up_batch, next_key, update_all};

mod batch;

const MAP_CREATE: u32 = 0;
const MAP_UPDATE_ELEM: u32 = 2;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const BTF_LOAD: u32 = 18;
const MAP_FREEZE: u32 = 22;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const LINK_GET_FD_BY_ID: u32 = 30;
const LINK_GET_NEXT_ID: u32 = 31;
const LINK_DETACH: u32 = 34;

const BPF_XDP: u32 = 37;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_BEFORE: u32 = 1 << 3;
const LINK_TYPE_XDP: u32 = 6;
const LINK_TYPE_TCX: u32 = 11;
const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const F_XDP_HAS_FRAGS: u32 = 1 << 5;
const F_MMAPABLE: u32 = 1 << 10;
/// The verifier's reasoning, and its statistics.
const LOG_LEVEL: u32 = 1 | 4;

/// Generic mode: the network stack runs the program.
pub(super) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// Driver mode: the NIC's driver runs the program.
pub(super) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Issues one command. The kernel takes a shorter attribute than its own as if padded with zeros.
fn bpf<T: Pod>(command: u32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attribute is plain old data that lives across the call, and its true size is passed; pointers inside
    // of it were made by the callers below from buffers that outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            libc::c_long::from(command),
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn bpf_fd<T: Pod>(command: u32, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the command returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    file_flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Pins an object at a path that must not exist.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(OBJ_PIN, &mut ObjectAttributes { path: path.as_ptr() as u64, fd: raw(object), file_flags: 0 })
        .map(drop)
}

/// Opens whatever is pinned at a path.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    bpf_fd(OBJ_GET, &mut ObjectAttributes { path: path.as_ptr() as u64, fd: 0, file_flags: 0 })
}

/// What a descriptor of a BPF object refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObjectKind {
    Map,
    Program,
    Link,
    Other,
}

/// Tells the kind of a BPF object by the name of its anonymous inode; no bpf(2) command does.
pub(super) fn kind_of(object: BorrowedFd<'_>) -> io::Result<ObjectKind> {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))?;
    let target = target.to_string_lossy().replace('_', "-");
    Ok(match target.strip_prefix("anon-inode:").unwrap_or(&target) {
        "bpf-map" => ObjectKind::Map,
        "bpf-prog" => ObjectKind::Program,
        "bpf-link" => ObjectKind::Link,
        _ => ObjectKind::Other,
    })
}

/// The head of `struct bpf_link_info` as it stands for a link to an interface.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkInfoBytes {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    padding2: u32,
}

/// To what of an interface a link attaches its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    Xdp,
    Tcx,
}

/// A link as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) kind: LinkKind,
    pub(super) id: u32,
    pub(super) program: u32,
    /// 0 when the interface has gone.
    pub(super) ifindex: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InfoAttributes {
    fd: u32,
    len: u32,
    info: u64,
}

/// Describes a link; `None` if it is of another type. The descriptor must be a link's.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<Option<LinkInfo>> {
    let mut info = LinkInfoBytes::zeroed();
    let len = u32::try_from(size_of::<LinkInfoBytes>()).map_err(io::Error::other)?;
    bpf(
        OBJ_GET_INFO_BY_FD,
        &mut InfoAttributes { fd: raw(link), len, info: std::ptr::from_mut(&mut info) as u64 },
    )?;
    let kind = match info.kind {
        LINK_TYPE_XDP => LinkKind::Xdp,
        LINK_TYPE_TCX => LinkKind::Tcx,
        _ => return Ok(None),
    };
    Ok(Some(LinkInfo { kind, id: info.id, program: info.program, ifindex: info.ifindex }))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkCreateAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to an interface of the calling thread's network namespace (kernel 5.9).
pub(super) fn create_xdp_link(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    bpf_fd(
        LINK_CREATE,
        &mut LinkCreateAttributes { program: raw(program), target: ifindex, attach_type: BPF_XDP, flags },
    )
}

/// Attaches a program to what leaves an interface, in front of others (kernel 6.6; EINVAL before).
pub(super) fn create_tcx_egress_link(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let (target, attach_type, flags) = (ifindex, BPF_TCX_EGRESS, BPF_F_BEFORE);
    bpf_fd(LINK_CREATE, &mut LinkCreateAttributes { program: raw(program), target, attach_type, flags })
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkUpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link in one step: every frame meets either the old one or the new one.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes =
        LinkUpdateAttributes { link: raw(link), program: raw(program), flags: 0, old_program: 0 };
    bpf(LINK_UPDATE, &mut attributes).map(drop)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkAttributes {
    link: u32,
}

/// Detaches a link at once, although others may still hold or pin it.
///
/// Closing the last reference detaches too, but unpinning releases it later, from a kernel worker.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &mut LinkAttributes { link: raw(link) }).map(drop)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct IdAttributes {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The XDP links of the whole system, as far as they live long enough to be asked.
pub(super) fn xdp_links() -> Vec<LinkInfo> {
    let mut found = Vec::new();
    let mut id = 0;
    loop {
        let mut attributes = IdAttributes { id, next_id: 0, open_flags: 0 };
        if bpf(LINK_GET_NEXT_ID, &mut attributes).is_err() {
            return found;
        }
        id = attributes.next_id;
        let link = bpf_fd(LINK_GET_FD_BY_ID, &mut IdAttributes { id, next_id: 0, open_flags: 0 });
        if let Ok(Some(info)) = link.and_then(|link| link_info(link.as_fd()))
            && info.kind == LinkKind::Xdp
        {
            found.push(info);
        }
    }
}

/// Whether the kernel has XDP links (5.9), told by the command that came in the same release.
pub(super) fn has_xdp_links() -> bool {
    let refused = bpf(LINK_DETACH, &mut LinkAttributes { link: u32::MAX });
    // An unknown command is EINVAL; a known one finds that this is no descriptor.
    matches!(refused, Err(error) if error.raw_os_error() == Some(libc::EBADF))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MapCreateAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// What a map is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapShape {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
}

/// Creates a map; `inner`: one like those that it will hold.
pub(super) fn create_map(name: &str, shape: &MapShape, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let MapShape { map_type, key_size, value_size, max_entries, flags } = *shape;
    let mut attributes = MapCreateAttributes {
        map_type,
        key_size,
        value_size,
        max_entries,
        flags,
        inner_map: inner.map_or(0, raw),
        numa_node: 0,
        name: kernel_name(name),
    };
    bpf_fd(MAP_CREATE, &mut attributes)
}

/// As much of a name as the kernel keeps.
fn kernel_name(name: &str) -> [u8; 16] {
    let mut kept = [0; 16];
    for (to, from) in kept[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    kept
}

/// Whether array maps can be mapped into memory (5.5).
pub(super) fn has_mmapable_arrays() -> bool {
    let shape =
        MapShape { map_type: MAP_TYPE_ARRAY, key_size: 4, value_size: 8, max_entries: 1, flags: F_MMAPABLE };
    create_map("", &shape, None).is_ok()
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Writes the one element of a map that holds a data section; `value` must be of the map's value size.
pub(super) fn write_section(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let key = 0_u32;
    let mut attributes = ElementAttributes {
        map: raw(map),
        padding: 0,
        key: std::ptr::from_ref(&key) as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Puts a program into a map of programs.
pub(super) fn set_program(map: BorrowedFd<'_>, index: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let value = raw(program);
    let mut attributes = ElementAttributes {
        map: raw(map),
        padding: 0,
        key: std::ptr::from_ref(&index) as u64,
        value: std::ptr::from_ref(&value) as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct FreezeAttributes {
    map: u32,
}

/// Makes a map's contents constant to user space, and so to the verifier.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    bpf(MAP_FREEZE, &mut FreezeAttributes { map: raw(map) }).map(drop)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BtfLoadAttributes {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    flags: u32,
}

/// Loads an object's type information.
pub(super) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    let size = u32::try_from(btf.len()).map_err(io::Error::other)?;
    bpf_fd(BTF_LOAD, &mut BtfLoadAttributes { btf: btf.as_ptr() as u64, size, ..BtfLoadAttributes::zeroed() })
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ProgramLoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
    btf: u32,
    function_record: u32,
    functions: u64,
    function_count: u32,
    line_record: u32,
    lines: u64,
    line_count: u32,
    padding: u32,
}

/// Records that tie instructions to type information: their bytes, the size of one, and their number.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) bytes: Vec<u8>,
    pub(super) size: u32,
    pub(super) count: u32,
}

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProgramKind {
    /// On what comes in.
    Xdp {
        /// Whether it takes frames in fragments.
        fragments: bool,
    },
    /// At traffic control, on what goes out.
    Classifier,
}

/// A program, ready to be loaded.
#[derive(Debug)]
pub(super) struct ProgramImage<'a> {
    /// At most 15 characters reach the kernel.
    pub(super) name: &'a str,
    pub(super) kind: ProgramKind,
    pub(super) instructions: &'a [u8],
    pub(super) license: &'a CStr,
    /// Type information with its functions and lines.
    pub(super) btf: Option<(BorrowedFd<'a>, Records, Records)>,
}

impl ProgramImage<'_> {
    /// Loads it; the verifier explains itself in `log` unless that is empty.
    pub(super) fn load(&self, log: &mut [u8]) -> io::Result<OwnedFd> {
        let count = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        let (program_type, attach_type, flags) = match self.kind {
            ProgramKind::Xdp { fragments: true } => (PROG_TYPE_XDP, BPF_XDP, F_XDP_HAS_FRAGS),
            ProgramKind::Xdp { fragments: false } => (PROG_TYPE_XDP, BPF_XDP, 0),
            ProgramKind::Classifier => (PROG_TYPE_SCHED_CLS, 0, 0),
        };
        let mut attributes = ProgramLoadAttributes {
            program_type,
            attach_type,
            flags,
            name: kernel_name(self.name),
            instruction_count: count(self.instructions.len() / size_of::<u64>())?,
            instructions: self.instructions.as_ptr() as u64,
            license: self.license.as_ptr() as u64,
            ..ProgramLoadAttributes::zeroed()
        };
        if let Some((btf, functions, lines)) = &self.btf {
            attributes.btf = raw(*btf);
            attributes.functions = functions.bytes.as_ptr() as u64;
            (attributes.function_record, attributes.function_count) = (functions.size, functions.count);
            attributes.lines = lines.bytes.as_ptr() as u64;
            (attributes.line_record, attributes.line_count) = (lines.size, lines.count);
        }
        if !log.is_empty() {
            attributes.log_level = LOG_LEVEL;
            attributes.log_size = count(log.len())?;
            attributes.log = log.as_mut_ptr() as u64;
        }
        let mut attempts = 1;
        loop {
            match bpf_fd(PROG_LOAD, &mut attributes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempts < LOAD_ATTEMPTS => {
                    attempts += 1;
                }
                result => return result,
            }
        }
    }
}

/// The verifier gives up with EAGAIN when a signal comes (kernel/bpf/verifier.c, `do_check`), which the next attempt has behind it.
/// As many as libbpf makes.
const LOAD_ATTEMPTS: usize = 5;

/// Whether XDP programs can be marked as ready for frames in fragments (5.18).
pub(super) fn has_xdp_fragments() -> bool {
    // r0 = 2 (XDP_PASS); exit
    let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
    let image = ProgramImage {
        name: "",
        kind: ProgramKind::Xdp { fragments: true },
        instructions: bytemuck::bytes_of(&instructions),
        license: c"GPL",
        btf: None,
    };
    image.load(&mut []).is_ok()
}

/// What the kernel says about a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramSummary {
    pub(super) id: u32,
    /// `None` before Linux 5.16.
    pub(super) verified_instructions: Option<u32>,
}

/// Describes a program. The descriptor must be a program's.
pub(super) fn program_summary(program: BorrowedFd<'_>) -> io::Result<ProgramSummary> {
    // SAFETY: the struct is made of integers and arrays of them, for which zero bytes are valid.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let len = u32::try_from(size_of::<bpf_prog_info>()).map_err(io::Error::other)?;
    bpf(
        OBJ_GET_INFO_BY_FD,
        &mut InfoAttributes { fd: raw(program), len, info: std::ptr::from_mut(&mut info) as u64 },
    )?;
    let verified_instructions = (info.verified_insns > 0).then_some(info.verified_insns);
    Ok(ProgramSummary { id: info.id, verified_instructions })
}
