//! The mappings: memfds made, sealed and mapped, foreign ones checked before they are trusted.
//!
//! This module exists to protect one invariant: a [`Ring`] borrowed from a [`Mapping`] covers memory that stays
//! mapped, cannot shrink, and is never seen through a reference to plain bytes.

use crate::ring::{Data, Ring};
use ringtap_abi::geometry::GeometryError;
use ringtap_abi::meta::{Desc, MAGIC, MetaPage, VERSION, state};
use ringtap_abi::sync::{AtomicU32, AtomicU64};
use ringtap_abi::{Geometry, SubbufId};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

/// Why memory could not be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The sizes asked for, or stated by the memory, are impossible.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The memory is no ringtap buffer.
    #[error("the descriptor is no ringtap buffer: {0}")]
    Foreign(&'static str),
    /// The memory is of another version of ringtap.
    #[error(
        "the buffer is of layout version {found}, this ringtap reads version {VERSION}: use the same release on both sides"
    )]
    Version {
        /// The version stated.
        found: u32,
    },
    /// There is no room for the buffer.
    #[error("there is no room for {bytes} bytes in {path}: free some, or make the buffers smaller")]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// Bytes of the buffer.
        bytes: u64,
    },
    /// The file lies on a hugetlbfs, and there are too few huge pages for it.
    #[error(
        "there are too few free huge pages of {} KiB for the {bytes} bytes of {path}: reserve more (sysctl vm.nr_hugepages, or nr_hugepages in /sys/kernel/mm/hugepages/hugepages-{0}kB), or make the buffers smaller",
        page_size / 1024
    )]
    HugePages {
        /// The file.
        path: PathBuf,
        /// Its bytes: whole pages.
        bytes: u64,
        /// Bytes of a page.
        page_size: usize,
    },
    /// A file could not be made.
    #[error("failed to {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
    /// Another host has the directory.
    #[error("{path} is in use by another host: end it, or choose another directory")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The processor's data caches may alias, so that one side would not see what the other wrote.
    #[error(
        "this architecture's data caches may alias virtually: ringtap cannot share memory coherently on it"
    )]
    AliasingCaches,
    /// The kernel refused.
    #[error("failed to {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
}

pub(crate) fn failed(action: &'static str) -> impl FnOnce(Errno) -> MapError {
    move |errno| MapError::System { action, source: errno.into() }
}

/// Architectures whose data caches may alias virtually: the seeds name ARM, SPARC and MIPS.
const ALIASING_CACHES: bool = cfg!(any(
    target_arch = "arm",
    target_arch = "sparc",
    target_arch = "sparc64",
    target_arch = "mips",
    target_arch = "mips64",
));

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads alone. Not inherited by fork and not dumped, as the kernel's mapping is not.
    Read,
    /// Reads and writes. Inherited by fork: a child of a writer is a writer.
    Write,
}

/// Some mapped memory.
#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<u8>,
    /// Bytes: whole pages, of the size in which the file is mapped.
    len: usize,
    is_huge: bool,
}

// SAFETY: the memory belongs to no thread.
unsafe impl Send for Memory {}
// SAFETY: it is handed out as a pointer only; what is done with that is the caller's argument.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps `len` bytes of `fd` from `offset` on, shared, and what is left of the last page.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, access: Access) -> Result<Self, MapError> {
        if ALIASING_CACHES {
            return Err(MapError::AliasingCaches);
        }
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // A part of a huge page can neither be advised nor unmapped.
        let page = PageSize::of(fd);
        let len = len.next_multiple_of(page.bytes());
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset) };
        let start = NonNull::new(start.map_err(failed("map the buffer"))?.cast::<u8>());
        let start = start.ok_or(MapError::Foreign("it was mapped at address 0"))?;
        let memory = Self { start, len, is_huge: page.is_huge() };
        if access == Access::Read {
            memory.advise(Advice::LinuxDontFork)?;
            memory.advise(Advice::LinuxDontDump)?;
        }
        Ok(memory)
    }

    fn advise(&self, advice: Advice) -> Result<(), MapError> {
        // SAFETY: these advices change what fork and core dumps do, not what is mapped here.
        unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.len, advice) }
            .map_err(failed("keep the mapping from children and core dumps"))
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Stores bytes from `at` on, the first one last.
    ///
    /// # Panics
    /// Where they do not fit.
    fn store(&self, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.len));
        let start = self.start.as_ptr().wrapping_add(at).cast::<AtomicU8>();
        // SAFETY: it lies in the mapping, which `self` keeps; it is made of atomics, for which any bytes are valid.
        let cells = unsafe { std::slice::from_raw_parts(start, bytes.len()) };
        for (cell, &byte) in cells.iter().zip(bytes).rev() {
            // Release: whoever finds the first byte finds all, also where this process is killed in between.
            cell.store(byte, Release);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and whoever borrowed from it is gone.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
    }
}

/// One buffer, mapped.
#[derive(Debug)]
pub(crate) struct Mapping {
    memory: Memory,
    geometry: Geometry,
    file: File,
}

/// Which memory this is, whatever it is mapped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File {
    device: u64,
    inode: u64,
}

impl File {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Result<Self, MapError> {
        let stat = rustix::fs::fstat(fd).map_err(failed("look at the buffer's descriptor"))?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }

    /// Its number, which no other file in memory has at the same time.
    pub(crate) fn inode(self) -> u64 {
        self.inode
    }
}

impl Mapping {
    /// The ring in it. The geometry is the one that was checked, whatever the memory says now.
    pub(crate) fn ring(&self) -> Ring<'_> {
        let start = self.memory.start.as_ptr();
        let (slots, descs) = (self.geometry.slots_offset(), self.geometry.descs_offset());
        // SAFETY: the mapping is page-aligned and as long as the geometry says, so the meta-page lies in it; it
        // is made of atomics, for which any bytes are valid; `self` keeps it mapped.
        let meta = unsafe { &*start.cast::<MetaPage>() };
        // SAFETY: as above; the offset is a multiple of 64 and the array ends before the descs.
        let slots = unsafe {
            std::slice::from_raw_parts(
                start.wrapping_add(slots).cast::<AtomicU64>(),
                self.geometry.ring_subbufs() as usize,
            )
        };
        // SAFETY: as above; the array ends before the sub-buffers.
        let descs = unsafe {
            std::slice::from_raw_parts(
                start.wrapping_add(descs).cast::<Desc>(),
                self.geometry.nr_subbufs() as usize,
            )
        };
        let data = start.wrapping_add(self.geometry.subbuf_offset(SubbufId(0)));
        // SAFETY: 1. sub-buffers are aligned to their size, at least 4096, and end with the mapping. 2. This
        // module makes none, and gives the address to nobody else.
        let data = unsafe { Data::new(data, self.geometry) };
        Ring::new(self.geometry, meta, slots, descs, data)
    }

    /// Address of a sub-buffer, for a reader that was told it is its own.
    pub(crate) fn subbuf(&self, page: SubbufId) -> NonNull<u8> {
        assert!(self.geometry.contains(page));
        // SAFETY: the offset lies within the mapping.
        unsafe { self.memory.start.add(self.geometry.subbuf_offset(page)) }
    }

    /// All of it.
    pub(crate) fn words(&self) -> &[AtomicU32] {
        let start = self.memory.start().cast::<AtomicU32>().as_ptr();
        let len = self.geometry.map_len() / size_of::<AtomicU32>();
        // SAFETY: the mapping is page-aligned and at least this long, and `self` keeps it mapped; atomics may have any
        // bytes.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// Whether it lies in huge pages: from behind the meta-page on it cannot be mapped then.
    pub(crate) fn is_huge(&self) -> bool {
        self.memory.is_huge
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(crate) fn file(&self) -> File {
        self.file
    }

    /// Gives the sub-buffers' memory back to the kernel, for all who map it: they read as zeros from then on, and are
    /// marked so before. For a ring that was retired and read: nobody writes to it, and its counters stay.
    pub(crate) fn give_back(&self, fd: BorrowedFd<'_>) {
        // The cursors' look at the mark comes behind their fence (E3); this store comes before the kernel's.
        self.ring().meta().switches.state.fetch_or(state::GONE, SeqCst);
        if self.is_huge() {
            // Whoever still looks there is given a page for the one that was taken, or SIGBUS where none is free.
            return;
        }
        let (from, to) = (self.geometry.meta_page_size(), self.geometry.map_len());
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        // Where the file system cannot, the memory lives as long as its mappings.
        let _ = rustix::fs::fallocate(fd, flags, from as u64, (to - from) as u64);
    }
}

/// Seals that every buffer has: its size is final, so no access to a mapping of it can fault.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Makes the memory of a buffer: a sealed memfd of zeros but for the sizes at its beginning, mapped for writing.
pub(crate) fn create(geometry: Geometry, cpu: u32) -> Result<(OwnedFd, Mapping), MapError> {
    let fd = rustix::fs::memfd_create(
        format!("ringtap-cpu{cpu}"),
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )
    .map_err(failed("make a memfd for the buffer"))?;
    // A memfd is born 0777: with that, who was given a read-only descriptor could open it again for writing.
    rustix::fs::fchmod(&fd, Mode::RUSR).map_err(failed("protect the buffer's memfd"))?;
    rustix::fs::ftruncate(&fd, geometry.map_len() as u64).map_err(failed("size the buffer's memfd"))?;
    rustix::fs::fcntl_add_seals(&fd, SEALS).map_err(failed("seal the buffer's memfd"))?;
    let mapping = format(&fd, geometry, cpu)?;
    Ok((fd, mapping))
}

/// File system type of huge pages (`HUGETLBFS_MAGIC`).
const HUGETLBFS: rustix::fs::FsWord = 0x9584_58f6;

/// In which pages a file is mapped.
#[derive(Clone, Copy, Debug)]
enum PageSize {
    Usual,
    /// The file is on a hugetlbfs, and takes no `write`.
    Huge(usize),
}

impl PageSize {
    fn of(fd: impl AsFd) -> Self {
        let huge = rustix::fs::fstatfs(fd).ok().filter(|system| system.f_type == HUGETLBFS);
        let bytes = huge.and_then(|system| usize::try_from(system.f_bsize).ok());
        bytes.map_or(Self::Usual, Self::Huge)
    }

    fn bytes(self) -> usize {
        match self {
            Self::Usual => rustix::param::page_size(),
            Self::Huge(bytes) => bytes,
        }
    }

    fn is_huge(self) -> bool {
        matches!(self, Self::Huge(_))
    }
}

/// Whether a file is memory that keeps its contents when the machine is reset.
pub(crate) fn is_dax(fd: impl AsFd) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::DAX))
}

/// Makes a file's blocks, or the huge pages that it lies in. In memory that outlives a reset, they are there for good: a
/// block that was only reserved reads as zeros after the reset, whatever was stored to it, until the file system has noted
/// that it is in use.
pub(crate) fn reserve(fd: impl AsFd, path: &Path, bytes: u64) -> Result<(), MapError> {
    let (fd, page) = (fd.as_fd(), PageSize::of(&fd));
    let bytes = if page.is_huge() { bytes.next_multiple_of(page.bytes() as u64) } else { bytes };
    // Where it comes as far as to a signal, it does not go on by itself.
    let allocate = || rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::empty(), 0, bytes);
    let done = rustix::io::retry_on_intr(allocate).and_then(|()| {
        if is_dax(fd) {
            write_zeros(fd, bytes)?;
            rustix::fs::fsync(fd)?;
        }
        Ok(())
    });
    match done {
        Ok(()) => Ok(()),
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
            let path = path.to_owned();
            Err(match page {
                PageSize::Usual => MapError::DiskFull { path, bytes },
                PageSize::Huge(page_size) => MapError::HugePages { path, bytes, page_size },
            })
        }
        Err(errno) => Err(MapError::File {
            action: "reserve all blocks of",
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

fn write_zeros(fd: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let len = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(zeros.len());
        at += rustix::io::pwrite(fd, &zeros[..len], at)? as u64;
    }
    Ok(())
}

/// Takes away the end of what was written to a file; in huge pages, zeros take its place.
pub(crate) fn cut(file: &std::fs::File, path: &Path, end: std::ops::Range<usize>) -> Result<(), MapError> {
    if PageSize::of(file).is_huge() {
        return write_at(file, path, end.start as u64, &vec![0; end.len()]);
    }
    let failed = |source| MapError::File { action: "cut", path: path.to_owned(), source };
    file.set_len(end.start as u64).map_err(failed)
}

/// Makes the first page of a file for [`write_at`] where it is a huge one: that none is free is noticed here, and not when
/// something is to be written.
pub(crate) fn prepare(file: &std::fs::File, path: &Path) -> Result<(), MapError> {
    if PageSize::of(file).is_huge() { reserve(file, path, 1) } else { Ok(()) }
}

/// Writes to a file, in huge pages by a mapping. What a process leaves that is killed meanwhile has no last byte, or no first
/// one.
pub(crate) fn write_at(file: &std::fs::File, path: &Path, at: u64, bytes: &[u8]) -> Result<(), MapError> {
    if !PageSize::of(file).is_huge() {
        let failed = |source| MapError::File { action: "write to", path: path.to_owned(), source };
        return file.write_all_at(bytes, at).map_err(failed);
    }
    let from = usize::try_from(at).map_err(|_| MapError::Foreign("it is longer than memory can be"))?;
    let end = from + bytes.len();
    reserve(file, path, end as u64)?;
    Memory::map(file.as_fd(), 0, end, Access::Write)?.store(from, bytes);
    Ok(())
}

/// Makes the memory of a buffer in a file that does not exist yet. All of its blocks are there from the start: a full
/// disk is noticed here, and not by a writer's SIGBUS.
pub(crate) fn create_file(path: &Path, geometry: Geometry, cpu: u32) -> Result<(OwnedFd, Mapping), MapError> {
    let failed =
        |action| move |errno: Errno| MapError::File { action, path: path.to_owned(), source: errno.into() };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(failed("make the file"))?;
    let fill = || {
        reserve(&fd, path, geometry.map_len() as u64)?;
        format(&fd, geometry, cpu)
    };
    match fill() {
        Ok(mapping) => Ok((fd, mapping)),
        Err(error) => {
            // Nothing half made stays.
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

/// Maps memory of zeros for writing, and makes an empty buffer of it.
fn format(fd: &OwnedFd, geometry: Geometry, cpu: u32) -> Result<Mapping, MapError> {
    let memory = Memory::map(fd.as_fd(), 0, geometry.map_len(), Access::Write)?;
    let mapping = Mapping { memory, geometry, file: File::of(fd.as_fd())? };
    let ring = mapping.ring();
    let (kernel, identity) = (&ring.meta().kernel, &ring.meta().identity);
    let number = |size: usize| u32::try_from(size).expect("a meta-page is smaller than 4 GiB");
    kernel.meta_page_size.store(number(geometry.meta_page_size()), Relaxed);
    kernel.meta_struct_len.store(number(geometry.meta_struct_len()), Relaxed);
    kernel.subbuf_size.store(geometry.subbuf_size(), Relaxed);
    kernel.nr_subbufs.store(geometry.nr_subbufs(), Relaxed);
    identity.magic.store(MAGIC, Relaxed);
    identity.version.store(VERSION, Relaxed);
    identity.cpu.store(cpu, Relaxed);
    ring.format();
    Ok(mapping)
}

/// Maps a buffer that somebody else made, after checking all that it says of itself.
pub(crate) fn open(fd: impl AsFd, access: Access) -> Result<Mapping, MapError> {
    let fd = fd.as_fd();
    if !is_own_file(fd)? {
        check_sealed(fd)?;
    }
    let len = rustix::fs::fstat(fd).map_err(failed("look at the buffer's descriptor"))?.st_size;
    let len = usize::try_from(len).unwrap_or(0);
    if len < size_of::<MetaPage>() {
        return Err(MapError::Foreign("it is too short for a meta-page"));
    }
    let geometry = stated_geometry(&Memory::map(fd, 0, size_of::<MetaPage>(), Access::Read)?, len)?;
    let memory = Memory::map(fd, 0, geometry.map_len(), access)?;
    Ok(Mapping { memory, geometry, file: File::of(fd)? })
}

/// Whether memory that somebody else made stays: if it could be taken away, an access to it would kill this process.
pub(crate) fn check_sealed(fd: BorrowedFd<'_>) -> Result<(), MapError> {
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| MapError::Foreign("it is not a memfd"))?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err(MapError::Foreign("it is not sealed against shrinking"));
    }
    // There the seal keeps neither the pages, which may be punched out while no other is free, nor a length of whole ones.
    if PageSize::of(fd).is_huge() {
        return Err(MapError::Foreign("it lies in huge pages, which seals do not keep"));
    }
    Ok(())
}

/// Whether this is a file with a name that only this user, or root, can change: a persistent buffer cannot be sealed.
pub(crate) fn is_own_file(fd: BorrowedFd<'_>) -> Result<bool, MapError> {
    let stat = rustix::fs::fstat(fd).map_err(failed("look at the buffer's descriptor"))?;
    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_nlink > 0;
    let is_ours = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    Ok(is_file && is_ours && stat.st_mode & 0o022 == 0)
}

fn stated_geometry(head: &Memory, len: usize) -> Result<Geometry, MapError> {
    // SAFETY: as long as a meta-page and page-aligned; made of atomics; `head` keeps it mapped.
    let meta = unsafe { &*head.start.as_ptr().cast::<MetaPage>() };
    if meta.identity.magic.load(Relaxed) != MAGIC {
        return Err(MapError::Foreign("its magic number is missing"));
    }
    let found = meta.identity.version.load(Relaxed);
    if found != VERSION {
        return Err(MapError::Version { found });
    }
    let ring_subbufs = meta.kernel.nr_subbufs.load(Relaxed).wrapping_sub(1);
    let geometry = Geometry::new(meta.kernel.subbuf_size.load(Relaxed), ring_subbufs)?;
    if meta.kernel.meta_page_size.load(Relaxed) as usize != geometry.meta_page_size()
        || meta.kernel.meta_struct_len.load(Relaxed) as usize != geometry.meta_struct_len()
    {
        return Err(MapError::Foreign("its meta-page has another size than its sub-buffers ask for"));
    }
    if len < geometry.map_len() {
        return Err(MapError::Foreign("it is shorter than the sizes it states"));
    }
    Ok(geometry)
}

/// A second descriptor of the same memory that cannot write, nor be mapped for writing.
pub(crate) fn read_only(fd: BorrowedFd<'_>) -> Result<OwnedFd, MapError> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("reopen the buffer read-only through /proc (is it mounted?)"))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The flags that the kernel tells of the mapping that begins at `start`.
    fn flags_of(start: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&format!("{start:x}-")));
        lines.find_map(|line| line.strip_prefix("VmFlags:")).expect("the mapping is there").to_owned()
    }

    #[test]
    fn a_readers_mapping_is_kept_from_children_and_core_dumps() {
        let geometry = Geometry::new(4096, 4).expect("possible");
        let (fd, writers) = create(geometry, 0).expect("memory");
        let readers =
            open(read_only(fd.as_fd()).expect("/proc is mounted").as_fd(), Access::Read).expect("ours");
        let flags = flags_of(readers.memory.start().as_ptr().addr());
        let has = |flags: &str, flag: &str| flags.split_ascii_whitespace().any(|each| each == flag);
        // dc: not copied on fork. dd: not dumped. wr, mw: writable, or could be made so.
        assert!(has(&flags, "dc") && has(&flags, "dd"), "{flags}");
        assert!(!has(&flags, "wr") && !has(&flags, "mw"), "{flags}");
        let flags = flags_of(writers.memory.start().as_ptr().addr());
        assert!(!has(&flags, "dc") && has(&flags, "wr"), "{flags}");
    }

    #[test]
    fn a_memfd_that_does_not_stay_is_not_mapped() {
        let reason = |flags, seals, len| {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags;
            let fd = match rustix::fs::memfd_create("theirs", flags) {
                Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => return None,
                fd => fd.expect("memory"),
            };
            rustix::fs::ftruncate(&fd, len).expect("no page is there yet");
            rustix::fs::fcntl_add_seals(&fd, seals).expect("nobody did before");
            match open(&fd, Access::Read) {
                Err(MapError::Foreign(reason)) => Some(reason),
                other => panic!("{other:?}"),
            }
        };
        let usual = reason(MemfdFlags::empty(), SealFlags::GROW, 1 << 21);
        assert!(usual.expect("each kernel has them").contains("not sealed"));
        match reason(MemfdFlags::HUGETLB, SEALS, 1 << 30) {
            Some(huge) => assert!(huge.contains("huge pages"), "{huge}"),
            None => println!("skipped: this kernel has no huge pages"),
        }
    }

    #[test]
    fn every_buffer_is_sealed_and_closed_to_others() {
        let (fd, _) = create(Geometry::new(4096, 4).expect("possible"), 0).expect("memory");
        assert!(rustix::fs::fcntl_get_seals(&fd).expect("a memfd").contains(SEALS));
        assert_eq!(rustix::fs::ftruncate(&fd, 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::fstat(&fd).expect("open").st_mode & 0o777, 0o400);
    }
}
