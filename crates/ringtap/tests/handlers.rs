//! Signal handlers write events: on a stack of a few KiB, as their thread's first ones, and without an allocation of
//! the C library's.

mod attach_common;

use attach_common::{Other, role, say};
use ringtap::rules::{Action, Rules, Trigger};
use ringtap::{Config, Host, Instances, Writer};
use std::cell::Cell;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

ringtap::event! {
    /// What handlers write.
    pub struct Caught as handlers:caught { signal: u32 }
}

thread_local! {
    /// Calls of the C library's allocator by this thread.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The C library takes these for its own: it allocates what destructors of thread-locals need.
#[cfg(target_env = "gnu")]
mod allocator {
    use super::ALLOCATIONS;

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut libc::c_void;
        fn __libc_calloc(count: usize, size: usize) -> *mut libc::c_void;
    }

    #[unsafe(no_mangle)]
    extern "C" fn malloc(size: usize) -> *mut libc::c_void {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: it is the C library's own.
        unsafe { __libc_malloc(size) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn calloc(count: usize, size: usize) -> *mut libc::c_void {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { __libc_calloc(count, size) }
    }
}

static WRITER: OnceLock<Writer> = OnceLock::new();
static ALLOCATED: AtomicU64 = AtomicU64::new(u64::MAX);

extern "C" fn write_and_count(signal: libc::c_int) {
    let before = ALLOCATIONS.get();
    if let Some(writer) = WRITER.get() {
        Caught { signal: signal.unsigned_abs() }.write(writer);
    }
    ALLOCATED.store(ALLOCATIONS.get() - before, Relaxed);
}

fn handle(signal: libc::c_int, flags: libc::c_int) {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = write_and_count as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = flags;
    // SAFETY: the handler does what handlers may.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) }, 0);
}

fn raise(signal: libc::c_int) {
    // SAFETY: the handler is there.
    unsafe { libc::raise(signal) };
}

/// Whether the kernel refuses this thread a sequence area, since it has one.
fn has_area() -> bool {
    #[repr(C, align(32))]
    struct Area([u32; 8]);
    let mut area = Area([0, u32::MAX, 0, 0, 0, 0, 0, 0]);
    // SAFETY: the area is large enough, and taken back at once where the kernel takes it.
    let refused = unsafe { libc::syscall(libc::SYS_rseq, &raw mut area, 32, 0, 0x5305_3053) } != 0;
    if !refused {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_rseq, &raw mut area, 32, 1, 0x5305_3053) };
    }
    refused
}

/// What the other processes do.
#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let (role, _) = role();
    match role.as_str() {
        "no area of the C library's" => areas_of_our_own(),
        "small stack" => small_stack(),
        other => panic!("no role {other}"),
    }
}

fn areas_of_our_own() {
    if has_area() {
        return say("the C library registers its areas all the same");
    }
    let host = Host::new(&Config { ring_subbufs: 4, ..Config::default() }).expect("memory");
    Caught::register(&host).expect("nothing refuses it");
    WRITER.set(host.writer()).expect("once");
    handle(libc::SIGUSR1, 0);
    for _ in 0..3 {
        let first = std::thread::spawn(|| {
            assert!(!has_area(), "it has written nothing yet");
            raise(libc::SIGUSR1);
            assert_eq!(ALLOCATED.load(Relaxed), 0, "in the handler");
            has_area()
        });
        assert!(first.join().expect("no panic"), "its handler gave it one");
    }
    let written: u64 = host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is sound").written()).sum();
    say(format!("{written} events"));
}

#[test]
fn a_threads_first_event_in_a_handler_allocates_nothing_where_the_libc_has_no_areas() {
    if !cfg!(all(target_env = "gnu", target_arch = "x86_64")) {
        return println!("skipped: it is about glibc on x86-64");
    }
    // Spelled so that glibc switches its areas off, and ringtap does not take it for a wish to have none.
    let tunables = ("GLIBC_TUNABLES", "glibc.pthread.rseq=+0");
    let mut other = Other::start_with("no area of the C library's", Path::new(""), &[tunables]);
    let said = other.hear().expect("it answers");
    if said.starts_with("the C library") {
        return println!("skipped: {said}");
    }
    assert_eq!(said, "3 events");
    other.finish();
}

/// What `SIGSTKSZ` was for decades.
const STACK: usize = 8192;

/// A stack for handlers with nothing below it; its lowest byte's address.
fn alternate_stack() -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory.
    let memory = unsafe { libc::mmap(ptr::null_mut(), 4096 + STACK, protection, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    // SAFETY: the memory is ours.
    assert_eq!(unsafe { libc::mprotect(memory, 4096, libc::PROT_NONE) }, 0);
    let start = memory.cast::<u8>().wrapping_add(4096);
    let stack = libc::stack_t { ss_sp: start.cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: the stack is there, for ever.
    assert_eq!(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) }, 0);
    start
}

fn small_stack() {
    let instances = Instances::new(&Config { ring_subbufs: 4, ..Config::default() }).expect("memory");
    let id = Caught::register(&instances).expect("nothing refuses it");
    let top = instances.top();
    top.set_event(id, true);
    let does = |action| Trigger { action, counter: None, filter: None, is_paused: false };
    let triggers = vec![does(Action::Stacktrace), does(Action::TraceOn), does(Action::Snapshot)];
    top.set_rules(id, Rules { filter: None, triggers }).expect("there is room");
    WRITER.set(instances.writer()).expect("once");
    handle(libc::SIGUSR1, libc::SA_ONSTACK);
    let stack = alternate_stack();
    for _ in 0..200 {
        raise(libc::SIGUSR1);
    }
    // SAFETY: the stack's bytes, of which nobody uses any now.
    let unused = (0..STACK).take_while(|&at| unsafe { stack.wrapping_add(at).read_volatile() } == 0).count();
    println!("{} bytes of {STACK} were used", STACK - unused);
    assert_eq!(ALLOCATED.load(Relaxed), 0);
    let host = top.host();
    let written: u64 = host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is sound").written()).sum();
    say(written);
}

#[test]
fn triggers_act_in_a_handler_on_a_stack_of_8_kib() {
    let mut other = Other::start("small stack", Path::new(""));
    // The event and its stack, each time.
    other.expect("400");
    other.finish();
}
