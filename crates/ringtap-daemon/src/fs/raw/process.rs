//! What a client's process does with an open file beyond what FUSE tells: its `/proc` says it.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// `O_NONBLOCK`, in the octal number that `fdinfo` prints.
const NONBLOCK: u64 = 0o4000;

/// An open file of a process, as `/proc/PID/fdinfo/FD` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileState {
    /// Where its next read begins; a `splice` moves it without a request.
    pub(super) position: u64,
    /// Whether it has `O_NONBLOCK` now: `fcntl` changes that without a request.
    pub(super) nonblocking: bool,
}

/// Finds a client's descriptor, and remembers it.
#[derive(Debug, Default)]
pub(super) struct Finder {
    found: Option<(u32, File)>,
}

impl Finder {
    /// The state of the file with this inode number that thread `tid` has open; `None` where that may not be known.
    pub(super) fn look(&mut self, tid: u32, ino: u64) -> Option<FileState> {
        if let Some((known, file)) = &self.found
            && *known == tid
            && let Some(state) = state(file, ino)
        {
            return Some(state);
        }
        self.found = None;
        for entry in fs::read_dir(format!("/proc/{tid}/fdinfo")).ok()?.flatten() {
            let Ok(file) = File::open(entry.path()) else { continue };
            if let Some(state) = state(&file, ino) {
                self.found = Some((tid, file));
                return Some(state);
            }
        }
        None
    }
}

fn state(file: &File, ino: u64) -> Option<FileState> {
    let mut text = [0; 512];
    let len = file.read_at(&mut text, 0).ok()?;
    parse(std::str::from_utf8(&text[..len]).ok()?, ino)
}

fn parse(text: &str, ino: u64) -> Option<FileState> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("ino:")?.parse() != Ok(ino) {
        return None;
    }
    let flags = u64::from_str_radix(field("flags:")?, 8).ok()?;
    Some(FileState { position: field("pos:")?.parse().ok()?, nonblocking: flags & NONBLOCK != 0 })
}

/// Whether a process maps the file with this inode number; `None` where that may not be known.
pub(super) fn maps(pid: u32, ino: u64) -> Option<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let inos = text.lines().filter_map(|line| line.split_ascii_whitespace().nth(4));
    Some(inos.filter_map(|number| number.parse().ok()).any(|number: u64| number == ino))
}

/// Whether any process maps a file with one of these inode numbers. Those that this one may not look into do not count.
pub(crate) fn anybody_maps(inos: &[u64]) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    let mut pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.any(|pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let mut numbers = text.lines().filter_map(|line| line.split_ascii_whitespace().nth(4)?.parse().ok());
        numbers.any(|ino: u64| inos.contains(&ino))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_file_is_read_from_its_fdinfo() {
        let text = "pos:\t65536\nflags:\t0104000\nmnt_id:\t31\nino:\t77\n";
        assert_eq!(parse(text, 77), Some(FileState { position: 65536, nonblocking: true }));
        assert_eq!(parse(text, 78), None);
        assert_eq!(parse("pos:\t1\nflags:\t02\nino:\t5\n", 5).map(|state| state.nonblocking), Some(false));
    }

    #[test]
    fn a_descriptor_of_this_process_is_found_and_followed() {
        let file = File::open("/proc/self/exe").unwrap();
        let ino = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        let (mut finder, pid) = (Finder::default(), std::process::id());
        assert_eq!(finder.look(pid, ino), Some(FileState { position: 0, nonblocking: false }));
        std::io::Seek::seek(&mut &file, std::io::SeekFrom::Start(4096)).unwrap();
        assert_eq!(finder.look(pid, ino).unwrap().position, 4096);
        assert_eq!(finder.look(pid, ino + 1_000_000_007), None);
        assert_eq!(maps(pid, ino), Some(true), "its own code");
        assert!(anybody_maps(&[ino]));
    }
}
