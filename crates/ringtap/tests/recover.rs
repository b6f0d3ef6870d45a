//! Persistent buffers: what a killed host's files hold, whole and damaged.

use ringtap::recover::{self, Reason, RecoverError, Recovered, Step};
use ringtap::{Config, Host, Item, Start};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A directory of this test's own, removed in the end. One test at a time has one: a forked child inherits the lock of
/// every host.
#[expect(dead_code, reason = "held")]
struct Folder(PathBuf, MutexGuard<'static, ()>);

static TURN: Mutex<()> = Mutex::new(());

impl Folder {
    fn new(name: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let path = std::env::temp_dir().join(format!("ringtap-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path, turn)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(folder: &Path, ring_subbufs: u32) -> Config {
    Config { ring_subbufs, directory: Some(folder.to_owned()), ..Config::default() }
}

/// Records, losses, and the events' own numbers.
fn take(recovered: &Recovered<'_>, all: bool, mut each: impl FnMut(&[u8])) -> (u64, u64) {
    let (mut records, mut lost, mut before) = (0, 0, 0);
    recovered.steps(all, |step| match step {
        Step::Record { ticks, payload } => {
            assert!(ticks >= before, "time goes backwards");
            before = ticks;
            records += 1;
            each(payload);
        }
        Step::Lost(count) => lost += count,
    });
    (records, lost)
}

fn number(payload: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"))
}

const FORMAT: &str = "name: tick\nID: 0\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
    \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
    \tfield:u64 count;\toffset:8;\tsize:8;\tsigned:0;\n\nprint fmt: \"count=%llu\", REC->count\n";

#[test]
fn everything_up_to_the_last_commit_survives_the_death_of_all() {
    let protection = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: a new mapping.
    let counts = unsafe {
        rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, protection, rustix::mm::MapFlags::SHARED)
    };
    // SAFETY: zeroed, aligned and never unmapped.
    let counts = unsafe { std::slice::from_raw_parts(counts.expect("memory").cast::<AtomicU64>(), 4) };
    let folder = Folder::new("recover");
    for round in 0..6u32 {
        counts.iter().for_each(|count| count.store(0, Relaxed));
        let config = config(&folder.0, [2, 8, 300][round as usize % 3]);
        // SAFETY: the child makes a host and writes; it never comes back from here.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let host = Host::new(&config).expect("the directory can be written");
            host.register_event("app", "tick", FORMAT).expect("a good format");
            let writer = host.writer();
            for (id, count) in counts[1..].iter().enumerate() {
                let writer = writer.clone();
                std::thread::spawn(move || {
                    let mut payload = [0; 24];
                    payload[..8].copy_from_slice(&(id as u64).to_le_bytes());
                    loop {
                        payload[8..16].copy_from_slice(&count.load(Relaxed).to_le_bytes());
                        if writer.write_array(&payload).is_ok() {
                            count.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            counts[0].store(1, Relaxed);
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
        while counts[1].load(Relaxed) < 20_000 {
            std::thread::yield_now();
        }
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(child, libc::SIGKILL) };
        // SAFETY: as above.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };

        let found = recover::find(&folder.0).expect("it is there");
        assert!(found.events.iter().any(|event| event.name == "tick" && event.format.contains("count=%llu")));
        let (mut kept, mut missing) = (0, 0);
        let mut newest: HashMap<u64, u64> = HashMap::new();
        for path in &found.buffers {
            let bytes = fs::read(path).expect("it can be read");
            let recovered = Recovered::new(&bytes).expect("it is a buffer");
            assert_eq!(recovered.damaged(), [], "{}", path.display());
            let (records, lost) = take(&recovered, false, |payload| {
                let newest = newest.entry(number(payload, 0)).or_default();
                *newest = number(payload, 8).max(*newest);
            });
            kept += records;
            missing += lost;
        }
        // Each thread's last event may have been committed and not yet counted.
        let written: u64 = counts[1..].iter().map(|count| count.load(Relaxed)).sum();
        assert!((written..=written + 3).contains(&(kept + missing)), "{kept} + {missing}, {written} written");
        assert!(kept > 0);
        for (id, count) in counts[1..].iter().enumerate().filter(|(_, count)| count.load(Relaxed) > 0) {
            if let Some(&newest) = newest.get(&(id as u64)) {
                assert!(newest <= count.load(Relaxed));
            }
        }
        println!("round {round}: {kept} kept, {missing} overwritten");
    }
}

#[test]
fn a_damaged_page_is_named_and_the_others_are_kept() {
    let folder = Folder::new("damage");
    let host = Host::new(&config(&folder.0, 8)).expect("the directory can be written");
    let writer = host.writer();
    for index in 0u64..2000 {
        writer.write(&[index.to_le_bytes(); 3].concat()).expect("recording is on");
    }
    let cpu =
        host.cpus().into_iter().max_by_key(|&cpu| host.stats(cpu).expect("it counts").entries).expect("one");
    let mut cursor = host.cursor(cpu, Start::Oldest).expect("files of one's own can be mapped");
    assert!(matches!(cursor.next(), Ok(Some(Item::Record(_) | Item::Lost(_)))));
    let busy = Host::new(&config(&folder.0, 8)).expect_err("there is one");
    assert!(busy.to_string().contains("in use by another host"), "{busy}");
    assert!(host.set_size(None, 20).expect_err("they are files").to_string().contains("persistent"));
    let path = folder.0.join(format!("cpu{cpu}"));
    drop((cursor, writer, host));
    let whole = fs::read(&path).expect("it is there");
    let count = |bytes: &[u8]| {
        let recovered = Recovered::new(bytes).expect("it is a buffer");
        let (records, lost) = take(&recovered, false, |_| {});
        (records, lost, recovered.damaged().to_vec(), recovered.kept())
    };
    let (records, lost, damaged, kept) = count(&whole);
    assert_eq!(damaged, []);
    let mut bytes = whole.clone();
    // A record's header, in the third sub-buffer.
    let page = 4096 + 3 * 4096;
    bytes[page + 16..page + 20].copy_from_slice(&[0; 4]);
    let (fewer, more, damaged, _) = count(&bytes);
    assert_eq!((fewer + more, damaged.len(), damaged[0].offset), (records + lost, 1, page as u64));
    assert!(matches!(damaged[0].reason, Reason::Record(_)), "{damaged:?}");
    assert!(fewer < records && fewer > 0);
    // A file that was cut off.
    let (fewer, _, damaged, left) = count(&whole[..page + 100]);
    assert!(
        fewer < records
            && left + damaged.len() == kept
            && damaged.iter().all(|page| page.reason == Reason::CutOff)
    );
    assert!(matches!(Recovered::new(&whole[..4000]), Err(RecoverError::Short { .. })));
    assert!(matches!(Recovered::new(&[0; 8192]), Err(RecoverError::Foreign)));

    // The next host keeps what the last one left.
    let next = Host::new(&config(&folder.0, 2)).expect("nobody has it");
    assert_eq!(fs::read(folder.0.join("last").join(format!("cpu{cpu}"))).expect("it was moved"), whole);
    drop(next);

    // No bytes lead astray.
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..2000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random % 8 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let limit = if random & 1 == 0 { 1024 } else { bytes.len() };
            let at = (random >> 16) as usize % limit;
            bytes[at] ^= random.to_le_bytes()[1];
        }
        recover::check_recover(&bytes);
    }
}

#[test]
fn what_is_missing_is_told_where_a_page_has_no_room_for_it() {
    const EVENTS: u64 = 4000;
    let folder = Folder::new("no-room");
    let host = Host::new(&config(&folder.0, 4)).expect("the directory can be written");
    let cpus = host.cpus();
    let writer = host.writer();
    // With its header an event takes 20 bytes, of which 204 fill a sub-buffer to its last byte.
    (0..EVENTS).for_each(|_| assert!(writer.write_array(&[0u8; 16]).is_ok(), "recording is on"));
    drop((writer, host));
    let (mut events, mut lost, mut full) = (0, 0, 0);
    for cpu in cpus {
        let bytes = fs::read(folder.0.join(format!("cpu{cpu}"))).expect("it is there");
        let recovered = Recovered::new(&bytes).expect("it is a buffer");
        events += recovered.pages(0, |page| {
            lost += page.lost;
            let commit = u64::from_le_bytes(page.bytes[8..16].try_into().expect("eight bytes"));
            // Told, but not how many.
            full += u32::from(page.lost > 0 && commit & (1 << 31) != 0 && commit & (1 << 30) == 0);
        });
    }
    assert_eq!(events + lost, EVENTS);
    assert!(full > 0, "a page was full, and had losses before it");
}

#[test]
fn a_full_disk_is_told_when_the_buffer_is_made() {
    let folder = Folder::new("full");
    fs::create_dir(&folder.0).expect("there is room for a folder");
    let target = std::ffi::CString::new(folder.0.to_str().expect("plain")).expect("no zeros");
    // SAFETY: mounts a small file system at this test's own folder.
    let mounted = unsafe {
        libc::mount(c"none".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=256k".as_ptr().cast())
    };
    if mounted != 0 {
        return println!("skipped: no permission to mount a small tmpfs");
    }
    let error = Host::new(&config(&folder.0, 500)).expect_err("it is too small");
    let left: Vec<_> = fs::read_dir(&folder.0).expect("it is there").collect();
    // SAFETY: takes away what was mounted above.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    assert!(error.to_string().contains("no room for"), "{error}");
    assert!(left.is_empty(), "{left:?}");
}
