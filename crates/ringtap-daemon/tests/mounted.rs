//! The tree, mounted: what clients can do with `trace_pipe_raw`, and what they cannot.

mod mounts;

use mounts::{Mounted, drain, events_of, mounted, mounted_with, on_cpu_0, write_markers};
use ringtap::Reader;
use ringtap::clock::ClockId;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use std::fs;

fn reader(mounted: &Mounted) -> Reader {
    Reader::open_kernel(mounted.open_raw(OFlags::RDONLY).unwrap(), 0, ClockId::Mono).unwrap()
}

fn polled(raw: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(raw, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

#[test]
fn nobody_gets_write_access_to_the_memory() {
    let Some(mounted) = mounted(64) else { return };
    for flags in [OFlags::RDWR, OFlags::WRONLY, OFlags::RDWR | OFlags::TRUNC] {
        assert_eq!(mounted.open_raw(flags).unwrap_err(), Errno::ACCESS, "{flags:?}");
    }
    let raw = mounted.open_raw(OFlags::RDONLY).unwrap();
    let again = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&raw));
    assert_eq!(rustix::fs::open(again, OFlags::RDWR, Mode::empty()).unwrap_err(), Errno::ACCESS);
}

#[test]
fn reads_follow_the_kernels_rules() {
    let Some(mounted) = mounted(64) else { return };
    on_cpu_0();
    let raw = mounted.open_raw(OFlags::RDONLY | OFlags::NONBLOCK).unwrap();
    let read = |len: usize| {
        let mut bytes = vec![0xee; len];
        rustix::io::read(&raw, &mut bytes[..]).map(|read| bytes[..read].to_vec())
    };
    assert_eq!(read(4096), Err(Errno::AGAIN));
    // Each takes 32 bytes.
    write_markers(&mounted, 0..3);
    assert_eq!(read(16 + 31), Ok(Vec::new()), "no room for the first");
    let part = read(16 + 32 + 5).unwrap();
    assert_eq!((part.len(), events_of(&part)), (53, vec![0]));
    let zeros = read(65536).unwrap();
    assert_eq!((zeros.len(), zeros.iter().all(|&byte| byte == 0)), (4096 - 53, true));
    let rest = read(65536).unwrap();
    assert_eq!((rest.len(), events_of(&rest)), (4096, vec![1, 2]));
    assert_eq!(read(4096), Err(Errno::AGAIN));
}

#[test]
fn poll_obeys_buffer_percent() {
    let Some(mounted) = mounted(64) else { return };
    on_cpu_0();
    let raw = mounted.open_raw(OFlags::RDONLY).unwrap();
    let percent = |percent: &str| fs::write(mounted.path("buffer_percent"), percent).unwrap();
    percent("50");
    write_markers(&mounted, 0..1);
    assert!(!polled(&raw), "one event is not half of the buffer");
    percent("0");
    assert!(polled(&raw));
    percent("50");
    // 127 to a sub-buffer, 17 sub-buffers.
    write_markers(&mounted, 1..127 * 6);
    assert!(!polled(&raw));
    write_markers(&mounted, 127 * 6..127 * 10);
    assert!(polled(&raw));
}

#[test]
fn splices_and_reads_together_bring_each_event_once() {
    let Some(mounted) = mounted(256) else { return };
    on_cpu_0();
    let raw = mounted.open_raw(OFlags::RDONLY).unwrap();
    let (out, into) = rustix::pipe::pipe().unwrap();
    let (mut seen, mut spliced, mut written) = (Vec::new(), 0, 0);
    for round in 0..60u64 {
        let more = 100 + round * 97 % 1500;
        write_markers(&mounted, written..written + more);
        written += more;
        if polled(&raw) && round % 5 != 4 {
            let len = rustix::pipe::splice(&raw, None, &into, None, 65536, SpliceFlags::MOVE).unwrap();
            let mut bytes = vec![0; len];
            for part in bytes.chunks_mut(4096) {
                assert_eq!(rustix::io::read(&out, &mut *part).unwrap(), 4096, "whole sub-buffers only");
                seen.extend(events_of(part));
                spliced += 1;
            }
        } else if round % 5 == 4 {
            // One that was pushed for the splice that did not come, or else a fresh one.
            let mut page = [0; 4096];
            assert_eq!(rustix::io::read(&raw, &mut page).unwrap(), 4096);
            seen.extend(events_of(&page));
        }
    }
    seen.extend(drain(&raw));
    assert!(spliced > 50, "{spliced}");
    assert_eq!(seen, (0..written).collect::<Vec<_>>());
}

#[test]
fn what_is_mapped_cannot_be_resized() {
    let Some(mounted) = mounted(64) else { return };
    let resize = |size: &str| {
        let written = fs::write(mounted.path("buffer_size_kb"), size);
        written.map_err(|error| error.raw_os_error())
    };
    let busy = Err(Some(Errno::BUSY.raw_os_error()));
    let first = mounted.open_raw(OFlags::RDONLY).unwrap();
    assert_eq!(resize("100"), Ok(()), "open is not mapped");
    let mapped = reader(&mounted);
    assert_eq!(resize("64"), busy);
    assert_eq!(fs::write(mounted.path("buffer_subbuf_size_kb"), "8").map_err(|e| e.raw_os_error()), busy);
    let snapshot =
        |file: &str, command| fs::write(mounted.path(file), command).map_err(|error| error.raw_os_error());
    let files = ["snapshot", "per_cpu/cpu0/snapshot"];
    files.iter().for_each(|file| assert_eq!(snapshot(file, "1"), busy, "{file}"));
    drop(first);
    assert_eq!(resize("64"), busy);
    drop(mapped);
    files.iter().for_each(|file| assert_eq!(snapshot(file, "1"), Ok(()), "{file}"));
    assert_eq!(resize("64"), Ok(()));
}

#[test]
fn snapshots_of_persistent_buffers_are_taken_unless_somebody_maps_them() {
    let files = std::env::temp_dir().join(format!("ringtap-mounted-files-{}", std::process::id()));
    if let Some(mounted) = mounted_with(64, Some(&files)) {
        let snapshot =
            || fs::write(mounted.path("snapshot"), "1").map_err(|error| error.raw_os_error().unwrap());
        assert_eq!(snapshot(), Ok(()), "its host alone has the files open");
        let mapped = reader(&mounted);
        assert_eq!(snapshot(), Err(Errno::BUSY.raw_os_error()));
        drop(mapped);
        assert_eq!(snapshot(), Ok(()));
    }
    fs::remove_dir_all(&files).unwrap();
}

/// The meta-page of CPU 0's buffer, mapped as the kernel's map_test does it.
struct Meta {
    raw: OwnedFd,
    at: *const u8,
    len: usize,
}

impl Meta {
    fn map(mounted: &Mounted) -> Self {
        let raw = mounted.open_raw(OFlags::RDONLY | OFlags::NONBLOCK).unwrap();
        let (protection, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
        let map = |len| {
            // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, &raw, 0) }.unwrap().cast()
        };
        let mut meta = Self { at: map(4096), len: 4096, raw };
        let len = meta.word(META_PAGE_SIZE);
        if len > 4096 {
            // The whole of it, beside the first page, which is dropped.
            let raw = meta.raw.try_clone().unwrap();
            // SAFETY: as above.
            let at =
                unsafe { rustix::mm::mmap(std::ptr::null_mut(), len as usize, protection, flags, &raw, 0) };
            drop(std::mem::replace(
                &mut meta,
                Self { at: at.unwrap().cast_const().cast(), len: len as usize, raw },
            ));
        }
        meta
    }

    fn word(&self, offset: usize) -> u32 {
        assert!(offset + 4 <= self.len);
        // SAFETY: within the mapping, as asserted.
        let word = unsafe { self.at.add(offset) }.cast::<std::sync::atomic::AtomicU32>();
        // SAFETY: the mapping lives as long as this does, and others write there as to an atomic.
        unsafe { &*word }.load(std::sync::atomic::Ordering::Acquire)
    }

    fn get_reader(&self) {
        // SAFETY: the command takes no argument; what it changes is read as atomics.
        let done = unsafe { libc::ioctl(rustix::fd::AsRawFd::as_raw_fd(&self.raw), 0x5220) };
        assert_eq!(done, 0);
    }

    /// Reader's page and bytes read of it; events in the buffer, read, and overwritten.
    fn state(&self) -> [u32; 5] {
        [READER_ID, READER_READ, ENTRIES, READ, OVERRUN].map(|offset| self.word(offset))
    }
}

impl Drop for Meta {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`, and nobody refers to it.
        unsafe { rustix::mm::munmap(self.at.cast_mut().cast(), self.len) }.unwrap();
    }
}

/// Places in `struct trace_buffer_meta`.
const META_PAGE_SIZE: usize = 0;
const SUBBUF_SIZE: usize = 8;
const READER_ID: usize = 24;
const READER_READ: usize = 28;
const ENTRIES: usize = 40;
const OVERRUN: usize = 48;
const READ: usize = 56;

#[test]
fn ids_begin_at_0_as_the_kernels_map_test_wants_it() {
    let Some(mounted) = mounted(64) else { return };
    on_cpu_0();
    for kib in ["4", "8", "4"] {
        fs::write(mounted.path("buffer_subbuf_size_kb"), kib).unwrap();
        fs::File::create(mounted.path("trace")).unwrap();
        let meta = Meta::map(&mounted);
        let size = kib.parse::<u32>().unwrap() * 1024;
        assert_eq!([META_PAGE_SIZE, SUBBUF_SIZE].map(|offset| meta.word(offset)), [size; 2]);
        assert_eq!(meta.state(), [0; 5]);
        meta.get_reader();
        assert_eq!(meta.state(), [0; 5], "nothing new, the same page");
        fs::write(mounted.path("trace_marker"), "16").unwrap();
        meta.get_reader();
        // Four bytes of head, eight common ones, the address, and "16\n" with its NUL.
        assert_eq!(meta.state(), [1, 24, 1, 1, 0]);
        assert_eq!(u32::try_from(meta.len), Ok(size));
        assert!((4096..meta.len).step_by(4).all(|at| meta.word(at) == 0), "zeros behind the first 4 KiB");
    }
}

#[test]
fn a_mapping_outlives_its_file_and_holds_the_instance() {
    let Some(mounted) = mounted(64) else { return };
    let instance = mounted.path("instances/held");
    fs::create_dir(&instance).unwrap();
    let raw = instance.join("per_cpu/cpu0/trace_pipe_raw");
    let raw = rustix::fs::open(raw, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let (protection, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let mapped = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, protection, flags, &raw, 0) }.unwrap();
    drop(raw);
    let remove = || fs::remove_dir(&instance).map_err(|error| error.raw_os_error());
    let resize = || fs::write(instance.join("buffer_size_kb"), "32").map_err(|error| error.raw_os_error());
    let busy = Err(Some(Errno::BUSY.raw_os_error()));
    assert_eq!((remove(), resize()), (busy, busy));
    // SAFETY: mapped above, and nobody refers to it.
    unsafe { rustix::mm::munmap(mapped, 4096) }.unwrap();
    assert_eq!((resize(), remove()), (Ok(()), Ok(())));
}

/// What a client that waits is told: how, and in which file.
const WAITER: &str = "RINGTAP_TEST_WAITER";

/// A client that waits for events that never come.
#[test]
#[ignore = "started by the other tests"]
fn waiter() {
    let task = std::env::var(WAITER).unwrap();
    let (how, path) = task.split_once(' ').unwrap();
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    match how {
        "read" => drop(rustix::io::read(&file, &mut [0; 4096])),
        "poll" => drop(rustix::event::poll(&mut [PollFd::new(&file, PollFlags::IN)], None)),
        _ => {
            let (protection, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
            // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, protection, flags, &file, 0) }.unwrap();
            // SAFETY: the command takes no argument; nobody looks at the mapping.
            unsafe { libc::ioctl(rustix::fd::AsRawFd::as_raw_fd(&file), 0x5220) };
        }
    }
    panic!("it came back");
}

#[test]
fn who_waits_can_be_ended() {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(mounted) = mounted(64) else { return };
    let mount = mounted.mount.as_ref().unwrap();
    let until = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !is_so() {
            assert!(std::time::Instant::now() < end, "in vain: {what}: {:?}", mount.held());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    };
    for (how, file) in [
        ("read", "trace_pipe"),
        ("read", "per_cpu/cpu0/trace_pipe"),
        ("read", "per_cpu/cpu0/trace_pipe_raw"),
        ("get_reader", "per_cpu/cpu0/trace_pipe_raw"),
        ("poll", "per_cpu/cpu0/trace_pipe_raw"),
        ("poll", "trace_pipe"),
    ] {
        for signal in [Signal::KILL, Signal::TERM] {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["waiter", "--exact", "--ignored"]).stdout(std::process::Stdio::null());
            command.env(WAITER, format!("{how} {}", mounted.path(file).display()));
            let mut client = command.spawn().unwrap();
            until(file, &mut || mount.held().waiting == 1);
            kill_process(Pid::from_child(&client), signal).unwrap();
            until(how, &mut || client.try_wait().unwrap().is_some());
            let status = client.wait().unwrap();
            let ended_by = std::os::unix::process::ExitStatusExt::signal(&status);
            assert_eq!(ended_by, Some(signal.as_raw()), "{how} of {file}");
            until("nothing is left", &mut || mount.held().waiting + mount.held().files == 0);
        }
    }
}

#[test]
fn who_reads_mapped_sees_what_the_writers_write() {
    let Some(mounted) = mounted(64) else { return };
    on_cpu_0();
    let mut mapped = reader(&mounted);
    write_markers(&mounted, 0..1000);
    let mut count = 0;
    while let Some(item) = mapped.next().unwrap() {
        assert!(matches!(item, ringtap::Item::Record(_)), "{item:?}");
        count += 1;
    }
    assert_eq!(count, 1000);
    // Meanwhile nobody else consumes what it was given.
    let raw = mounted.open_raw(OFlags::RDONLY).unwrap();
    write_markers(&mounted, 1000..1010);
    assert_eq!(drain(&raw), (1000..1010).collect::<Vec<_>>());
}

#[test]
fn what_takes_long_delays_nobody_else() {
    // A snapshot of this takes milliseconds.
    let Some(mounted) = mounted(16 << 10) else { return };
    let writer = mounted.instances.writer();
    for _ in 0..16 << 10 {
        writer.write(&[7; 1000]).unwrap();
    }
    let is_on = fs::File::open(mounted.path("tracing_on")).unwrap();
    let most = (0..50).map(|_| {
        let is_taken = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                fs::write(mounted.path("snapshot"), "1").unwrap();
                is_taken.store(true, std::sync::atomic::Ordering::Release);
            });
            let mut reads = 0;
            while !is_taken.load(std::sync::atomic::Ordering::Acquire) {
                std::os::unix::fs::FileExt::read_at(&is_on, &mut [0; 8], 0).unwrap();
                reads += 1;
            }
            reads
        })
    });
    // One thread alone would answer a few, before it begins with the snapshot.
    assert!(most.clone().any(|reads| reads > 20), "{:?}", most.collect::<Vec<_>>());
}

/// Reads every file that can be read and does not consume; how many there are.
fn read_all(directory: &std::path::Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            files += read_all(&entry.path());
        } else if !name.to_string_lossy().starts_with("trace_pipe") {
            match fs::read(entry.path()) {
                Ok(_) => files += 1,
                // Those to be written alone say so; root may open them.
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(Errno::INVAL.raw_os_error()), "{entry:?}")
                }
            }
        }
    }
    files
}

#[test]
fn a_tree_of_2000_events_is_read_through() {
    let Some(mounted) = mounted(64) else { return };
    for number in 0..2000 {
        let format = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
            \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
            \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
            \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
            \tfield:u64 number;\toffset:8;\tsize:8;\tsigned:0;\n";
        let name = format!("event{number}");
        let text = format!("name: {name}\nID: 0\nformat:\n{format}\nprint fmt: \"%llu\", REC->number\n");
        mounted.instances.register_event(&format!("system{}", number % 50), &name, &text).unwrap();
    }
    let begin = std::time::Instant::now();
    let files = read_all(mounted.root());
    let took = begin.elapsed();
    println!("{files} files in {took:?}");
    assert!(files > 2000 * 6, "{files}");
    // A watchdog: what is claimed is two seconds, on an idle machine.
    assert!(took < std::time::Duration::from_secs(60), "{took:?}");
}

#[test]
fn an_instance_that_was_made_anew_is_seen_at_once() {
    let Some(mounted) = mounted(64) else { return };
    let percent = mounted.path("instances/again/buffer_percent");
    // Not through the mount, so that the kernel does not know.
    let tree = mounted.tree.clone();
    let instances = tree.resolve("instances").unwrap();
    for round in 0..20 {
        tree.make_dir(instances, "again").unwrap();
        assert_eq!(fs::read_to_string(&percent).unwrap(), "50\n", "round {round}");
        fs::write(&percent, "7").unwrap();
        let names = fs::read_dir(mounted.path("instances")).unwrap();
        assert_eq!(names.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["again"]);
        // What was written or read is closed in the kernel's own time.
        while let Err(errno) = tree.remove_dir(instances, "again") {
            assert_eq!(errno, Errno::BUSY);
            std::thread::yield_now();
        }
        assert_eq!(fs::read(&percent).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }
}

#[test]
fn a_listing_tells_what_a_look_up_does() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let Some(mounted) = mounted(64) else { return };
    let attributes = |path: &std::path::Path| {
        let metadata = fs::symlink_metadata(path).unwrap();
        (metadata.mode(), metadata.nlink(), metadata.uid(), metadata.size())
    };
    fs::set_permissions(mounted.path("tracing_on"), fs::Permissions::from_mode(0o444)).unwrap();
    for directory in ["", "per_cpu/cpu0", "events", "options"] {
        let looked_up = |name: &std::ffi::OsStr| attributes(&mounted.path(directory).join(name));
        let names: Vec<_> =
            fs::read_dir(mounted.path(directory)).unwrap().map(|entry| entry.unwrap()).collect();
        for entry in names {
            let metadata = entry.metadata().unwrap();
            let listed = (metadata.mode(), metadata.nlink(), metadata.uid(), metadata.size());
            let place =
                mounted.tree.resolve(&format!("{directory}/{}", entry.file_name().display())).unwrap();
            let said = mounted.tree.attributes(place).unwrap();
            assert_eq!(listed, looked_up(&entry.file_name()));
            assert_eq!((listed.0 & 0o7777, listed.1), (said.mode.into(), said.links.into()), "{entry:?}");
        }
    }
    assert_eq!(attributes(&mounted.path("tracing_on")).0 & 0o777, 0o444);
}

/// What the kernel's tracefs, or ours, answers to calls that no tool makes.
fn odd_answers(instance: &std::path::Path) -> Vec<(&'static str, Result<usize, Errno>)> {
    use rustix::fs::{CWD, FileType};
    let path = |name: &str| instance.join(name);
    let open = |name: &str, flags| rustix::fs::open(path(name), flags | OFlags::CLOEXEC, Mode::empty());
    let write = |name: &str, len| {
        let file = open(name, OFlags::WRONLY)?;
        rustix::io::write(&file, &vec![b'x'; len])
    };
    let make = |kind| rustix::fs::mknodat(CWD, path("new"), kind, Mode::RUSR, 0).map(|()| 0);
    let seek = |place| {
        let file = open("tracing_on", OFlags::RDONLY)?;
        rustix::fs::seek(&file, place).map(|at| usize::try_from(at).unwrap())
    };
    vec![
        ("make a file", make(FileType::RegularFile)),
        ("make a pipe", make(FileType::Fifo)),
        ("create", open("new", OFlags::WRONLY | OFlags::CREATE).map(|_| 0)),
        ("a nameless file", open("", OFlags::RDWR | OFlags::TMPFILE).map(|_| 0)),
        ("a long name", rustix::fs::stat(path(&"n".repeat(256))).map(|_| 0)),
        ("the longest name", rustix::fs::stat(path(&"n".repeat(255))).map(|_| 0)),
        ("a write past the cache", open("tracing_on", OFlags::RDONLY | OFlags::DIRECT).map(|_| 0)),
        ("extended attributes", rustix::fs::listxattr(path("trace"), &mut [0; 0])),
        ("extended attributes, read", rustix::fs::listxattr(path("trace"), &mut [0; 64])),
        ("one of them", rustix::fs::getxattr(path("trace"), "user.x", &mut [0; 8])),
        ("data", seek(rustix::fs::SeekFrom::Data(0))),
        ("a hole", seek(rustix::fs::SeekFrom::Hole(0))),
        ("the end", seek(rustix::fs::SeekFrom::End(0))),
        ("a long write to the log", write("error_log", 5000)),
        ("a longer one", write("error_log", 70_000)),
        ("a long write to the trace", write("trace", 5000)),
        ("a long name of a clock", write("trace_clock", 5000)),
        ("a rename", rustix::fs::rename(path("trace"), path("new")).map(|()| 0)),
        ("a link", rustix::fs::link(path("trace"), path("new")).map(|()| 0)),
        ("a symbolic link", rustix::fs::symlink("trace", path("new")).map(|()| 0)),
        ("the removal of a file", rustix::fs::unlink(path("trace")).map(|()| 0)),
    ]
}

#[test]
fn odd_calls_get_the_kernels_answers() {
    let Some(mounted) = mounted(64) else { return };
    let theirs = std::path::Path::new("/sys/kernel/tracing/instances")
        .join(format!("ringtap-mounted-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&theirs) {
        return println!("skipped, as the kernel's tracefs makes no instance: {error}");
    }
    let answers = std::panic::catch_unwind(|| odd_answers(&theirs));
    fs::remove_dir(&theirs).unwrap();
    let ours = mounted.path("instances/odd");
    fs::create_dir(&ours).unwrap();
    assert_eq!(odd_answers(&ours), answers.unwrap());
}
