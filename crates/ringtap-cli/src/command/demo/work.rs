//! The demo's work: walk a folder, count and hash its files, find files of equal content.
//!
//! Several workers share it without a word between them. Each walks the whole folder and takes the files
//! whose *size* falls to it, so files of equal content always meet in one worker. Nothing is modified, not
//! even times of access where that can be avoided; links are not followed, and other file systems (`/proc`
//! among them, where a mere look can have effects) are left out.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes per read, and so per `file_read` event.
const PIECE_LEN: usize = 16 * 1024;

/// What is worth tracing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// `dir_read`: a folder's entries were listed.
    DirRead {
        /// The folder.
        path: &'a Path,
        /// How many entries it has.
        entries: u64,
    },
    /// `file_open`: a file of this worker's was opened.
    FileOpen {
        /// The file.
        path: &'a Path,
        /// Its length, in bytes.
        size: u64,
    },
    /// `file_read`: a piece of it was read.
    FileRead {
        /// Where the piece begins, in bytes.
        offset: u64,
        /// Bytes in it.
        bytes: u32,
        /// Nanoseconds that it took; 4 seconds and more are told as 4.
        took_ns: u32,
    },
    /// `file_hashed`: its end was reached.
    FileHashed {
        /// 64-bit FNV-1a of its content.
        hash: u64,
        /// Line ends in it.
        lines: u64,
        /// Runs of bytes that are not white space.
        words: u64,
        /// Bytes in it.
        bytes: u64,
    },
    /// `duplicate_found`: its content was seen before, in another file.
    DuplicateFound {
        /// The file.
        path: &'a Path,
        /// The first file of this content.
        first: &'a Path,
    },
    /// `skipped`: it could not be read.
    Skipped {
        /// The file or folder.
        path: &'a Path,
        /// The system's error number.
        errno: i32,
    },
}

/// Which of the files are this worker's.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// This worker, from 0.
    pub index: u32,
    /// Workers in all.
    pub of: u32,
}

impl Share {
    /// Whether files of this size are this worker's.
    fn takes(self, size: u64) -> bool {
        // Hashed, because sizes that are multiples of a block's would all fall to one worker.
        Fnv1a::of(&size.to_le_bytes()) % u64::from(self.of.max(1)) == u64::from(self.index)
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Folders listed.
    pub folders: u64,
    /// Files read to their end.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Line ends in them.
    pub lines: u64,
    /// Runs of bytes that are not white space.
    pub words: u64,
    /// Files whose content another file has too.
    pub duplicates: u64,
    /// Files and folders that could not be read.
    pub skipped: u64,
    /// Events traced, those that the ring refused not counted.
    pub events: u64,
    /// Workers that ran out of time before they were done.
    pub cut_short: u64,
}

impl AddAssign for Totals {
    /// Adds another worker's. All walk the same folders, so those are not added.
    fn add_assign(&mut self, other: Self) {
        self.folders = self.folders.max(other.folders);
        self.files += other.files;
        self.bytes += other.bytes;
        self.lines += other.lines;
        self.words += other.words;
        self.duplicates += other.duplicates;
        self.skipped += other.skipped;
        self.events += other.events;
        self.cut_short += other.cut_short;
    }
}

/// Does one worker's share of the files under `root`, until done or no longer `in_time`.
///
/// # Errors
/// `root` itself cannot be looked at. What lies below it and cannot be read is skipped.
pub fn work(
    root: &Path,
    share: Share,
    in_time: impl Fn() -> bool,
    trace: impl FnMut(Event<'_>),
) -> io::Result<Totals> {
    let found = fs::metadata(root)?;
    let mut worker = Worker {
        share,
        in_time,
        device: found.dev(),
        totals: Totals::default(),
        seen: HashMap::new(),
        piece: vec![0; PIECE_LEN],
        trace,
    };
    worker.walk(root, &found);
    Ok(worker.totals)
}

/// The work was cut short.
struct OutOfTime;

struct Worker<I, T> {
    share: Share,
    in_time: I,
    /// The file system that the work stays on.
    device: u64,
    totals: Totals,
    /// The first file of each content, by size and hash, and its inode.
    seen: HashMap<(u64, u64), (PathBuf, u64)>,
    piece: Vec<u8>,
    trace: T,
}

impl<I: Fn() -> bool, T: FnMut(Event<'_>)> Worker<I, T> {
    fn walk(&mut self, root: &Path, found: &Metadata) {
        let result = if found.is_dir() { self.walk_folders(root) } else { self.file(root, found) };
        if result.is_err() {
            self.totals.cut_short = 1;
        }
    }

    fn walk_folders(&mut self, root: &Path) -> Result<(), OutOfTime> {
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            match list(&folder) {
                Ok(entries) => self.folder(&folder, entries, &mut folders)?,
                Err(error) => self.skip(&folder, &error),
            }
        }
        Ok(())
    }

    fn folder(
        &mut self,
        folder: &Path,
        entries: Vec<PathBuf>,
        folders: &mut Vec<PathBuf>,
    ) -> Result<(), OutOfTime> {
        self.totals.folders += 1;
        if self.share.index == 0 {
            // All workers list all folders; one of them says so.
            let entries = entries.len().try_into().unwrap_or(u64::MAX);
            self.event(Event::DirRead { path: folder, entries });
        }
        for path in entries {
            self.check_time()?;
            match fs::symlink_metadata(&path) {
                Ok(found) if found.dev() != self.device => {}
                Ok(found) if found.is_dir() => folders.push(path),
                Ok(found) => self.file(&path, &found)?,
                Err(error) => self.skip(&path, &error),
            }
        }
        Ok(())
    }

    /// Reads one file, if it is one of ours. Empty ones have nothing to read, or are not what they seem.
    fn file(&mut self, path: &Path, found: &Metadata) -> Result<(), OutOfTime> {
        if !found.is_file() || found.len() == 0 || !self.share.takes(found.len()) {
            return Ok(());
        }
        let file = match open(path) {
            Ok(file) => file,
            Err(error) => {
                self.skip(path, &error);
                return Ok(());
            }
        };
        self.event(Event::FileOpen { path, size: found.len() });
        match self.content(&file)? {
            Ok(content) => self.finish(path, found, &content),
            Err(error) => self.skip(path, &error),
        }
        Ok(())
    }

    /// Reads a file to its end. The outer error ends the work, the inner one only this file.
    fn content(&mut self, mut file: &File) -> Result<io::Result<Content>, OutOfTime> {
        let mut content = Content::default();
        loop {
            self.check_time()?;
            let start = Instant::now();
            let len = match file.read(&mut self.piece) {
                Ok(0) => return Ok(Ok(content)),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            let (took, offset) = (start.elapsed(), content.bytes);
            content.add(&self.piece[..len]);
            self.totals.bytes += content.bytes - offset;
            let took_ns = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
            let bytes = u32::try_from(len).unwrap_or(u32::MAX);
            self.event(Event::FileRead { offset, bytes, took_ns });
        }
    }

    fn finish(&mut self, path: &Path, found: &Metadata, content: &Content) {
        let Content { hash: Fnv1a(hash), lines, words, bytes, .. } = *content;
        self.totals.files += 1;
        self.totals.lines += lines;
        self.totals.words += words;
        self.event(Event::FileHashed { hash, lines, words, bytes });
        match self.seen.entry((bytes, hash)) {
            Entry::Vacant(new) => {
                new.insert((path.to_owned(), found.ino()));
            }
            // Two names of one file are no duplicate.
            Entry::Occupied(first) if first.get().1 == found.ino() => {}
            Entry::Occupied(first) => {
                self.totals.duplicates += 1;
                self.totals.events += 1;
                (self.trace)(Event::DuplicateFound { path, first: &first.get().0 });
            }
        }
    }

    fn skip(&mut self, path: &Path, error: &io::Error) {
        self.totals.skipped += 1;
        self.event(Event::Skipped { path, errno: error.raw_os_error().unwrap_or(0) });
    }

    fn event(&mut self, event: Event<'_>) {
        self.totals.events += 1;
        (self.trace)(event);
    }

    fn check_time(&self) -> Result<(), OutOfTime> {
        if (self.in_time)() { Ok(()) } else { Err(OutOfTime) }
    }
}

/// A folder's entries, sorted, so that two runs do the same.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    Ok(paths)
}

/// Opens a file to read it, without a trace of it in the file's time of access where we may.
fn open(path: &Path) -> io::Result<File> {
    // NONBLOCK and NOFOLLOW, should something else have taken its name since we looked.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = |flags| rustix::fs::open(path, flags, Mode::empty()).map(File::from);
    let file = match open(flags | OFlags::NOATIME) {
        // Only the file's owner may ask for that.
        Err(Errno::PERM) => open(flags)?,
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::INVAL.into()) }
}

/// What one pass over a file's bytes tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Content {
    hash: Fnv1a,
    lines: u64,
    words: u64,
    bytes: u64,
    in_word: bool,
}

impl Content {
    fn add(&mut self, piece: &[u8]) {
        for &byte in piece {
            self.hash.add(byte);
            let in_word = !byte.is_ascii_whitespace();
            self.words += u64::from(in_word && !self.in_word);
            self.in_word = in_word;
            self.lines += u64::from(byte == b'\n');
        }
        self.bytes += piece.len() as u64;
    }
}

/// Fowler, Noll and Vo's hash, 64 bits, variant 1a.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        bytes.iter().for_each(|&byte| hash.add(byte));
        hash.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of this test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let path = std::env::temp_dir().join(format!("ringtap-work-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            for (file, content) in files {
                let file = path.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, content).unwrap();
            }
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const ALONE: Share = Share { index: 0, of: 1 };

    fn run(folder: &Path, share: Share) -> (Totals, Vec<String>) {
        let mut events = Vec::new();
        let totals = work(folder, share, || true, |event| events.push(format!("{event:?}"))).unwrap();
        assert_eq!(totals.events, events.len() as u64);
        (totals, events)
    }

    #[test]
    fn it_counts_as_wc_does_and_finds_duplicates() {
        let folder = Folder::new(
            "counts",
            &[("a", "one two\nthree\n"), ("deep/er/b", "one two\nthree\n"), ("c", "other"), ("empty", "")],
        );
        fs::hard_link(folder.0.join("c"), folder.0.join("same-inode")).unwrap();
        std::os::unix::fs::symlink("/", folder.0.join("out")).unwrap();
        std::os::unix::fs::symlink(".", folder.0.join("loop")).unwrap();
        let (totals, events) = run(&folder.0, ALONE);
        let expected = Totals {
            folders: 3,
            files: 4,
            bytes: 38,
            lines: 4,
            words: 8,
            duplicates: 1,
            events: 3 + 4 * 3 + 1,
            ..Totals::default()
        };
        assert_eq!(totals, expected);
        let duplicate = events.iter().find(|event| event.starts_with("DuplicateFound")).unwrap();
        assert!(duplicate.contains("deep/er/b") && duplicate.contains("/a\""), "{duplicate}");
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        let files: Vec<_> = (1..40).map(|n| (format!("f{n}"), "x".repeat(n / 2))).collect();
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let folder = Folder::new("shares", &files);
        let (whole, _) = run(&folder.0, ALONE);
        let mut sum = Totals::default();
        for index in 0..3 {
            let (part, _) = run(&folder.0, Share { index, of: 3 });
            assert!(part.files > 0 && part.files < whole.files, "each worker has work");
            sum += part;
        }
        assert_eq!(sum, whole);
        assert_eq!(whole.duplicates, 19);
    }

    #[test]
    fn it_ends_in_time_and_survives_what_it_cannot_read() {
        let folder = Folder::new("limits", &[("a", "text")]);
        let totals = work(&folder.0, ALONE, || false, |_| {}).unwrap();
        assert_eq!((totals.files, totals.cut_short), (0, 1));
        work(&folder.0.join("nowhere"), ALONE, || true, |_| {}).unwrap_err();

        let status = std::process::Command::new("mkfifo").arg(folder.0.join("pipe")).status().unwrap();
        assert!(status.success());
        assert_eq!(run(&folder.0, ALONE).0.files, 1);
        assert_eq!(run(&folder.0.join("a"), ALONE).0.bytes, 4);
    }

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(Fnv1a::of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv1a::of(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn words_may_lie_across_pieces() {
        let mut content = Content::default();
        content.add(b"ab");
        content.add(b"cd e");
        assert_eq!((content.words, content.bytes, content.lines), (2, 6, 0));
    }
}
