//! The switchboard's memory: made, sealed and mapped, or mapped from a host's descriptor and checked.
//!
//! This module exists to protect one invariant: **a word that was handed out can be read for ever.** Events look at
//! their word without asking whether anybody still maps the switchboard. So the mapping of a board whose words were
//! handed out is never given back as a whole: when its last owner is gone, its words are replaced, in one step of
//! the kernel's, by zeros that nobody can write to. Whoever still looks finds the event off.

use crate::map::{self, Access, MapError, Memory, failed};
use crate::rules::HasRegion;
use crate::thread::{self, Masked};
use ringtap_abi::control::Part;
use ringtap_abi::rules::{self, Region};
use ringtap_abi::switchboard::{
    CPUS_OFFSET, CpuWords, Entry, FORMATS_LEN, FORMATS_OFFSET, FormatHead, Head, INSTANCES_OFFSET, LEN,
    MAGIC, MAPPED_LEN, MAX_CPUS, MAX_INSTANCES, RULES, RULES_OFFSET, SETTINGS_LEN, SETTINGS_OFFSET, TASKS,
    TASKS_LEN, TASKS_OFFSET, Task, VERSION, WORDS, WORDS_LEN, WORDS_OFFSET, format_entry_len,
};
use ringtap_abi::sync::AtomicU64;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};

/// A switchboard, mapped for writing. It belongs to no thread.
#[derive(Debug)]
pub(crate) struct Board {
    /// [`MAPPED_LEN`] bytes, aligned to [`WORDS_LEN`].
    start: NonNull<u8>,
    /// `None` where nobody is to be given it, and no descriptor kept.
    fd: Option<OwnedFd>,
    /// Where the tasks lie in a file, which a persistent host has.
    tasks_file: OnceLock<TasksFile>,
    /// Whether a word was handed out.
    is_pinned: AtomicBool,
    /// Of this process's switchboards no two ever have the same, and none has 0.
    number: u64,
}

#[derive(Debug)]
struct TasksFile {
    /// At least [`TASKS_LEN`] bytes.
    memory: Memory,
    /// `None` as the board's.
    fd: Option<OwnedFd>,
}

// SAFETY: the memory belongs to no thread.
unsafe impl Send for Board {}
// SAFETY: it is made of atomics.
unsafe impl Sync for Board {}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

impl Board {
    /// A new host's, with all events off.
    pub(crate) fn create() -> Result<Self, MapError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("ringtap-switchboard", flags)
            .map_err(failed("make a memfd for the switchboard"))?;
        rustix::fs::fchmod(&fd, Mode::RUSR).map_err(failed("protect the switchboard's memfd"))?;
        rustix::fs::ftruncate(&fd, LEN as u64).map_err(failed("size the switchboard's memfd"))?;
        rustix::fs::fcntl_add_seals(&fd, SEALS).map_err(failed("seal the switchboard's memfd"))?;
        let mut id = [0u64; 2];
        // SAFETY: the kernel fills the words. Where it has no random bytes yet, time and process are as good.
        if unsafe { libc::getrandom(id.as_mut_ptr().cast(), size_of_val(&id), libc::GRND_NONBLOCK) } < 0 {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            id = [now.tv_nsec.cast_unsigned() ^ now.tv_sec.cast_unsigned() << 30, std::process::id().into()];
        }
        let board = Self::map(fd)?;
        let head = board.head();
        head.magic.store(MAGIC, Relaxed);
        head.version.store(VERSION, Relaxed);
        for (word, part) in head.host_id.iter().zip(id) {
            word.store(part, Relaxed);
        }
        Ok(board)
    }

    /// Maps what somebody else made, after checking what it says of itself.
    pub(crate) fn open(fd: OwnedFd) -> Result<Self, MapError> {
        map::check_sealed(fd.as_fd())?;
        let len = rustix::fs::fstat(&fd).map_err(failed("look at the switchboard's descriptor"))?.st_size;
        if usize::try_from(len) != Ok(LEN) {
            return Err(MapError::Foreign("it has not the length of a switchboard"));
        }
        let board = Self::map(fd)?;
        let head = board.head();
        if head.magic.load(Relaxed) != MAGIC {
            return Err(MapError::Foreign("its magic number is missing"));
        }
        match head.version.load(Relaxed) {
            VERSION => Ok(board),
            found => Err(MapError::Version { found }),
        }
    }

    fn map(fd: OwnedFd) -> Result<Self, MapError> {
        let start = reserve_aligned()?;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: replaces a part of what was just reserved, which nobody knows of.
        let mapped =
            unsafe { rustix::mm::mmap(start.as_ptr().cast(), MAPPED_LEN, protection, flags, &fd, 0) };
        if let Err(errno) = mapped {
            unmap(start, MAPPED_LEN);
            return Err(failed("map the switchboard")(errno));
        }
        static NUMBERS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Relaxed);
        let (tasks_file, is_pinned) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Self { start, fd: Some(fd), tasks_file, is_pinned, number })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn head(&self) -> &Head {
        // SAFETY: it lies in the mapping, which `self` keeps; it is made of atomics, for which any bytes are valid.
        unsafe { &*self.at(0).cast::<Head>() }
    }

    /// The number that tells hosts apart.
    pub(crate) fn host_id(&self) -> [u64; 2] {
        [self.head().host_id[0].load(Relaxed), self.head().host_id[1].load(Relaxed)]
    }

    /// An instance's entry.
    pub(crate) fn entry(&self, instance: usize) -> &Entry {
        assert!(instance < MAX_INSTANCES);
        // SAFETY: as in `head`; the entries end before the tasks.
        unsafe { &*self.at(INSTANCES_OFFSET + instance * size_of::<Entry>()).cast::<Entry>() }
    }

    /// Has the tasks lie in a file, which outlives all processes; to be handed out to those that map the switchboard.
    pub(crate) fn keep_tasks_in(&self, file: OwnedFd) -> Result<(), MapError> {
        self.map_tasks(file, true)
    }

    pub(crate) fn tasks_file(&self) -> Option<BorrowedFd<'_>> {
        self.tasks_file.get()?.fd.as_ref().map(AsFd::as_fd)
    }

    /// Maps the file that the tasks lie in.
    fn map_tasks(&self, file: OwnedFd, keeps_descriptor: bool) -> Result<(), MapError> {
        let len = rustix::fs::fstat(&file).map_err(failed("look at the file of tasks"))?.st_size;
        if usize::try_from(len).unwrap_or(0) < TASKS_LEN {
            return Err(MapError::Foreign("the file of tasks is too short"));
        }
        // Not in the place on the board, where no huge page fits.
        let memory = Memory::map(file.as_fd(), 0, TASKS_LEN, Access::Write)?;
        // It is kept once: a host has one such file.
        let _ = self.tasks_file.set(TasksFile { memory, fd: keeps_descriptor.then_some(file) });
        Ok(())
    }

    /// The tasks.
    pub(crate) fn tasks(&self) -> &[Task] {
        let on_board = || self.at(TASKS_OFFSET).cast::<Task>();
        let start = self.tasks_file.get().map_or_else(on_board, |file| file.memory.start().as_ptr().cast());
        // SAFETY: as in `head`; on the board the tasks end before the words, and the file's memory is mapped as long as
        // `self` is there, and this long.
        unsafe { std::slice::from_raw_parts(start, TASKS) }
    }

    /// The rules of events.
    fn rules_words(&self) -> &[AtomicU64] {
        // SAFETY: as in `head`; the rules end before the formats.
        unsafe { std::slice::from_raw_parts(self.at(RULES_OFFSET).cast::<AtomicU64>(), rules::WORDS) }
    }

    /// What is to be said of one CPU's buffers of an instance; `None` where there can be none.
    pub(crate) fn cpu(&self, instance: usize, cpu: u32) -> Option<&CpuWords> {
        let place = (instance < MAX_INSTANCES && (cpu as usize) < MAX_CPUS)
            .then(|| CPUS_OFFSET + (instance * MAX_CPUS + cpu as usize) * size_of::<CpuWords>())?;
        // SAFETY: as in `head`; the CPUs end before the formats.
        Some(unsafe { &*self.at(place).cast::<CpuWords>() })
    }

    /// An event's word, to look at while this board is borrowed.
    pub(crate) fn word(&self, id: u16) -> &AtomicU64 {
        &self.words()[usize::from(id)]
    }

    /// An event's word, to look at for ever.
    pub(crate) fn word_for_ever(&self, id: u16) -> &'static AtomicU64 {
        // Relaxed: whoever drops the board has exclusive use of it.
        self.is_pinned.store(true, Relaxed);
        let word = ptr::from_ref(self.word(id));
        // SAFETY: the words of a pinned board are never unmapped, see `drop`.
        unsafe { &*word }
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: as in `head`; the words end before the settings.
        unsafe { std::slice::from_raw_parts(self.at(WORDS_OFFSET).cast::<AtomicU64>(), WORDS) }
    }

    /// Whether a word's address is one of this board's.
    pub(crate) fn owns(&self, word: *const AtomicU64) -> bool {
        self.words().as_ptr_range().contains(&word)
    }

    /// Switches an event on in these instances. Lists of pids count for events that were off when they were made.
    pub(crate) fn switch_on(&self, event: u16, instances: u64) {
        let word = self.word(event);
        let rules = || if self.region().has_pid_lists() { RULES } else { 0 };
        // Relaxed: an event about to be written while it is switched may be either.
        word.fetch_or(instances | rules(), Relaxed);
        // S7: pairs with the fence in `Common::set_pids`. Either this sees a list that was made just now, or that sees
        // that the event is on.
        fence(SeqCst);
        word.fetch_or(rules(), Relaxed);
    }

    fn at(&self, offset: usize) -> *const u8 {
        self.start.as_ptr().wrapping_add(offset).cast_const()
    }

    /// Appends an event's declaration to the formats' log. `false` where the log is full or cannot be written.
    pub(crate) fn log_format(&self, id: u16, text: &str) -> bool {
        let used = self.head().formats_len.load(Relaxed);
        let entry = format_entry_len(text.len());
        let Some(end) = used.checked_add(entry as u64).filter(|&end| end <= FORMATS_LEN as u64) else {
            return false;
        };
        let Ok(len) = u32::try_from(text.len()) else { return false };
        let mut bytes = FormatHead { len, id: id.into() }.bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(entry, 0);
        let Some(fd) = &self.fd else { return false };
        if rustix::io::pwrite(fd, &bytes, FORMATS_OFFSET as u64 + used) != Ok(entry) {
            return false;
        }
        // S3: pairs with the Acquire in `formats`. The entry is there before the log ends behind it.
        self.head().formats_len.store(end, Release);
        true
    }

    /// The declarations in the log, as far as they make sense: each an id and a text.
    pub(crate) fn formats(&self) -> Vec<(u16, String)> {
        // S3: pairs with the Release in `log_format`.
        let used = self.head().formats_len.load(Acquire).min(FORMATS_LEN as u64);
        let log = self.read(FORMATS_OFFSET, usize::try_from(used).unwrap_or(0));
        let mut formats = Vec::new();
        let mut rest = &log[..];
        while let Some((head, behind)) = FormatHead::split(rest) {
            let len = head.len as usize;
            let text = behind.get(..len).and_then(|text| std::str::from_utf8(text).ok());
            let (Some(text), Ok(id)) = (text, u16::try_from(head.id)) else { break };
            formats.push((id, text.to_owned()));
            let Some(next) = rest.get(format_entry_len(len)..) else { break };
            rest = next;
        }
        formats
    }

    /// Keeps the host's settings for a successor. `false` where they are too long.
    pub(crate) fn save(&self, settings: &[u8]) -> bool {
        if settings.len() > SETTINGS_LEN - size_of::<u64>() {
            return false;
        }
        let version = self.head().settings.load(Relaxed) + 1;
        let bytes = [&(settings.len() as u64).to_le_bytes(), settings].concat();
        let Some(fd) = &self.fd else { return false };
        let written = rustix::io::pwrite(fd, &bytes, settings_offset(version) as u64);
        if written != Ok(bytes.len()) {
            return false;
        }
        // S3: pairs with the Acquire in `saved`. The old copy stays until the new one is there.
        self.head().settings.store(version, Release);
        true
    }

    /// What was saved last.
    pub(crate) fn saved(&self) -> Option<Vec<u8>> {
        // S3: pairs with the Release in `save`.
        let version = self.head().settings.load(Acquire);
        let bytes = self.read(settings_offset(version), SETTINGS_LEN);
        let (len, settings) = bytes.split_first_chunk::<8>()?;
        let settings = settings.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        (version > 0).then(|| settings.to_vec())
    }

    fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.fd.as_ref().map_or(Ok(0), |fd| rustix::io::pread(fd, &mut bytes, offset as u64));
        let read = read.unwrap_or(0);
        bytes.truncate(read);
        bytes
    }
}

/// Where the settings of this version are.
fn settings_offset(version: u64) -> usize {
    SETTINGS_OFFSET + if version.is_multiple_of(2) { 0 } else { SETTINGS_LEN }
}

impl HasRegion for Board {
    fn region(&self) -> Region<'_> {
        Region::new(self.rules_words()).expect("the switchboard has room for all rules")
    }
}

impl HasRegion for Arc<Board> {
    fn region(&self) -> Region<'_> {
        (**self).region()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if !*self.is_pinned.get_mut() {
            return unmap(self.start, MAPPED_LEN);
        }
        let words = self.start.as_ptr().wrapping_add(WORDS_OFFSET);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: replaces the words by zeros in one step; whoever reads one reads the old value or 0.
        let replaced = unsafe { rustix::mm::mmap_anonymous(words.cast(), WORDS_LEN, ProtFlags::READ, flags) };
        debug_assert!(replaced.is_ok(), "what is mapped can be replaced");
        unmap(self.start, WORDS_OFFSET);
        let behind = WORDS_OFFSET + WORDS_LEN;
        // SAFETY: it lies in the mapping.
        unmap(unsafe { self.start.add(behind) }, MAPPED_LEN - behind);
    }
}

/// This process's switchboards.
#[derive(Debug)]
struct Boards {
    /// Of hosts, mapped.
    mapped: Vec<Weak<Board>>,
    /// Whose lists of pids may have a forked child's parent: those mapped, and this process's hosts'.
    following: Vec<Weak<Board>>,
}

impl Boards {
    const NONE: Self = Self { mapped: Vec::new(), following: Vec::new() };

    fn find(&self, host_id: [u64; 2]) -> Option<Arc<Board>> {
        self.mapped.iter().filter_map(Weak::upgrade).find(|known| known.host_id() == host_id)
    }

    fn follow_forks(&mut self, board: &Arc<Board>) {
        self.following.retain(|board| board.strong_count() > 0);
        self.following.push(Arc::downgrade(board));
    }
}

/// The lists, under a lock that is made anew in a forked child: whoever of its parent held it is not there. Forks do not take it,
/// since somebody who waits for it may hold another lock that they take.
struct Lists {
    boards: UnsafeCell<Mutex<Boards>>,
    /// They may be half changed.
    is_changing: AtomicBool,
}

// SAFETY: a mutex may be shared; `renew` is called by the only thread there is.
unsafe impl Sync for Lists {}

static LISTS: Lists =
    Lists { boards: UnsafeCell::new(Mutex::new(Boards::NONE)), is_changing: AtomicBool::new(false) };

impl Lists {
    fn look(&self) -> MutexGuard<'_, Boards> {
        // SAFETY: nobody replaces it while there are other threads.
        unsafe { &*self.boards.get() }.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Boards) -> R) -> R {
        thread::forget_on_fork();
        // No signal handler comes in between, and forks.
        let _masked = Masked::new();
        let mut boards = self.look();
        self.is_changing.store(true, SeqCst);
        let result = change(&mut boards);
        self.is_changing.store(false, SeqCst);
        result
    }

    /// In a forked child. Lists that were being changed are given up.
    ///
    /// # Safety
    /// The calling thread is the only one of its process.
    unsafe fn renew(&self) {
        // SAFETY: as the caller says. Where this thread itself looks at the lists, and a signal handler of it forked, it goes on
        // with the same ones: they stay where they are.
        let lock = unsafe { &mut *self.boards.get() };
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            let is_whole = !self.is_changing.swap(false, SeqCst);
            let held = ManuallyDrop::new(std::mem::replace(lock, Mutex::new(Boards::NONE)));
            if is_whole {
                let boards = ManuallyDrop::into_inner(held).into_inner();
                *lock = Mutex::new(boards.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}

/// A host's switchboard, where this process has it mapped.
pub(crate) fn find(host_id: [u64; 2]) -> Option<Arc<Board>> {
    thread::forget_on_fork();
    LISTS.look().find(host_id)
}

/// Maps a host's switchboard that was not [found](find), with its tasks where these lie elsewhere. Where another thread was
/// faster, the mapping is that one's.
pub(crate) fn shared(
    fd: OwnedFd,
    tasks: Option<OwnedFd>,
    keeps_descriptor: bool,
) -> Result<Arc<Board>, MapError> {
    let mut board = Board::open(fd)?;
    if let Some(tasks) = tasks {
        if !map::is_own_file(tasks.as_fd())? {
            return Err(MapError::Foreign("the file of tasks is another user's, who could take it away"));
        }
        board.map_tasks(tasks, false)?;
    }
    if !keeps_descriptor {
        board.fd = None;
    }
    let board = Arc::new(board);
    Ok(LISTS.change(|boards| {
        boards.find(board.host_id()).unwrap_or_else(|| {
            boards.mapped.retain(|board| board.strong_count() > 0);
            boards.mapped.push(Arc::downgrade(&board));
            boards.follow_forks(&board);
            Arc::clone(&board)
        })
    }))
}

/// From now on, children that this process forks are put into the lists that follow forks, before they do anything.
pub(crate) fn follow_forks(board: &Arc<Board>) {
    LISTS.change(|boards| boards.follow_forks(board));
}

/// In a forked child's only thread: it was made by this one of its parent. Where its lists were given up, the host hears of the
/// child all the same, somewhat later.
pub(crate) fn forked(parent: u32, child: u32) {
    // SAFETY: there is no other thread.
    unsafe { LISTS.renew() };
    let boards = LISTS.look();
    let following = boards.following.iter().filter_map(Weak::upgrade);
    following.for_each(|board| board.region().forked(parent, child));
}

/// Reserves [`MAPPED_LEN`] bytes of addresses, aligned to [`WORDS_LEN`], that cannot be accessed.
fn reserve_aligned() -> Result<NonNull<u8>, MapError> {
    let len = MAPPED_LEN + WORDS_LEN;
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let space =
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE) };
    let space = NonNull::new(space.map_err(failed("find room for the switchboard"))?.cast::<u8>())
        .ok_or(MapError::Foreign("it was mapped at address 0"))?;
    let before = space.align_offset(WORDS_LEN);
    // SAFETY: `before` is less than WORDS_LEN, the spare room.
    let start = unsafe { space.add(before) };
    // SAFETY: as above.
    let end = unsafe { start.add(MAPPED_LEN) };
    if before > 0 {
        unmap(space, before);
    }
    if WORDS_LEN > before {
        unmap(end, WORDS_LEN - before);
    }
    Ok(start)
}

fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: of this module's own mappings, those that nobody borrows from any more.
    let unmapped = unsafe { rustix::mm::munmap(start.as_ptr().cast(), len) };
    debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_words_address_says_its_id_and_outlives_the_board() {
        let board = Board::create().expect("memory");
        let word = board.word_for_ever(777);
        assert_eq!(ptr::from_ref(word).addr() / 8 % WORDS, 777);
        word.store(1, Relaxed);
        let again = Board::open(board.fd().expect("kept").try_clone_to_owned().expect("a descriptor"))
            .expect("it is one");
        assert_eq!(again.word(777).load(Relaxed), 1);
        assert_eq!(again.host_id(), board.host_id());
        drop(board);
        assert_eq!(word.load(Relaxed), 0, "the event is off");
        assert_eq!(again.word(777).load(Relaxed), 1, "for this process's other mapping it is not");
    }

    #[test]
    fn what_is_no_switchboard_is_refused() {
        let fd = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).expect("memory");
        assert!(Board::open(fd.try_clone().expect("a descriptor")).is_err(), "not sealed");
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).expect("it can be sealed");
        assert!(Board::open(fd.try_clone().expect("a descriptor")).is_err(), "too short");
        rustix::fs::ftruncate(&fd, LEN as u64).expect("it can grow");
        assert!(Board::open(fd.try_clone().expect("a descriptor")).is_err(), "no magic number");
        rustix::io::pwrite(&fd, &MAGIC.to_le_bytes(), 0).expect("it can be written");
        assert!(matches!(Board::open(fd), Err(MapError::Version { found: 0 })));
    }

    #[test]
    fn the_settings_saved_last_are_read() {
        let board = Board::create().expect("memory");
        assert_eq!(board.saved(), None);
        for text in ["", "a", "several words", "b"] {
            assert!(board.save(text.as_bytes()));
            assert_eq!(board.saved().as_deref(), Some(text.as_bytes()));
        }
        assert!(!board.save(&vec![0; SETTINGS_LEN]));
        board.head().settings.store(u64::MAX, Relaxed);
        let _ = board.saved();
    }

    #[test]
    fn the_log_of_formats_reads_back_as_far_as_it_makes_sense() {
        let board = Board::create().expect("memory");
        assert!(board.log_format(40, "app\none\nname: one\n") && board.log_format(41, "app\ntwo\n"));
        let read = board.formats();
        assert_eq!(read, [(40, "app\none\nname: one\n".to_owned()), (41, "app\ntwo\n".to_owned())]);
        board.head().formats_len.store(u64::MAX, Relaxed);
        assert!(board.formats().starts_with(&read));
        rustix::io::pwrite(board.fd().expect("it is kept"), &[0xff; 8], FORMATS_OFFSET as u64)
            .expect("it can be written");
        assert!(board.formats().is_empty());
        assert!(!board.log_format(42, "app\nthree\n"), "there is no room behind a length that cannot be");
    }

    /// Each thread that declares an event with a host looks there.
    #[test]
    fn a_forked_child_finds_boards_that_its_parents_threads_look_for() {
        let board = Arc::new(Board::create().expect("memory"));
        LISTS.change(|boards| boards.mapped.push(Arc::downgrade(&board)));
        let stop = AtomicBool::new(false);
        let failed = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        assert!(find(board.host_id()).is_some());
                    }
                });
            }
            let mut ended = (0..100).map(|_| in_forked(|| find(board.host_id()).is_some()));
            let failed = ended.find(|&status| status != 0);
            stop.store(true, Relaxed);
            failed
        });
        assert_eq!(failed, None, "a child waits for its parent's threads");
    }

    /// How a forked child ends that does this; by a signal, where it takes too long.
    fn in_forked(child: impl FnOnce() -> bool) -> i32 {
        // SAFETY: the child waits for no lock of the C library's, and ends here.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: ends the child later.
            unsafe { libc::alarm(10) };
            // SAFETY: ends it.
            unsafe { libc::_exit(i32::from(!child())) };
        }
        let mut status = -1;
        // SAFETY: it is our own child.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        status
    }
}
