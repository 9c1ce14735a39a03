//! Takes DWARF out of the BPF objects: five sixths of them, which nobody reads once the linker has made BTF of it.

use std::path::Path;

use anyhow::{Context as _, Result};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// The object without its sections for debuggers. BTF stays, with its lines and its relocations: the kernel shows them.
///
/// # Errors
/// It is not an ELF file.
pub(crate) fn without_dwarf(object: &[u8], path: &Path) -> Result<Vec<u8>> {
    let slim = || {
        let mut builder = Builder::read(object)?;
        for section in &mut builder.sections {
            let name = section.name.as_slice();
            section.delete |= name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
        }
        // Symbols of the sections that went.
        builder.delete_orphans();
        // LLVM has one table for all names, which this writer cannot share.
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
        let mut bytes = Vec::new();
        builder.write(&mut bytes)?;
        Ok::<_, object::build::Error>(bytes)
    };
    slim().with_context(|| format!("{} is not an object file", path.display()))
}
