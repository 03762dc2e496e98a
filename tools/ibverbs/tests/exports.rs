//! What the built library offers: each symbol of rdma-core 44's, in its version node, and nothing else.

mod common;

use object::elf::{FileHeader64, STB_LOCAL, VER_NDX_LOCAL};
use object::read::elf::{FileHeader, Sym};
use object::{Endianness, elf};
use std::collections::BTreeSet;

/// One symbol a line, as `name@@NODE`.
const EXPECTED: &str = include_str!("exports.txt");

/// The dynamic symbols that are defined, with their default versions.
fn defined(file: &[u8]) -> BTreeSet<String> {
    let header = FileHeader64::<Endianness>::parse(file).expect("an ELF file");
    let endian = header.endian().expect("an order of bytes");
    let sections = header.sections(endian, file).expect("sections");
    let symbols = sections.symbols(endian, file, elf::SHT_DYNSYM).expect("dynamic symbols");
    let versions = sections.versions(endian, file).expect("readable versions").expect("versions");
    let mut found = BTreeSet::new();
    for (index, symbol) in symbols.enumerate() {
        if symbol.is_undefined(endian) || symbol.st_bind() == STB_LOCAL {
            continue;
        }
        let name = symbols.symbol_name(endian, symbol).expect("a name");
        let name = String::from_utf8_lossy(name).into_owned();
        let version_index = versions.version_index(endian, index);
        assert_ne!(version_index.index(), VER_NDX_LOCAL, "{name}");
        let version = versions.version(version_index).expect("a version");
        let version = version.map(|version| String::from_utf8_lossy(version.name()).into_owned());
        // The nodes themselves are symbols too, named as they are.
        if version.as_deref() == Some(name.as_str()) {
            continue;
        }
        assert!(!version_index.is_hidden(), "{name} is not the default version");
        found.insert(format!("{name}@@{}", version.unwrap_or_else(|| "no version".to_owned())));
    }
    found
}

#[test]
fn each_symbol_is_in_its_version_node() {
    if !cfg!(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")) {
        common::skip("symbol versions are for x86-64 Linux with glibc");
        return;
    }
    let file = std::fs::read(common::library()).expect("the library is built");
    let found = defined(&file);
    let expected: BTreeSet<String> = EXPECTED.lines().map(ToOwned::to_owned).collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    let superfluous: Vec<_> = found.difference(&expected).collect();
    assert!(
        missing.is_empty() && superfluous.is_empty(),
        "missing: {missing:#?}\nsuperfluous: {superfluous:#?}"
    );
    assert_eq!(expected.len(), 146);
}

#[test]
fn the_library_is_called_as_programs_ask_for_it_and_stays_loaded() {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        common::skip("a name in the file is for Linux");
        return;
    }
    let file = std::fs::read(common::library()).expect("the library is built");
    let header = FileHeader64::<Endianness>::parse(file.as_slice()).expect("an ELF file");
    let endian = header.endian().expect("an order of bytes");
    let sections = header.sections(endian, file.as_slice()).expect("sections");
    let dynamic = sections.dynamic_table(endian, file.as_slice()).expect("a dynamic table");
    let value = |tag| dynamic.iter().find(|entry| entry.tag == tag).map(|entry| entry.val);
    let soname = value(elf::DT_SONAME).expect("a name of its own");
    let strings = dynamic.strings();
    assert_eq!(strings.get(soname as u32).expect("a text"), b"libibverbs.so.1");
    assert_ne!(value(elf::DT_FLAGS_1).unwrap_or(0) & u64::from(elf::DF_1_NODELETE), 0);
}
