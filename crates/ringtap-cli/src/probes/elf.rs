//! Programs and libraries as files: where they are, and where in them functions and USDT probes lie.

use anyhow::{Context, Result, bail};
use object::elf::{PF_X, STT_GNU_IFUNC};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SegmentFlags, SymbolFlags, SymbolKind};
use ringtap::tracefs::distance;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Largest file that is looked at, in bytes.
const MAX_LEN: u64 = 1 << 30;
/// How many near names an error tells.
const SUGGESTIONS: usize = 3;

/// A program or library.
#[derive(Debug)]
pub(super) struct Binary {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A USDT probe as the note in the file tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) provider: String,
    pub(super) name: String,
    /// Where the probe's instruction lies.
    pub(super) address: u64,
    /// Where the count of its users lies; 0 where there is none.
    pub(super) semaphore: u64,
    pub(super) arguments: String,
}

impl Binary {
    /// Finds and reads a file: by its path, among the programs in `PATH`, or among the system's libraries.
    pub(super) fn open(name: &str) -> Result<Self> {
        let path = find(name)?;
        let path = fs::canonicalize(&path).with_context(|| format!("cannot find {}", path.display()))?;
        if path.to_str().is_none_or(|path| path.contains(char::is_whitespace)) {
            bail!("the kernel cannot be told of {}: give a link to it without blanks", path.display());
        }
        let len = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        if len > MAX_LEN {
            bail!("{} is too large to be looked at: {len} bytes", path.display());
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let binary = Self { path, bytes };
        binary.file()?;
        Ok(binary)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// `libc` of `/usr/lib/libc.so.6`: what its events' system is called.
    pub(super) fn short_name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        plain(name.split('.').find(|part| !part.is_empty()).unwrap_or("program"))
    }

    fn file(&self) -> Result<object::File<'_>> {
        object::File::parse(&*self.bytes)
            .ok()
            .with_context(|| format!("{} is no program or library (no ELF file)", self.path.display()))
    }

    /// The offset in the file of the code at this address.
    pub(super) fn code_offset(&self, address: u64) -> Option<u64> {
        self.offset(address, true)
    }

    /// The offset in the file of the data at this address.
    pub(super) fn data_offset(&self, address: u64) -> Option<u64> {
        self.offset(address, false)
    }

    fn offset(&self, address: u64, is_code: bool) -> Option<u64> {
        let file = self.file().ok()?;
        file.segments().find_map(|segment| {
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else { return None };
            let within = address.checked_sub(segment.address())?;
            let (start, len) = segment.file_range();
            let is_wanted = (p_flags.0 & PF_X.0 != 0) == is_code;
            (is_wanted && within < len).then(|| start.checked_add(within))?
        })
    }

    /// The address of the function of this name.
    pub(super) fn function(&self, wanted: &str) -> Result<u64> {
        let file = self.file()?;
        let (mut addresses, mut others) = (BTreeSet::new(), Vec::new());
        let (mut is_imported, mut is_indirect) = (false, false);
        let symbols = file.symbols().map(|symbol| (symbol, true));
        let symbols = symbols.chain(file.dynamic_symbols().map(|symbol| (symbol, false)));
        let mut has_table = false;
        for (symbol, is_of_table) in symbols {
            let Ok(name) = symbol.name() else { continue };
            // A library's symbols may have a version behind their names.
            let name = name.split('@').next().unwrap_or_default();
            if symbol.kind() != SymbolKind::Text || name.is_empty() {
                is_imported |= name == wanted && symbol.is_undefined();
                continue;
            }
            has_table |= is_of_table;
            if name != wanted {
                others.push(name.to_owned());
            } else if symbol.is_undefined() {
                is_imported = true;
            } else if matches!(symbol.flags(), SymbolFlags::Elf { st_info, .. } if st_info.st_type() == STT_GNU_IFUNC)
            {
                is_indirect = true;
            } else {
                addresses.insert(symbol.address());
            }
        }
        let path = self.path.display();
        match (addresses.pop_first(), addresses.len()) {
            (Some(address), 0) => Ok(address),
            (Some(first), _) => {
                addresses.insert(first);
                let all: Vec<_> = addresses.iter().map(|address| format!("{address:#x}")).collect();
                bail!(
                    "{path} has several functions '{wanted}'; give one of their addresses instead: {}",
                    all.join(", ")
                )
            }
            (None, _) if is_indirect => {
                bail!(
                    "'{wanted}' of {path} chooses one of several functions when it starts; probe the one that it chooses"
                )
            }
            (None, _) if is_imported => {
                bail!(
                    "{path} only calls '{wanted}'; probe the library that it comes from, such as libc.so.6:{wanted}"
                )
            }
            (None, _) => {
                let more = if has_table {
                    "a function that was inlined everywhere is none"
                } else {
                    "it is stripped: only functions that it exports can be found"
                };
                bail!("{path} has no function '{wanted}'; {} ({more})", near(wanted, others.into_iter()))
            }
        }
    }

    /// The USDT probes.
    pub(super) fn usdt(&self) -> Result<Vec<Note>> {
        let file = self.file()?;
        // Where the notes were written, that section lay at another address if the file was changed later.
        let base = file.section_by_name(".stapsdt.base").map(|section| section.address());
        let sections = file.sections().filter(|section| section.name() == Ok(".note.stapsdt"));
        let word = if file.is_64() { 8 } else { 4 };
        // Sections are no longer than the file, all together, unless they overlap in one that was made to exhaust memory.
        let mut room = self.bytes.len();
        let found = sections.filter_map(|section| section.data().ok()).map_while(|data| {
            room = room.checked_sub(data.len())?;
            Some(data)
        });
        let found = found.flat_map(|data| notes(data, word, file.is_little_endian()));
        Ok(found.map(|note| note.place(base)).collect())
    }
}

/// A note's contents, as they stand there.
struct RawNote {
    base: u64,
    note: Note,
}

impl RawNote {
    fn place(self, base: Option<u64>) -> Note {
        let moved = base.map_or(0, |base| base.wrapping_sub(self.base));
        let mut note = self.note;
        note.address = note.address.wrapping_add(moved);
        if note.semaphore != 0 {
            note.semaphore = note.semaphore.wrapping_add(moved);
        }
        note
    }
}

/// Reads notes of type 3, owner `stapsdt`: three addresses, then three strings.
fn notes(mut data: &[u8], word: usize, is_little_endian: bool) -> Vec<RawNote> {
    const TYPE: u64 = 3;
    let number = |bytes: &[u8]| {
        let digit = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        if is_little_endian { bytes.iter().rev().fold(0, digit) } else { bytes.iter().fold(0, digit) }
    };
    let mut notes = Vec::new();
    while let Some((head, rest)) = data.split_at_checked(12) {
        let [name_len, len] =
            [&head[..4], &head[4..8]].map(|bytes| usize::try_from(number(bytes)).unwrap_or(usize::MAX));
        let Some((name, rest)) =
            name_len.checked_next_multiple_of(4).and_then(|len| rest.split_at_checked(len))
        else {
            break;
        };
        let Some(contents) = rest.get(..len) else { break };
        if number(&head[8..]) == TYPE && name.starts_with(b"stapsdt\0") {
            notes.extend(note(contents, word, number));
        }
        let Some(behind) = len.checked_next_multiple_of(4).and_then(|len| rest.get(len..)) else { break };
        data = behind;
    }
    notes
}

fn note(contents: &[u8], word: usize, number: impl Fn(&[u8]) -> u64) -> Option<RawNote> {
    let (addresses, texts) = contents.split_at_checked(3 * word)?;
    let [address, base, semaphore] = [0, 1, 2].map(|index| number(&addresses[index * word..][..word]));
    let mut texts = texts.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    let (provider, name) = (texts.next()?, texts.next()?);
    let arguments = texts.next().unwrap_or_default();
    Some(RawNote { base, note: Note { provider, name, address, semaphore, arguments } })
}

/// A name that can be an event's system.
pub(super) fn plain(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if plain.starts_with(|c: char| c.is_ascii_digit()) { format!("_{plain}") } else { plain }
}

/// The names that may have been meant.
pub(super) fn near(wanted: &str, names: impl Iterator<Item = String>) -> String {
    let limit = wanted.len().div_ceil(3);
    let rank = |name: String| {
        let away = distance(wanted, &name);
        (away <= limit || (wanted.len() >= 4 && name.contains(wanted))).then_some((away, name))
    };
    let near: BTreeSet<_> = names.filter_map(rank).collect();
    match near.is_empty() {
        true => "nothing there has a name like it".to_owned(),
        false => {
            let near: Vec<_> = near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect();
            format!("did you mean {}?", near.join(" or "))
        }
    }
}

fn find(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return Ok(name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path).map(|folder| folder.join(name));
    let folders = library_folders();
    let libraries = folders.iter().map(|folder| folder.join(name));
    let mut named = programs.chain(libraries).filter(|path| path.is_file()).peekable();
    let first = named.peek().cloned();
    // A script of the same name may stand before the program.
    let is_elf = |path: &PathBuf| Binary::open(&path.to_string_lossy()).is_ok();
    if let Some(found) = named.find(is_elf).or(first) {
        return Ok(found);
    }
    // `libc` means `libc.so.6`.
    let prefix = format!("{name}.so");
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let files = files.map(|file| file.path()).filter(|path| {
        path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(&prefix))
    });
    let found: BTreeSet<_> = files.filter(is_elf).filter_map(|path| fs::canonicalize(path).ok()).collect();
    match (found.first(), found.len()) {
        (Some(found), 1) => Ok(found.clone()),
        (Some(_), _) => {
            let all: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
            bail!("'{name}' may be {}; give its path", all.join(" or "))
        }
        (None, _) => {
            bail!("there is no program '{name}' in PATH, and no library; give its path, with a slash")
        }
    }
}

/// Where the dynamic linker looks for libraries.
fn library_folders() -> Vec<PathBuf> {
    let own = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&own).filter(|folder| folder.is_absolute()).collect();
    let configured = fs::read_dir("/etc/ld.so.conf.d").into_iter().flatten().flatten();
    let mut files: Vec<_> = configured.map(|file| file.path()).collect();
    files.sort();
    files.insert(0, "/etc/ld.so.conf".into());
    for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
        let lines = text.lines().map(str::trim).filter(|line| line.starts_with('/'));
        folders.extend(lines.map(PathBuf::from));
    }
    folders.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_found_by_its_names() {
        let binary = Binary::open("libc.so.6").unwrap();
        assert_eq!(
            (binary.short_name().as_str(), binary.path()),
            ("libc", Binary::open("libc").unwrap().path())
        );
        let malloc = binary.function("malloc").unwrap();
        assert!(binary.code_offset(malloc).is_some());
        assert_eq!(binary.code_offset(u64::MAX), None);
        let unknown = binary.function("maloc").unwrap_err().to_string();
        assert!(
            unknown.contains("has no function 'maloc'; did you mean ") && unknown.contains("malloc"),
            "{unknown}"
        );
        let nowhere = Binary::open("no-such-program").unwrap_err().to_string();
        assert!(nowhere.starts_with("there is no program 'no-such-program' in PATH"), "{nowhere}");
        let text = Binary::open("/etc/passwd").unwrap_err().to_string();
        assert_eq!(text, "/etc/passwd is no program or library (no ELF file)");
    }

    /// A program whose `count` sections of notes are the same bytes: a hundred notes.
    fn program_of_notes(count: u16) -> Vec<u8> {
        let texts = b"p\0n\0\0\0\0\0";
        let addresses = [0x1000u64, 0, 0].map(u64::to_le_bytes);
        let head = [8, 24 + 8, 3].map(u32::to_le_bytes);
        let notes = [head.as_flattened(), b"stapsdt\0", addresses.as_flattened(), texts].concat().repeat(100);
        let names = b"\0.note.stapsdt\0.shstrtab\0";
        let section = |name: u32, kind: u32, offset: usize, len: usize| {
            let words = [0, 0, offset as u64, len as u64, 0, 4, 0].map(u64::to_le_bytes);
            [[name, kind].map(u32::to_le_bytes).as_flattened(), words.as_flattened()].concat()
        };
        let sections_at = (64 + notes.len() + names.len()).next_multiple_of(8);
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
        file.extend([0, 0, sections_at as u64].map(u64::to_le_bytes).as_flattened());
        file.extend([0; 4]);
        file.extend([64, 56, 0, 64, count + 2, count + 1].map(u16::to_le_bytes).as_flattened());
        file.extend([&notes[..], names].concat());
        file.resize(sections_at, 0);
        file.extend(section(0, 0, 0, 0));
        (0..count).for_each(|_| file.extend(section(1, 7, 64, notes.len())));
        file.extend(section(15, 3, 64 + notes.len(), names.len()));
        file
    }

    #[test]
    fn sections_that_overlap_yield_no_more_notes_than_the_file_could_hold() {
        for (count, found) in [(1, 100), (50, 100)] {
            let binary = Binary { path: "evil".into(), bytes: program_of_notes(count) };
            assert_eq!(binary.usdt().unwrap().len(), found, "{count} sections");
        }
    }

    #[test]
    fn notes_are_read_as_far_as_they_go() {
        let mut data = Vec::new();
        let contents = [
            &0x1000u64.to_le_bytes()[..],
            &0x2000u64.to_le_bytes(),
            &0x3000u64.to_le_bytes(),
            b"shop\0sold\0-4@%edi 8@$5\0",
        ]
        .concat();
        for (kind, owner) in [(1u32, b"GNU\0\0\0\0\0"), (3, b"stapsdt\0")] {
            data.extend(
                [
                    8u32.to_le_bytes(),
                    u32::try_from(contents.len()).unwrap().to_le_bytes(),
                    kind.to_le_bytes(),
                ]
                .concat(),
            );
            data.extend(owner);
            data.extend(&contents);
            data.resize(data.len().next_multiple_of(4), 0);
        }
        let read = notes(&data, 8, true);
        assert_eq!(read.len(), 1);
        let note = read.into_iter().next().unwrap().place(Some(0x2100));
        assert_eq!((note.address, note.semaphore), (0x1100, 0x3100));
        assert_eq!((&*note.provider, &*note.name, &*note.arguments), ("shop", "sold", "-4@%edi 8@$5"));
        // The last byte is padding.
        for len in 0..data.len() - 1 {
            assert!(notes(&data[..len], 8, true).is_empty());
        }
        for index in 0..data.len() {
            let mut broken = data.clone();
            broken[index] ^= 0xff;
            let _ = notes(&broken, 8, true);
        }
    }
}
