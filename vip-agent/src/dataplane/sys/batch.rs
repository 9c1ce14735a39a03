//! Many elements of a map in one bpf(2) command, which aya 0.14 does not offer; one by one where the kernel has no such
//! command for a kind of map (arrays of maps: before Linux 5.19, LPM tries: before 5.13).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use bytemuck::{Pod, Zeroable};
use vip_common::steering::maglev::RingSize;
use vip_common::steering::tables::RingPair;

use super::{ElementAttributes, F_MMAPABLE, MAP_TYPE_ARRAY, MAP_UPDATE_ELEM, MapShape, bpf, create_map, raw};

const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;
const MAP_DELETE_BATCH: u32 = 27;

/// ENOTSUPP (include/linux/errno.h): the kernel's own, which no C library knows.
const ENOTSUPP: i32 = 524;

/// `struct { /* struct used by BPF_MAP_*_BATCH commands */ }` of `union bpf_attr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Elements, their keys and their values behind each other.
fn count_of(keys: &[u8], key: usize) -> io::Result<u32> {
    u32::try_from(keys.len() / key.max(1)).map_err(io::Error::other)
}

fn has_no_batch(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL))
}

/// Writes elements: `keys` and `values` hold as many of `key` and `value` bytes each, as the map has them.
///
/// The kernel waits for readers of an array of maps once for all of them.
pub(in super::super) fn update_all(
    map: BorrowedFd<'_>,
    (keys, key): (&[u8], usize),
    (values, value): (&[u8], usize),
) -> io::Result<()> {
    let count = count_of(keys, key)?;
    if count == 0 {
        return Ok(());
    }
    let mut attributes = BatchAttributes {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map: raw(map),
        ..BatchAttributes::zeroed()
    };
    match bpf(MAP_UPDATE_BATCH, &mut attributes) {
        Err(error) if has_no_batch(&error) => {}
        done => return done.map(drop),
    }
    keys.chunks_exact(key).zip(values.chunks_exact(value)).try_for_each(|(key, value)| {
        let mut attributes = element(map, key, value.as_ptr());
        bpf(MAP_UPDATE_ELEM, &mut attributes).map(drop)
    })
}

fn element(map: BorrowedFd<'_>, key: &[u8], value: *const u8) -> ElementAttributes {
    ElementAttributes { map: raw(map), padding: 0, key: key.as_ptr() as u64, value: value as u64, flags: 0 }
}

/// Removes elements; those that are not there are fine.
pub(in super::super) fn delete_all(map: BorrowedFd<'_>, keys: &[u8], key: usize) -> io::Result<()> {
    let mut rest = keys;
    while !rest.is_empty() {
        let count = count_of(rest, key)?;
        let mut attributes =
            BatchAttributes { keys: rest.as_ptr() as u64, count, map: raw(map), ..BatchAttributes::zeroed() };
        match bpf(MAP_DELETE_BATCH, &mut attributes) {
            Ok(_) => return Ok(()),
            // It stops at one that is not there, and says how many it has removed before.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && attributes.count < count => {
                let done = (attributes.count as usize + 1) * key;
                rest = rest.get(done..).unwrap_or_default();
            }
            Err(error) if has_no_batch(&error) => return delete_each(map, rest, key),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn delete_each(map: BorrowedFd<'_>, keys: &[u8], key: usize) -> io::Result<()> {
    keys.chunks_exact(key).try_for_each(|key| {
        match bpf(MAP_DELETE_ELEM, &mut element(map, key, std::ptr::null())) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    })
}

/// Reads one element into `value`, which is of the map's size (per-CPU maps: 8-byte multiples, for each possible CPU). False
/// if there is none.
pub(in super::super) fn look_up(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    match bpf(MAP_LOOKUP_ELEM, &mut element(map, key, value.as_mut_ptr())) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        done => done.map(|_| true),
    }
}

/// Puts the key that follows `key` (the first, if there is none) into it. False if there is none.
pub(in super::super) fn next_key(
    map: BorrowedFd<'_>,
    key: &mut Option<Vec<u8>>,
    size: usize,
) -> io::Result<bool> {
    let mut next = vec![0; size];
    let from = key.as_ref().map_or(std::ptr::null(), Vec::as_ptr);
    let mut attributes = ElementAttributes {
        map: raw(map),
        padding: 0,
        key: from as u64,
        value: next.as_mut_ptr() as u64,
        flags: 0,
    };
    match bpf(MAP_GET_NEXT_KEY, &mut attributes) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        done => done.map(|_| {
            *key = Some(next);
            true
        }),
    }
}

/// How far a hash map was read: buckets, in the kernel's words.
#[derive(Debug, Default)]
pub(in super::super) struct Cursor {
    /// `None`: at the beginning.
    bucket: Option<u32>,
    ended: bool,
}

/// Reads the next elements of a hash map into `keys` and `values`; how many, `None` at the end. What is added or removed
/// meanwhile may be missing; nothing that stays is.
pub(in super::super) fn look_up_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    (keys, key): (&mut [u8], usize),
    (values, value): (&mut [u8], usize),
) -> io::Result<Option<usize>> {
    if cursor.ended {
        return Ok(None);
    }
    let count = count_of(keys, key)?.min(count_of(values, value)?);
    let (from, mut to) = (cursor.bucket.unwrap_or_default(), 0_u32);
    let mut attributes = BatchAttributes {
        in_batch: cursor.bucket.map_or(0, |_| std::ptr::from_ref(&from) as u64),
        out_batch: std::ptr::from_mut(&mut to) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map: raw(map),
        ..BatchAttributes::zeroed()
    };
    match bpf(MAP_LOOKUP_BATCH, &mut attributes) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => cursor.ended = true,
        Err(error) => return Err(error),
    }
    cursor.bucket = Some(to);
    Ok(Some(attributes.count as usize))
}

/// Makes a map of a ring, to be filled through its memory and put into an array of maps.
pub(in super::super) fn create_ring(size: RingSize) -> io::Result<OwnedFd> {
    let shape = MapShape {
        map_type: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: size_of::<RingPair>() as u32,
        max_entries: size.pairs(),
        flags: F_MMAPABLE,
    };
    create_map("RING", &shape, None)
}
