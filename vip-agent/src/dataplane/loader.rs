//! Loads an object file into the kernel.
//!
//! aya parses and relocates it; its own `EbpfLoader` is not used, since it reads and parses the kernel's whole type
//! information first, needed or not: 20 MB of memory at the peak, more than the agent's limit.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya::maps::{MapData, MapError};
use aya_obj::generated::{bpf_insn, bpf_map_type};
use aya_obj::{EbpfSectionKind, Function, Object, Program, ProgramSection};

use super::sys::{self, MapShape, ProgramImage, ProgramKind, Records};

/// What of an object is to be loaded, and how.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    /// The programs, by name.
    pub(super) programs: &'a [&'static str],
    /// Maps that are there already: those of these names are used instead of new ones.
    pub(super) shared: &'a [(&'static str, BorrowedFd<'a>)],
    /// Entries of the maps in a map of maps, if not as many as the object says.
    pub(super) inner_entries: Option<u32>,
}

/// What the object became in the kernel.
pub(super) struct Loaded {
    /// The new maps.
    pub(super) maps: BTreeMap<String, MapData>,
    /// In the order in which they were asked for.
    pub(super) programs: Vec<(&'static str, OwnedFd)>,
}

/// Why it did not.
#[derive(Debug)]
pub(super) enum LoadFailure {
    /// The file is not what it should be.
    Object(String),
    /// The kernel did not make a map.
    Map { name: String, error: io::Error },
    /// The kernel did not take the program; the verifier's log is empty if it never got so far.
    Program { name: &'static str, error: io::Error, log: String },
}

/// Parses, creates the maps, relocates, and loads the programs.
pub(super) fn load(bytes: &[u8], request: &Request<'_>) -> Result<Loaded, LoadFailure> {
    let mut object = Object::parse(bytes).map_err(misfit)?;
    let btf = load_btf(&mut object)?;
    let btf = btf.as_ref().map(AsFd::as_fd);
    let definitions: Vec<_> =
        object.maps.drain().map(|(name, map)| (name, sized_for_this_kernel(map))).collect();
    let mut maps = BTreeMap::new();
    for (name, definition) in &definitions {
        if request.shared(name).is_none() {
            maps.insert(name.clone(), create_map(name, definition, request.inner_entries, btf)?);
        }
    }
    relocate(&mut object, &definitions, &maps, request)?;
    let load = |name: &&'static str| Ok((*name, load_program(&object, name, btf)?));
    let programs = request.programs.iter().map(load).collect::<Result<_, _>>()?;
    Ok(Loaded { maps, programs })
}

impl Request<'_> {
    fn shared(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.shared.iter().find(|(shared, _)| *shared == name).map(|(_, map)| *map)
    }
}

fn misfit(error: impl fmt::Display) -> LoadFailure {
    LoadFailure::Object(error.to_string())
}

/// The types of maps and functions, for those who look on with bpftool. A kernel that does not take them loses nothing
/// else.
fn load_btf(object: &mut Object) -> Result<Option<OwnedFd>, LoadFailure> {
    let Some(features) = aya::features().btf() else { return Ok(None) };
    let Some(btf) = object.fixup_and_sanitize_btf(features).map_err(misfit)? else { return Ok(None) };
    match sys::load_btf(&btf.to_bytes()) {
        Ok(btf) => Ok(Some(btf)),
        Err(error) => {
            tracing::debug!(%error, "the kernel does not take the object's type information");
            Ok(None)
        }
    }
}

/// A ring buffer holds whole pages, whose size differs between machines; its values have no size.
fn sized_for_this_kernel(mut map: aya_obj::Map) -> aya_obj::Map {
    if map.map_type() == bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32 {
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
        map.set_max_entries(map.max_entries().next_power_of_two().max(page));
        map.set_value_size(0);
    }
    map
}

fn create_map(
    name: &str,
    definition: &aya_obj::Map,
    inner_entries: Option<u32>,
    btf: Option<BorrowedFd<'_>>,
) -> Result<MapData, LoadFailure> {
    let failed = |error| LoadFailure::Map { name: name.to_owned(), error };
    if let Some(mut inner) = definition.inner() {
        inner.set_max_entries(inner_entries.unwrap_or(inner.max_entries()));
        let outer = create_map_of_maps(name, definition, &inner).map_err(failed)?;
        return MapData::from_fd(outer).map_err(misfit);
    }
    let map = MapData::create(definition.clone(), name, btf).map_err(|error| match error {
        MapError::CreateError { io_error, .. } => failed(io_error),
        other => misfit(other),
    })?;
    if !definition.data().is_empty() {
        sys::write_section(map.fd().as_fd(), definition.data()).map_err(failed)?;
    }
    if definition.section_kind() == EbpfSectionKind::Rodata {
        sys::freeze(map.fd().as_fd()).map_err(failed)?;
    }
    Ok(map)
}

/// A map of maps, which is made after the likeness of one of those that it will hold.
fn create_map_of_maps(name: &str, outer: &aya_obj::Map, inner: &aya_obj::Map) -> io::Result<OwnedFd> {
    let shape = |map: &aya_obj::Map| MapShape {
        map_type: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
    };
    let likeness = sys::create_map(name, &shape(inner), None)?;
    sys::create_map(name, &shape(outer), Some(likeness.as_fd()))
}

/// Puts the maps' descriptors into the instructions, and the functions together.
fn relocate(
    object: &mut Object,
    definitions: &[(String, aya_obj::Map)],
    maps: &BTreeMap<String, MapData>,
    request: &Request<'_>,
) -> Result<(), LoadFailure> {
    let text_sections = object.functions.keys().map(|(section, _)| *section).collect();
    let descriptors = definitions.iter().filter_map(|(name, definition)| {
        let new = maps.get(name).map(|map| map.fd().as_fd());
        Some((name.as_str(), request.shared(name).or(new)?.as_raw_fd(), definition))
    });
    object.relocate_maps(descriptors, &text_sections).map_err(|error| misfit(chain(&error)))?;
    object.relocate_calls(&text_sections).map_err(|error| misfit(chain(&error)))
}

fn load_program(
    object: &Object,
    name: &'static str,
    btf: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, LoadFailure> {
    let absent = || misfit(format_args!("no program `{name}`"));
    let program = object.programs.get(name).ok_or_else(absent)?;
    let kind = match program.section {
        ProgramSection::Xdp { frags, .. } => ProgramKind::Xdp { fragments: frags },
        ProgramSection::SchedClassifier => ProgramKind::Classifier,
        _ => return Err(absent()),
    };
    let function = object.functions.get(&(program.section_index, program.address)).ok_or_else(absent)?;
    let instructions = encode(&function.instructions);
    let image = ProgramImage {
        name,
        kind,
        instructions: &instructions,
        license: license(program),
        btf: btf.map(|btf| (btf, functions_of(function), lines_of(function))),
    };
    image.load(&mut []).or_else(|error| explain(name, &image, error))
}

fn license(program: &Program) -> &CStr {
    &program.license
}

/// Loads once more to hear the verifier's reasons: it writes them only on request, and costs time and memory then.
fn explain(name: &'static str, image: &ProgramImage<'_>, error: io::Error) -> Result<OwnedFd, LoadFailure> {
    let mut refusal = (error, String::new());
    for size in [1 << 16, 1 << 20, 1 << 24] {
        let mut log = vec![0; size];
        match image.load(&mut log) {
            Ok(program) => return Ok(program),
            Err(error) => {
                // A log that does not fit is ENOSPC, whatever the verdict was.
                let fits = error.raw_os_error() != Some(libc::ENOSPC);
                let text = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
                refusal.1 = text.into_owned();
                if fits {
                    refusal.0 = error;
                    break;
                }
            }
        }
    }
    let (error, log) = refusal;
    Err(LoadFailure::Program { name, error, log })
}

/// Instructions as the kernel reads them (`struct bpf_insn`).
fn encode(instructions: &[bpf_insn]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(instructions));
    for instruction in instructions {
        let (low, high) = if cfg!(target_endian = "little") {
            (instruction.dst_reg(), instruction.src_reg())
        } else {
            (instruction.src_reg(), instruction.dst_reg())
        };
        bytes.extend([instruction.code, low | high << 4]);
        bytes.extend(instruction.off.to_ne_bytes());
        bytes.extend(instruction.imm.to_ne_bytes());
    }
    bytes
}

fn functions_of(function: &Function) -> Records {
    records(function.func_info.func_info_bytes(), function.func_info_rec_size, function.func_info.len())
}

fn lines_of(function: &Function) -> Records {
    records(function.line_info.line_info_bytes(), function.line_info_rec_size, function.line_info.len())
}

fn records(bytes: Vec<u8>, size: usize, count: usize) -> Records {
    match (u32::try_from(size), u32::try_from(count)) {
        (Ok(size), Ok(count)) if size > 0 => Records { bytes, size, count },
        _ => Records::default(),
    }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
