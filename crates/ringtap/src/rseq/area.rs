//! The thread's rseq area: glibc's where it registered one, else our own.
//!
//! The kernel keeps the current CPU in the area and reads from it which section is running. A thread has at
//! most one. glibc since 2.35 registers it and publishes where it is; where it did not (musl, an older
//! glibc, `GLIBC_TUNABLES=glibc.pthread.rseq=0`), each thread registers its own at first use, unless the
//! environment switched rseq off.

use std::cell::{Cell, UnsafeCell};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Once, OnceLock};

/// The kernel's `struct rseq` (`include/uapi/linux/rseq.h`), as far as its first version goes.
#[repr(C, align(32))]
#[derive(Debug)]
pub(crate) struct Area {
    /// As `cpu_id`, but 0 while the area is not registered.
    cpu_id_start: AtomicU32,
    /// The CPU this thread runs on; more than any CPU number while the area is not registered.
    pub(crate) cpu_id: AtomicU32,
    /// Address of the running section's descriptor. Written by the sections' assembly.
    pub(crate) rseq_cs: UnsafeCell<u64>,
    flags: u32,
    reserved: [u32; 3],
}

/// `RSEQ_CPU_ID_UNINITIALIZED`: not registered yet.
const UNINITIALIZED: u32 = u32::MAX;
/// `RSEQ_FLAG_UNREGISTER`.
const UNREGISTER: libc::c_int = 1;
/// Bytes of the first version of `struct rseq`.
const AREA_LEN: u32 = 32;
/// The four bytes before an abort handler; the kernel refuses to jump anywhere else.
#[cfg(target_arch = "x86_64")]
pub(crate) const SIGNATURE: u32 = 0x5305_3053;
#[cfg(target_arch = "aarch64")]
pub(crate) const SIGNATURE: u32 = 0xd428_bc00;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) const SIGNATURE: u32 = 0;

const _: () = {
    assert!(size_of::<Area>() == AREA_LEN as usize);
    // The hot path loads both in one word.
    assert!(std::mem::offset_of!(Area, cpu_id_start) == 0 && std::mem::offset_of!(Area, cpu_id) == 4);
};

impl Area {
    pub(crate) const fn unregistered() -> Self {
        Self {
            cpu_id_start: AtomicU32::new(0),
            cpu_id: AtomicU32::new(UNINITIALIZED),
            rseq_cs: UnsafeCell::new(0),
            flags: 0,
            reserved: [0; 3],
        }
    }

    /// The CPU that this thread runs on now; it may have left it when the caller looks at the answer.
    #[inline(always)]
    pub(crate) fn cpu(&self) -> u32 {
        // Relaxed: the kernel stores it on this very thread.
        self.cpu_id.load(Relaxed)
    }

    /// The calling thread's area; `None` where it has none and cannot get one.
    #[inline(always)]
    pub(crate) fn of_thread() -> Option<&'static Self> {
        match AREA.get() {
            // SAFETY: the area is the calling thread's own: it lives as long as the thread, and the reference
            // does not leave it, because `Area` is not `Sync`.
            Some(area) => Some(unsafe { area.as_ref() }),
            None => find(),
        }
    }
}

thread_local! {
    /// Where this thread's area is, once found. No destructor: a signal handler may be the first to look.
    static AREA: Cell<Option<NonNull<Area>>> = const { Cell::new(None) };
    /// Set once looking was in vain, so that it is not tried with each event.
    static MISSING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this process's threads can run sections at all; the calling thread is the example.
pub(crate) fn available() -> bool {
    stay_loaded();
    KEY.get_or_init(make_key);
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) && Area::of_thread().is_some()
}

/// Keeps the library that this code is in from being unloaded.
///
/// A thread's area names the section that ran last until the kernel next looks at it. Were its descriptor unmapped
/// then, by `dlclose`, the kernel would kill the process. Threads of the library's own and hooks of its end or of forks
/// would run into what is no more.
pub(crate) fn stay_loaded() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: looks an address up, and writes to `info` alone.
        let found = unsafe { libc::dladdr((stay_loaded as fn()) as *const libc::c_void, info.as_mut_ptr()) };
        // SAFETY: zeros are valid: they are null pointers.
        let name = unsafe { info.assume_init() }.dli_fname;
        if found != 0 && !name.is_null() {
            // The handle is kept for ever. For a program this finds nothing, and there is nothing to do.
            // SAFETY: `name` is a string; nothing is loaded that was not.
            unsafe { libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
        }
    });
}

#[cold]
fn find() -> Option<&'static Area> {
    if MISSING.get() {
        return None;
    }
    let area = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        libc_area().or_else(own_area)
    } else {
        None
    };
    match area {
        Some(area) => AREA.set(Some(area)),
        None => MISSING.set(true),
    }
    // SAFETY: as in `of_thread`.
    area.map(|area| unsafe { area.as_ref() })
}

/// Offset of glibc's areas from the thread pointer; `None` where glibc registered none.
fn libc_offset() -> Option<isize> {
    static OFFSET: OnceLock<Option<isize>> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let (offset, size) = (symbol(c"__rseq_offset")?, symbol(c"__rseq_size")?);
        // SAFETY: glibc defines it as `const unsigned int`.
        let size = unsafe { size.cast::<u32>().read() };
        // SAFETY: glibc defines it as `const ptrdiff_t`.
        let offset = unsafe { offset.cast::<isize>().read() };
        // 0 where it did not register. glibc 2.36 says 20, the bytes in use: `rseq_cs` is among them.
        (size >= 20).then_some(offset)
    })
}

fn symbol(name: &CStr) -> Option<NonNull<libc::c_void>> {
    // SAFETY: a look-up by name in what is already loaded.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

fn libc_area() -> Option<NonNull<Area>> {
    let area = NonNull::new(thread_pointer().wrapping_offset(libc_offset()?).cast::<Area>())?;
    // SAFETY: glibc says that the thread's area is there.
    let cpu = unsafe { area.as_ref() }.cpu();
    // Its registration may have failed for this thread: the CPU is then a small negative number.
    (cpu.cast_signed() >= 0).then_some(area)
}

#[cfg(target_arch = "x86_64")]
fn thread_pointer() -> *mut u8 {
    let pointer;
    // SAFETY: the x86-64 ABI keeps the thread pointer in the first word that it points to.
    unsafe {
        std::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, readonly, preserves_flags, pure))
    };
    pointer
}

#[cfg(target_arch = "aarch64")]
fn thread_pointer() -> *mut u8 {
    let pointer;
    // SAFETY: reads a register.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nomem, nostack, preserves_flags, pure))
    };
    pointer
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn thread_pointer() -> *mut u8 {
    std::ptr::null_mut()
}

thread_local! {
    /// An area of our own. No destructor, whose registration would allocate: see [`KEY`].
    static OWN: UnsafeCell<Area> = const { UnsafeCell::new(Area::unregistered()) };
}

/// Has threads take their areas back from the kernel when they end; made by [`available`], before any thread needs it.
/// `None` where nobody is to have an area of ours.
static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

/// Values of later keys lie in memory that glibc allocates when a thread first has one.
const KEYS_WITHOUT_ALLOCATION: libc::pthread_key_t = 32;

fn make_key() -> Option<libc::pthread_key_t> {
    if libc_offset().is_some() || switched_off() {
        return None;
    }
    let mut key = 0;
    // SAFETY: the destructor stays loaded; see `take_back`.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(take_back)) } != 0 {
        return None;
    }
    if cfg!(target_env = "gnu") && key >= KEYS_WITHOUT_ALLOCATION {
        // A signal handler may be the first to need it. Without it, writers take the lock.
        // SAFETY: no thread has a value.
        unsafe { libc::pthread_key_delete(key) };
        return None;
    }
    Some(key)
}

/// The thread ends: the kernel writes to a registered area whenever it resumes the thread, and this one goes now.
extern "C" fn take_back(area: *mut libc::c_void) {
    AREA.set(None);
    MISSING.set(true);
    let _ = register(area.cast(), UNREGISTER);
}

/// The user's switch: with it off nobody has an area, and every buffer's writers take the lock.
fn switched_off() -> bool {
    static OFF: OnceLock<bool> = OnceLock::new();
    *OFF.get_or_init(|| {
        std::env::var("GLIBC_TUNABLES").is_ok_and(|tunables| tunables.contains("glibc.pthread.rseq=0"))
    })
}

fn own_area() -> Option<NonNull<Area>> {
    let key = (*KEY.get()?)?;
    let area = OWN.with(UnsafeCell::get);
    // First, so that a registered area is always taken back. To take back one that is not does nothing.
    // SAFETY: the key was made for this, and is never deleted.
    if unsafe { libc::pthread_setspecific(key, area.cast()) } != 0 || !register(area, 0) {
        return None;
    }
    NonNull::new(area)
}

/// Gives the calling thread an area that nobody registered, and writes `cpu` into it; `false` where the thread has
/// one already. See [`crate::pretend_rseq_for_counting`].
pub(crate) fn pretend(cpu: u32) -> bool {
    if Area::of_thread().is_some() {
        return false;
    }
    OWN.with(|own| {
        // SAFETY: the thread's own, and valid; nobody refers to it while the thread has no area.
        let area = unsafe { &*own.get() };
        area.cpu_id_start.store(cpu, Relaxed);
        area.cpu_id.store(cpu, Relaxed);
        AREA.set(Some(NonNull::from(area)));
    });
    true
}

fn register(area: *mut Area, flags: libc::c_int) -> bool {
    // SAFETY: the area is 32 bytes, aligned, and lives until its owner unregisters it.
    unsafe { libc::syscall(libc::SYS_rseq, area, AREA_LEN, flags, SIGNATURE) == 0 }
}
