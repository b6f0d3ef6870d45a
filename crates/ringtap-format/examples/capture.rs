//! Captures real activity of this machine and writes it as a trace.dat that both `trace-cmd report` and ringtap read.
//!
//! ```text
//! cargo run --release -p ringtap-format --example capture -- OUT.dat [--text OUT.txt] [--kb N] [--lean] [SYSTEM ...]
//! ```
//!
//! It makes a tracefs instance of its own and removes it at the end. `--text` also saves what the kernel itself
//! prints for the same records. `--lean` keeps only the symbols that occur, so that the file can stand in a
//! repository.

use ringtap_format::header::PageLayout;
use ringtap_format::merge::{Pages, Step};
use ringtap_format::text::Common;
use ringtap_format::{Format, Symbols, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const TRACING: &str = "/sys/kernel/tracing";
const O_NONBLOCK: i32 = 0o4000;

/// What is captured when nothing else is asked for; systems that this kernel lacks are left out.
const SYSTEMS: &[&str] = &[
    "sched",
    "raw_syscalls",
    "syscalls",
    "irq",
    "irq_vectors",
    "timer",
    "block",
    "net",
    "sock",
    "skb",
    "tcp",
    "udp",
    "napi",
    "qdisc",
    "kmem",
    "signal",
    "workqueue",
    "writeback",
    "task",
    "exceptions",
    "filemap",
    "rcu",
    "ext4",
    "jbd2",
    "btrfs",
    "xfs",
    "mmap",
    "tlb",
    "csd",
    "ipi",
    "power",
    "cgroup",
    "fib",
    "neigh",
    "percpu",
    "vmscan",
    "migrate",
    "compaction",
    "rpm",
    "regmap",
    "thermal",
    "io_uring",
    "notifier",
    "mmap_lock",
    "page_pool",
    "lock",
    "msr",
    "vmalloc",
    "dma",
    "iomap",
    "virtio",
    "context_tracking",
    "alarmtimer",
    "oom",
    "huge_memory",
    "initcall",
];

/// What to capture.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Buffer of each CPU.
    pub(crate) kb: u32,
    /// Systems of events; empty for the usual ones.
    pub(crate) systems: Vec<String>,
    /// Keep only symbols that occur.
    pub(crate) lean: bool,
}

/// A capture: the file, and the kernel's own text of the same records.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The trace.dat.
    pub(crate) file: Vec<u8>,
    /// The instance's `trace`.
    pub(crate) text: Vec<u8>,
}

/// A tracefs instance that is removed again.
struct Instance(PathBuf);

impl Instance {
    fn create() -> io::Result<Self> {
        let path =
            Path::new(TRACING).join("instances").join(format!("ringtap-capture-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.0.join(file), value)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.set("tracing_on", "0");
        let _ = self.set("events/enable", "0");
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Traces some real work in an instance of its own.
pub(crate) fn capture(request: &Request) -> io::Result<Captured> {
    if Target::HOST != Target::LE64 {
        return Err(io::Error::other("only written for 64-bit little-endian machines"));
    }
    let instance = Instance::create()?;
    instance.set("trace_clock", "mono")?;
    instance.set("options/hash-ptr", "0")?;
    instance.set("options/overwrite", "1")?;
    instance.set("buffer_size_kb", &request.kb.max(64).to_string())?;
    if request.lean {
        // Only this program and what it starts: what else runs here is nobody's business.
        instance.set("options/event-fork", "1")?;
        instance.set("set_event_pid", &std::process::id().to_string())?;
    }
    let asked: Vec<&str> = request.systems.iter().map(String::as_str).collect();
    let systems = if asked.is_empty() { SYSTEMS.to_vec() } else { asked };
    let mut formats = BTreeMap::new();
    for system in &systems {
        let events = instance.0.join("events").join(system);
        // Kernels differ in what they can trace.
        if events.join("enable").exists() && fs::write(events.join("enable"), "1").is_ok() {
            formats.insert(*system, read_formats(&events)?);
        }
    }
    instance.set("tracing_on", "1")?;
    fs::write(instance.0.join("trace_marker"), "capture begins")?;
    work();
    fs::write(instance.0.join("trace_marker"), "capture ends")?;
    instance.set("tracing_on", "0")?;
    instance.set("events/enable", "0")?;
    let text = fs::read(instance.0.join("trace"))?;
    let buffers = read_buffers(&instance.0)?;
    if request.lean {
        keep_used(&mut formats, &buffers);
    }
    let file = trace_dat(&instance.0, &formats, &buffers, request.lean)?;
    Ok(Captured { file, text })
}

/// What there is to see: processes, files, a disk, sockets, signals, timers, memory.
fn work() {
    let dir = std::env::temp_dir().join(format!("ringtap-capture-{}", std::process::id()));
    let _ = fs::create_dir_all(&dir);
    let script = "ls -d /usr/share/* | head -40 | sort > list; tar cf some.tar --no-recursion -T list 2>/dev/null; dd \
                  if=/dev/zero of=block bs=4k count=8 conv=fsync 2>/dev/null; cat some.tar block | wc -c > /dev/null; (sleep 0.05 & kill -TERM $! ; wait) 2>/dev/null; ls -l / > /dev/null; rm -f list \
                  some.tar block";
    let _ = Command::new("sh").arg("-c").arg(script).current_dir(&dir).status();
    let _ = sockets();
    let mut memory = vec![0u8; 1 << 20];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::thread::sleep(std::time::Duration::from_millis(30));
    let _ = fs::remove_dir_all(&dir);
}

fn sockets() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let client = std::thread::spawn(move || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&[7; 5_000])
    });
    let (mut stream, _) = listener.accept()?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    let _ = client.join();
    let v6 = TcpListener::bind("[::1]:0").and_then(|listener| TcpStream::connect(listener.local_addr()?));
    drop(v6);
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.send_to(b"datagram", socket.local_addr()?)?;
    let mut buffer = [0; 16];
    socket.recv_from(&mut buffer)?;
    Ok(())
}

fn read_formats(events: &Path) -> io::Result<Vec<String>> {
    let mut paths: Vec<_> =
        fs::read_dir(events)?.flatten().map(|entry| entry.path().join("format")).collect();
    paths.sort();
    Ok(paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect())
}

/// The kernel answers only the first read of `header_page` and `header_event`.
fn read_at_once(path: &Path) -> io::Result<String> {
    let mut bytes = vec![0; 1 << 16];
    let len = fs::File::open(path)?.read(&mut bytes)?;
    String::from_utf8(bytes[..len].to_vec()).map_err(io::Error::other)
}

/// All sub-buffers of each CPU.
fn read_buffers(instance: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut buffers = Vec::new();
    for cpu in 0.. {
        let path = instance.join(format!("per_cpu/cpu{cpu}/trace_pipe_raw"));
        if !path.exists() {
            break;
        }
        let mut pipe = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
        let mut pages = Vec::new();
        let mut page = vec![0; 4096];
        while let Ok(len @ 1..) = pipe.read(&mut page) {
            pages.extend_from_slice(&page[..len]);
            pages.resize(pages.len().next_multiple_of(4096), 0);
        }
        buffers.push(pages);
    }
    Ok(buffers)
}

/// Version 6 of trace-cmd's file: the one without sections, read by every version since 2.6.
fn trace_dat(
    instance: &Path,
    formats: &BTreeMap<&str, Vec<String>>,
    buffers: &[Vec<u8>],
    lean: bool,
) -> io::Result<Vec<u8>> {
    let tracing = Path::new(TRACING);
    let mut file = b"\x17\x08\x44tracing6\0".to_vec();
    file.push(0);
    file.push(8);
    put32(&mut file, 4096);
    for name in ["header_page", "header_event"] {
        file.extend_from_slice(name.as_bytes());
        file.push(0);
        put_text(&mut file, &read_at_once(&instance.join("events").join(name))?);
    }
    put_formats(&mut file, &read_formats(&tracing.join("events/ftrace"))?);
    put32(&mut file, u32::try_from(formats.len()).unwrap_or(0));
    for (system, formats) in formats {
        file.extend_from_slice(system.as_bytes());
        file.push(0);
        put_formats(&mut file, formats);
    }
    let kallsyms = fs::read_to_string("/proc/kallsyms")?;
    let kallsyms = if lean { lean_kallsyms(&kallsyms, buffers) } else { kallsyms };
    put32(&mut file, u32::try_from(kallsyms.len()).unwrap_or(0));
    file.extend_from_slice(kallsyms.as_bytes());
    let printk = fs::read_to_string(tracing.join("printk_formats"))?;
    put32(&mut file, u32::try_from(printk.len()).unwrap_or(0));
    file.extend_from_slice(printk.as_bytes());
    let tasks = fs::read_to_string(tracing.join("saved_cmdlines"))?;
    let tasks = if lean { lean_tasks(&tasks, buffers) } else { tasks };
    put64(&mut file, u64::try_from(tasks.len()).unwrap_or(0));
    file.extend_from_slice(tasks.as_bytes());
    put32(&mut file, u32::try_from(buffers.len()).unwrap_or(0));
    file.extend_from_slice(b"options  \0\0\0flyrecord\0");
    let table = file.len();
    let mut offset = (table + buffers.len() * 16).next_multiple_of(4096);
    for buffer in buffers {
        put64(&mut file, u64::try_from(offset).unwrap_or(0));
        put64(&mut file, u64::try_from(buffer.len()).unwrap_or(0));
        offset += buffer.len();
    }
    file.resize(file.len().next_multiple_of(4096), 0);
    for buffer in buffers {
        file.extend_from_slice(buffer);
    }
    Ok(file)
}

fn put32(file: &mut Vec<u8>, number: u32) {
    file.extend_from_slice(&number.to_le_bytes());
}

fn put64(file: &mut Vec<u8>, number: u64) {
    file.extend_from_slice(&number.to_le_bytes());
}

fn put_text(file: &mut Vec<u8>, text: &str) {
    put64(file, u64::try_from(text.len()).unwrap_or(0));
    file.extend_from_slice(text.as_bytes());
}

fn put_formats(file: &mut Vec<u8>, formats: &[String]) {
    put32(file, u32::try_from(formats.len()).unwrap_or(0));
    for format in formats {
        put_text(file, format);
    }
}

fn commons(buffers: &[Vec<u8>]) -> impl Iterator<Item = Common> {
    let layout = PageLayout::of_size(4096);
    buffers.iter().flat_map(move |buffer| Pages::new(buffer, layout)).filter_map(move |step| match step {
        Step::Record(record) => Some(Common::of(record.bytes, layout.target)),
        _ => None,
    })
}

/// The tasks that wrote records.
fn lean_tasks(tasks: &str, buffers: &[Vec<u8>]) -> String {
    let pids: BTreeSet<String> = commons(buffers).map(|common| common.pid.to_string()).collect();
    let wrote = |line: &&str| line.split(' ').next().is_some_and(|pid| pids.contains(pid));
    tasks.lines().filter(wrote).flat_map(|line| [line, "\n"]).collect()
}

/// Drops the formats of events that do not occur.
fn keep_used(formats: &mut BTreeMap<&str, Vec<String>>, buffers: &[Vec<u8>]) {
    let used: BTreeSet<u16> = commons(buffers).map(|common| common.id).collect();
    let is_used =
        |text: &String| Format::parse("", text, Target::LE64).is_ok_and(|format| used.contains(&format.id));
    for formats in formats.values_mut() {
        formats.retain(is_used);
    }
    formats.retain(|_, formats| !formats.is_empty());
}

/// The symbols around each number in `buffers` that can be an address of the kernel, and the next ones, which tell
/// their sizes.
fn lean_kallsyms(kallsyms: &str, buffers: &[Vec<u8>]) -> String {
    let symbols = Symbols::parse(kallsyms);
    let words = buffers.iter().flat_map(|buffer| {
        buffer.windows(8).step_by(4).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
    });
    let mut kept = BTreeSet::new();
    for address in words.filter(|address| *address > 0xffff_ffff_0000_0000) {
        if let Some(found) = symbols.resolve(address) {
            let start = address - found.offset;
            kept.insert(start);
            kept.insert(start + found.size);
        }
    }
    let wanted = |line: &&str| {
        let address = line.split(' ').next().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        address.is_some_and(|address| kept.contains(&address))
    };
    kallsyms.lines().filter(wanted).flat_map(|line| [line, "\n"]).collect()
}

#[allow(dead_code, reason = "tests include this file as a module")]
fn main() -> io::Result<()> {
    let mut request = Request { kb: 1024, ..Request::default() };
    let (mut out, mut text) = (None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--text" => text = args.next(),
            "--kb" => request.kb = args.next().and_then(|kb| kb.parse().ok()).unwrap_or(request.kb),
            "--lean" => request.lean = true,
            _ if out.is_none() => out = Some(arg),
            _ => request.systems.push(arg),
        }
    }
    let Some(out) = out else {
        return Err(io::Error::other(
            "usage: capture OUT.dat [--text OUT.txt] [--kb N] [--lean] [SYSTEM ...]",
        ));
    };
    let captured = capture(&request)?;
    fs::write(&out, &captured.file)?;
    if let Some(text) = text {
        fs::write(text, &captured.text)?;
    }
    println!("{out}: {} bytes, {} lines", captured.file.len(), captured.text.split(|b| *b == b'\n').count());
    Ok(())
}
