//! Entries of hashes, as values of Rust.

use std::io;
use std::os::fd::BorrowedFd;

use bytemuck::Pod;

use super::super::sys;

/// Entries read at once: the longest chain of a bucket is far shorter.
const AT_ONCE: usize = 4096;

/// Shows all entries. Those that come and go meanwhile may be missing.
pub(super) fn each<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut visit: impl FnMut(&K, &V)) -> io::Result<()> {
    let (mut keys, mut values) = (vec![K::zeroed(); AT_ONCE], vec![V::zeroed(); AT_ONCE]);
    let mut cursor = sys::Cursor::default();
    loop {
        let read = sys::look_up_batch(
            map,
            &mut cursor,
            (bytemuck::cast_slice_mut(&mut keys), size_of::<K>()),
            (bytemuck::cast_slice_mut(&mut values), size_of::<V>()),
        )?;
        let Some(read) = read else { return Ok(()) };
        keys.iter().zip(&values).take(read).for_each(|(key, value)| visit(key, value));
    }
}

/// One entry.
pub(super) fn look_up<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::zeroed();
    let there = sys::look_up(map, bytemuck::bytes_of(key), bytemuck::bytes_of_mut(&mut value))?;
    Ok(there.then_some(value))
}

/// Removes one entry, if there is one.
pub(super) fn remove<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    sys::delete_all(map, bytemuck::bytes_of(key), size_of::<K>())
}

/// Writes one entry.
pub(super) fn write<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let key = (bytemuck::bytes_of(key), size_of::<K>());
    sys::update_all(map, key, (bytemuck::bytes_of(value), size_of::<V>()))
}
