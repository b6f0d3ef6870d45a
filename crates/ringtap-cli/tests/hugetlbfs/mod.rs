//! Persistent buffers in huge pages: all that works in other files does here, and all that was committed is recovered.

use super::support::{Temporary, cannot_exec, pid, ringtap, said, signal, until};
use super::{Mounted, recovered, refused};
use ringtap::attach::{Attachment, Connection, Role, SOCKET_VARIABLE};
use ringtap::clock::ClockId;
use ringtap::{Cursor, Item, ReadError, Reader, Start};
use rustix::fs::{FlockOperation, OFlags};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

ringtap::event! {
    /// What the writers write.
    struct Step as hugetlbfs:step { process: u32, number: u64 }
}

/// Names the file that a writer tells its steps to, once they are written.
const TOLD: &str = "RINGTAP_TEST_TOLD";
/// Steps that a writer takes at most, and KiB of each CPU's buffer, which has room for all of two.
const STEPS: u64 = 40_000;
const BUFFER: &str = "4000";

/// A process of the other test.
#[test]
fn writer() {
    let Some(told) = std::env::var_os(TOLD) else { return };
    let told = File::create(told).unwrap();
    let attachment = Attachment::attach(std::env::var(SOCKET_VARIABLE).unwrap()).unwrap();
    Step::register(&attachment).unwrap();
    let (writer, process) = (attachment.writer(), std::process::id());
    for number in 0..STEPS {
        Step { process, number }.try_write(&writer).unwrap();
        told.write_all_at(&(number + 1).to_le_bytes(), 0).unwrap();
        if number % 16 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

struct Writer {
    process: Running,
    told: PathBuf,
}

impl Writer {
    fn start(socket: &Path, told: PathBuf) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["hugetlbfs::writer", "--exact"]).env(SOCKET_VARIABLE, socket).env(TOLD, &told);
        Self { process: Running(command.stdout(Stdio::null()).spawn().unwrap()), told }
    }

    /// Events that it has written for certain.
    fn told(&self) -> u64 {
        let bytes = fs::read(&self.told).unwrap_or_default();
        bytes.first_chunk().map_or(0, |count| u64::from_le_bytes(*count))
    }
}

/// A process that ends with its test, however that ends.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        signal(&self.0, Signal::KILL);
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many huge pages the machine keeps.
const SETTING: &str = "/proc/sys/vm/nr_hugepages";

/// Bytes of the usual huge page.
fn page_size() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// A hugetlbfs with as many pages of its own. They are the machine's until it is unmounted, whatever becomes of us: the
/// setting is as it was when this returns.
fn mounted(pages: u64, path: PathBuf) -> Option<Mounted> {
    let setting = File::options().write(true).open(SETTING);
    let (Ok(setting), Some(size)) = (setting, page_size()) else {
        println!("skipped: there are no huge pages to be had here");
        return None;
    };
    // Of several tests that do this, one at a time.
    rustix::fs::flock(&setting, FlockOperation::LockExclusive).unwrap();
    let before = fs::read_to_string(SETTING).unwrap();
    let count = before.trim().parse::<u64>().unwrap() + pages;
    setting.write_all_at(count.to_string().as_bytes(), 0).unwrap();
    let mounted = Mounted::new("hugetlbfs", &format!("mode=0700,min_size={}", pages * size), path);
    setting.write_all_at(before.as_bytes(), 0).unwrap();
    mounted
}

struct Host {
    files: PathBuf,
    socket: PathBuf,
    /// Where its tree is mounted, if it can be.
    tree: Option<Mounted>,
}

impl Host {
    fn start(&self) -> Running {
        let mut command = ringtap();
        command.arg("serve").args(["--buffer-size", BUFFER, "--socket"]).arg(&self.socket);
        command.arg("--directory").arg(&self.files);
        if let Some(tree) = &self.tree {
            command.arg("--mount").arg(&tree.0);
        }
        let host = Running(command.stdout(Stdio::null()).spawn().unwrap());
        // Of a host that was killed just now connections may still be made.
        let answers = || Connection::connect(&self.socket, Role::Reader).is_ok_and(|it| is_of(&it, &host.0));
        until("the host serves", answers);
        host
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = ringtap().env(SOCKET_VARIABLE, &self.socket).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What cursors, a consuming reader and the tree's clients see while two processes write.
    fn is_read(&self) {
        let connection = Arc::new(Connection::connect(&self.socket, Role::Reader).unwrap());
        let cursors = connection.cursors(Start::Oldest).unwrap();
        assert!(cursors.into_iter().map(seen).sum::<u64>() >= 1000);
        let consumed = |mut reader: Reader| {
            let mut count = 0u64;
            while let Some(item) = reader.next().unwrap() {
                assert!(matches!(item, Item::Record(_)), "{item:?}");
                count += 1;
            }
            count
        };
        assert!(connection.readers().unwrap().into_iter().map(consumed).sum::<u64>() > 0);
        drop(connection);
        let Some(tree) = &self.tree else { return };
        let raw = |cpu: u32| {
            let path = tree.0.join(format!("per_cpu/cpu{cpu}/trace_pipe_raw"));
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            File::options().read(true).custom_flags(flags).open(path).ok()
        };
        until("something is read through the tree", || {
            (0..).map_while(raw).any(|mut raw| raw.read(&mut [0; 4096]).is_ok_and(|len| len > 0))
        });
        let refused = Reader::open_kernel(raw(0).unwrap().into(), 0, ClockId::Mono);
        assert!(matches!(refused, Err(ReadError::NoMapping(0))), "{refused:?}");
    }
}

/// Declares so many events that their texts fill a huge page; the last one's name.
fn declare_many(socket: &Path) -> String {
    let connection = Connection::connect(socket, Role::Writer).unwrap();
    let step = connection.events().unwrap().into_iter().find(|event| event.name == "step").unwrap();
    let (fields, _) = step.format.split_once("print fmt:").unwrap();
    let fields = fields.strip_prefix("name: step\n").unwrap();
    let text = "x".repeat(14_000);
    let count = page_size().unwrap() / 14_000 + 2;
    let name = |number| format!("many_{number}");
    for number in 0..count {
        let format = format!("name: {}\n{fields}print fmt: \"{text}\"\n", name(number));
        connection.register_event("hugetlbfs", &name(number), &format).unwrap();
    }
    name(count - 1)
}

fn is_of(connection: &Connection, host: &Child) -> bool {
    connection.host_pid().is_ok_and(|of| of == Some(pid(host).as_raw_pid().cast_unsigned()))
}

/// Events that a cursor finds, none of which is lost.
fn seen(mut cursor: Cursor) -> u64 {
    let mut count = 0;
    while let Some(item) = cursor.next().unwrap() {
        assert!(matches!(item, Item::Record(_)), "{item:?}");
        count += 1;
    }
    count
}

/// The numbers that a process wrote, as they were recovered.
fn numbers_of(process: u32, json: &str) -> Vec<u64> {
    let lines = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let its = lines.filter(|line| line["fields"]["process"].as_u64() == Some(process.into()));
    its.map(|line| line["fields"]["number"].as_u64().unwrap()).collect()
}

#[test]
fn what_was_committed_in_huge_pages_outlives_all_processes() {
    let folder = Temporary::new("recover-huge");
    let cpus = ringtap::cpus::possible().unwrap().into_iter().max().unwrap() + 1;
    // Of each host two for each CPU, who the threads were, and the events; of the first host more of these.
    let pages = 2 * (2 * u64::from(cpus) + 2) + 1;
    let Some(huge) = mounted(pages, folder.path().join("huge")) else { return };
    let tree = (!cannot_exec()).then(|| Mounted(folder.path().join("tree")));
    tree.iter().for_each(|tree| fs::create_dir(&tree.0).unwrap());
    let host = Host { files: huge.0.join("files"), socket: folder.path().join("host.sock"), tree };
    let mut running = host.start();
    host.ask(&["start", "-e", "hugetlbfs:*"]);
    let mut writers = ["a", "b"].map(|name| Writer::start(&host.socket, folder.path().join(name)));
    let both_go_on = |writers: &[Writer]| {
        let aims: Vec<_> = writers.iter().map(|writer| writer.told() + 1000).collect();
        until("both have written", || writers.iter().zip(&aims).all(|(writer, aim)| writer.told() >= *aim));
    };
    both_go_on(&writers);
    host.is_read();
    host.ask(&["snapshot", "--take"]);
    assert!(host.ask(&["snapshot"]).contains(": step: "));
    let resized = ringtap().env(SOCKET_VARIABLE, &host.socket).args(["set", "-b", "64"]).output().unwrap();
    assert!(!resized.status.success(), "as no persistent buffers are: {}", said(&resized));

    // The next host goes on with the files, which the writers have mapped.
    running.kill();
    running = host.start();
    assert!(!host.files.join("last").exists());
    let last_event = declare_many(&host.socket);
    both_go_on(&writers);
    running.kill();
    writers.iter_mut().for_each(|writer| writer.process.kill());

    let found = recovered(&host.files, &["--json", "--all"]);
    assert!(found.status.success() && String::from_utf8_lossy(&found.stderr).ends_with("; 0 lost\n"));
    let json = String::from_utf8(found.stdout).unwrap();
    for writer in &writers {
        let numbers = numbers_of(writer.process.0.id(), &json);
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        // It may have been killed before it told of the last one.
        assert!((writer.told()..=writer.told() + 1).contains(&(numbers.len() as u64)));
    }
    let text = String::from_utf8(recovered(&host.files, &["--all"]).stdout).unwrap();
    // The thread's name is its test's, cut.
    assert!(text.contains("hugetlbfs::writ-"), "{}", &text[..text.len().min(1000)]);

    let kept = ringtap::recover::find(&host.files).unwrap();
    assert_eq!(kept.events.last().unwrap().name, last_event);
    assert!(kept.events.iter().any(|event| event.name == "step"));

    fs::remove_file(&host.socket).unwrap();
    host.start().kill();
    let last = recovered(&host.files.join("last"), &["--json", "--all"]);
    assert!(last.status.success() && last.stdout == json.as_bytes());
}

#[test]
fn too_few_huge_pages_is_one_sentence_and_nothing_is_half_made() {
    let folder = Temporary::new("recover-few-pages");
    let Some(size) = page_size() else { return println!("skipped: there are no huge pages here") };
    let options = format!("mode=0700,size={}", 2 * size);
    let Some(huge) = Mounted::new("hugetlbfs", &options, folder.path().join("huge")) else { return };
    let files = huge.0.join("files");
    let told = refused(&files, &folder.path().join("host.sock"), BUFFER);
    assert!(told.lines().count() == 1 && told.contains("too few free huge pages"), "{told}");
    assert!(told.contains("vm.nr_hugepages") && told.contains(files.to_str().unwrap()), "{told}");
    assert_eq!(fs::read_dir(&files).unwrap().count(), 0, "nothing is left of it");
}
