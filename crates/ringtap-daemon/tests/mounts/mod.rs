//! A tree mounted for a test.
#![allow(dead_code, reason = "each test program uses its part")]

use ringtap::clock::ClockId;
use ringtap::{Config, Instances};
use ringtap_abi::Geometry;
use ringtap_abi::records::{Walk, Words};
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use ringtap_daemon::control::Control;
use ringtap_daemon::fs::{Mount, MountError, Ownership, Tree};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A mounted tree, and the directory that goes with it.
pub(crate) struct Mounted {
    pub(crate) mount: Option<Mount>,
    pub(crate) instances: Instances,
    pub(crate) tree: Tree,
    directory: PathBuf,
}

/// Mounts a tree with buffers of this size; `None`, and one line that says why, where that cannot be.
pub(crate) fn mounted(buffer_kib: u64) -> Option<Mounted> {
    mounted_with(buffer_kib, None)
}

/// The same, with the buffers as files in a directory.
pub(crate) fn mounted_with(buffer_kib: u64, files: Option<&Path>) -> Option<Mounted> {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Relaxed);
    let directory = std::env::temp_dir().join(format!("ringtap-mounted-{}-{number}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let ring_subbufs = Geometry::for_bytes(4096, buffer_kib * 1024).unwrap().ring_subbufs();
    let files = files.map(Path::to_owned);
    let config = Config { ring_subbufs, clock: Some(ClockId::Mono), directory: files, ..Config::default() };
    let instances = Instances::new(&config).unwrap();
    let tree = Tree::new(Control::new(instances.clone()), Ownership::default());
    let mount = Mount::new(&tree, &directory);
    let mount = mount.inspect_err(|error| {
        assert!(matches!(error, MountError::NoFuse(_) | MountError::NotPermitted { .. }), "{error}");
        println!("skipped, as a FUSE cannot be mounted: {error}");
    });
    let mounted = Mounted { mount: mount.ok(), instances, tree, directory };
    let can_map = mounted.mount.as_ref()?.can_map();
    if !can_map {
        println!("skipped, as there is no FUSE passthrough");
    }
    can_map.then_some(mounted)
}

impl Mounted {
    pub(crate) fn root(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn open_raw(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::open(self.path("per_cpu/cpu0/trace_pipe_raw"), flags | OFlags::CLOEXEC, Mode::empty())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.mount = None;
        let removed = std::fs::remove_dir(&self.directory);
        assert!(removed.is_ok() || std::thread::panicking(), "still mounted: {removed:?}");
    }
}

/// Keeps the calling thread there.
pub(crate) fn on_cpu_0() {
    let mut only = rustix::thread::CpuSet::new();
    only.set(0);
    rustix::thread::sched_setaffinity(None, &only).unwrap();
}

/// Writes a marker of 32 bytes for each number, through the file.
pub(crate) fn write_markers(mounted: &Mounted, numbers: Range<u64>) {
    let mut marker = File::options().write(true).open(mounted.path("trace_marker")).unwrap();
    numbers.for_each(|number| marker.write_all(format!("n{number:08}").as_bytes()).unwrap());
}

struct Page<'a>(&'a [u8]);

impl Words for Page<'_> {
    fn word(&self, offset: u32) -> u32 {
        let at = (HEADER_LEN + offset) as usize;
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }
}

/// The numbers of a sub-buffer's markers. Losses are none of these tests' business.
pub(crate) fn events_of(page: &[u8]) -> Vec<u64> {
    let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    let commit = PageCommit::unpack(word(8));
    assert!(!commit.is_missed());
    let mut walk = Walk::new(word(0), commit.len());
    let mut numbers = Vec::new();
    while let Some(record) = walk.next(&Page(page)).unwrap() {
        let text = &page[(HEADER_LEN + record.offset) as usize..][16..];
        numbers.push(std::str::from_utf8(&text[1..9]).unwrap().parse().unwrap());
    }
    numbers
}

/// Reads all that is there.
pub(crate) fn drain(raw: &OwnedFd) -> Vec<u64> {
    let flags = rustix::fs::fcntl_getfl(raw).unwrap();
    rustix::fs::fcntl_setfl(raw, flags | OFlags::NONBLOCK).unwrap();
    let (mut numbers, mut page) = (Vec::new(), vec![0; 4096]);
    loop {
        match rustix::io::read(raw, &mut page[..]) {
            Ok(len) => numbers.extend(events_of(&page[..len])),
            Err(Errno::AGAIN) => return numbers,
            Err(errno) => panic!("{errno}"),
        }
    }
}
