//! The kernel's filters and ours: the same are accepted, the others refused with the same words and the same place,
//! and the same records pass, also when the filter was lowered to byte code.

use ringtap_abi::predicate::{COMM_LEN, Subject, evaluate};
use ringtap_format::filter::{Filter, FilterErrorKind};
use ringtap_format::header::PageLayout;
use ringtap_format::merge::{Pages, Step};
use ringtap_format::text::{Common, Entry};
use ringtap_format::{Dialect, Formats, Symbols, Target, Tasks};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const O_NONBLOCK: i32 = 0o4000;

/// A tracefs instance that is removed again.
struct Instance(PathBuf);

impl Instance {
    /// `None`, and a line that says so, where this kernel cannot be traced.
    fn create(name: &str) -> Option<Self> {
        let instances = Path::new("/sys/kernel/tracing/instances");
        let path = instances.join(format!("ringtap-filter-{name}-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                println!("skipped: cannot make a tracefs instance: {error}");
                None
            }
        }
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.0.join(file), value)
    }

    /// What the kernel says of a filter: nothing, or a message and the place it points at.
    fn refusal(&self, event: &str, filter: &str) -> Option<(String, usize)> {
        self.set("error_log", "").unwrap();
        self.set(&format!("events/{event}/filter"), filter).err()?;
        let log = fs::read_to_string(self.0.join("error_log")).unwrap();
        let mut lines = log.lines().rev();
        let caret = lines.next().unwrap().find('^').unwrap();
        let message = lines.nth(1).unwrap().rsplit("error: ").next().unwrap();
        Some((message.to_owned(), caret - "  Command: ".len()))
    }

    /// The records of this task, with their CPUs.
    fn records(&self, target: Target) -> Vec<(u32, Vec<u8>)> {
        let me = rustix::thread::gettid().as_raw_nonzero().get();
        let mut records = Vec::new();
        for cpu in 0.. {
            let path = self.0.join(format!("per_cpu/cpu{cpu}/trace_pipe_raw"));
            if !path.exists() {
                return records;
            }
            let mut pipe = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).unwrap();
            let mut page = vec![0; 4096];
            while let Ok(len @ 1..) = pipe.read(&mut page) {
                for step in Pages::new(&page[..len], PageLayout::of_size(4096)) {
                    if let Step::Record(record) = step
                        && Common::of(record.bytes, target).pid == me
                    {
                        records.push((cpu, record.bytes.to_vec()));
                    }
                }
            }
        }
        records
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.set("events/enable", "0");
        let _ = fs::remove_dir(&self.0);
    }
}

fn formats(event: &str) -> Formats {
    let (system, _) = event.split_once('/').unwrap();
    let text = fs::read_to_string(format!("/sys/kernel/tracing/events/{event}/format")).unwrap();
    let mut formats = Formats::new(Target::HOST, Dialect::Kernel);
    formats.add(system, &text).unwrap();
    formats
}

#[test]
fn the_same_filters_are_accepted_and_refused() {
    let Some(instance) = Instance::create("words") else { return };
    let switch = [
        "prev_pid == 1",
        "prev_pid==1&&next_pid!=2",
        "prev_pid == 1 || next_pid == 2 && prev_prio < 100",
        "!(prev_pid == 1)",
        "!prev_pid == 1",
        "!!prev_pid == 1",
        "prev_comm == \"bash\"",
        "prev_comm == 'bash'",
        "prev_comm ~ \"ba*\"",
        "prev_comm == bash",
        "prev_comm > \"a\"",
        "prev_pid ~ \"1*\"",
        "prev_pid ~ 1",
        "prev_pid == abc",
        "prev_pid == \"abc\"",
        "foo == 1",
        "foo==1",
        "prev_pid = 1",
        "prev_pid == ",
        "prev_pid",
        "(prev_pid == 1",
        "prev_pid == 1)",
        "((prev_pid == 1) && (next_pid == 1)",
        "prev_pid == 1 next_pid == 2",
        "prev_pid == 1 &&",
        "prev_pid == 1 ||",
        "&& prev_pid == 1",
        "prev_pid == 0x10",
        "prev_pid == -1",
        "prev_pid == --1",
        "prev_pid == 010",
        "prev_pid == 08",
        "prev_pid & 1",
        "prev_comm == \"bash",
        "prev_pid == 1 | next_pid == 2",
        "prev_pid === 1",
        "prev_pid == 99999999999999999999",
        "prev_pid == 9999999999999999999999999999",
        "prev_pid == 99999999999",
        "CPU == 1",
        "cpu == 1",
        "common_pid == 5",
        "common_type == 1",
        "common_flags & 4",
        "COMM == \"x\"",
        "comm ~ \"x*\"",
        "comm == 1",
        "cpu & CPUS{0-0}",
        "CPU == CPUS{0}",
        "CPU != CPUS{0,0}",
        "CPU & CPUS{0,1",
        "CPU & CPUS",
        "CPU & CPUS{",
        "CPU & CPUS{}",
        "CPU & CPUS{a}",
        "CPU & CPUS{1-0}",
        "prev_pid & CPUS{0}",
        "prev_pid < CPUS{0}",
        "prev_comm & CPUS{0}",
        "()",
        "(prev_pid == 1) && (next_pid == 1 || (prev_prio == 3))",
        "prev_pid == 1 && && next_pid == 1",
        "prev_pid.function == schedule",
        "prev_state.function < schedule",
        "prev_comm != \"bash\"",
        "prev_comm & \"bash\"",
        "prev_comm == 1",
        "! ( prev_pid == 1 ) || prev_pid == 2",
        "prev_pid == 1;",
        "prev_pid<=1",
        "prev_pid>=1",
        "prev_pid ==1",
        "prev_comm ~ \"*a*\"",
        "prev_comm == \"\"",
        "prev_pid == 1 or next_pid == 2",
        "1 == prev_pid",
        "prev_pid == 1a",
        "prev_pid == 0xg",
        "none",
        "prev_state == -9223372036854775808",
        "prev_state == 9223372036854775808",
        "(prev_pid == 1) next_pid",
        "(prev_pid == 1 next_pid == 2)",
        "prev_pid == 1 && (next_pid",
        "prev_pid != 1 &&& next_pid == 1",
        "prev_pid == 1 && !",
        "prev_comm == \"a\" && prev_comm == \"b",
        "prev_comm == 'a\"",
        "\"a\" == 1",
    ];
    let formats_of = |event| formats(event);
    let (mut compared, mut different) = (0, Vec::new());
    for (event, filters) in
        [("sched/sched_switch", &switch[..]), ("sched/sched_waking", &["comm == \"x\"", "comm == 1"])]
    {
        let formats = formats_of(event);
        let event_of = formats.iter().next().unwrap();
        for filter in filters {
            let theirs = instance.refusal(event, filter);
            let ours = Filter::parse(filter, event_of, &Symbols::default()).err();
            // A function's name needs symbols, which this test does without.
            if ours.as_ref().is_some_and(|error| error.kind == FilterErrorKind::FunctionNotFound) {
                continue;
            }
            let ours = ours.map(|error| (error.kind.message().to_owned(), error.place));
            if ours != theirs {
                different.push(format!("{filter}\n  ours   {ours:?}\n  theirs {theirs:?}"));
            }
            compared += 1;
        }
    }
    println!("{compared} filters accepted or refused alike");
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(compared > 80);
}

fn padded(name: &str) -> [u8; COMM_LEN] {
    let mut padded = [0; COMM_LEN];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    padded
}

/// Runs `work` with the event traced in two instances, one filtered by the kernel, and compares what passes.
fn same_records(event: &str, filters: &[&str], mut work: impl FnMut()) {
    let name = event.rsplit('/').next().unwrap();
    let (Some(all), Some(filtered)) =
        (Instance::create(&format!("all-{name}")), Instance::create(&format!("filtered-{name}")))
    else {
        return;
    };
    let formats = formats(event);
    let event_of = formats.iter().next().unwrap();
    let (file, enable) = (format!("events/{event}/filter"), format!("events/{event}/enable"));
    let comm = fs::read_to_string("/proc/thread-self/comm").unwrap();
    for filter in filters {
        filtered.set(&file, filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        for instance in [&all, &filtered] {
            instance.set("trace", "").unwrap();
            instance.set(&enable, "1").unwrap();
        }
        work();
        for instance in [&all, &filtered] {
            instance.set(&enable, "0").unwrap();
        }
        let mut tasks = Tasks::default();
        tasks.set(rustix::thread::gettid().as_raw_nonzero().get(), comm.trim_end().as_bytes());
        let ours = Filter::parse(filter, event_of, &Symbols::default()).unwrap();
        let (program, name) = (ours.lower().unwrap(), padded(comm.trim_end()));
        let passes = |(cpu, record): &(u32, Vec<u8>)| {
            let passes = ours.matches(&Entry { cpu: *cpu, time: 0, record }, &tasks);
            let subject = Subject { payload: record, cpu: *cpu, comm: &|| name };
            assert_eq!(evaluate(&program[..], &subject), Ok(passes), "{filter}");
            passes
        };
        let all = all.records(Target::HOST);
        // Bytes between the fields, and behind a text's end, are whatever was there before.
        let values = |(cpu, record): &(u32, Vec<u8>)| {
            let values: Vec<_> =
                event_of.fields().iter().map(|field| field.value(record, Target::HOST)).collect();
            format!("{cpu} {values:?}")
        };
        let ours: Vec<_> = all.iter().filter(|record| passes(record)).map(values).collect();
        let theirs: Vec<_> = filtered.records(Target::HOST).iter().map(values).collect();
        assert!(!all.is_empty(), "{event}: nothing was traced");
        // Known differences: `*x` the kernel compares with the end of the array, not of the text in it, and `*x*` it
        // also finds in what an earlier text left behind the NUL.
        if filter.contains("~ \"*ta\"") {
            assert_eq!((ours.len(), theirs.len()), (1, 0), "{event}: {filter}");
            continue;
        }
        if filter.contains("~ \"*e*\"") {
            assert!(ours.iter().all(|record| theirs.contains(record)), "{event}: {filter}");
            continue;
        }
        assert_eq!(ours, theirs, "{event}: {filter}");
        println!("{event}: {filter}: {} of {} records pass", theirs.len(), all.len());
    }
}

#[test]
fn the_same_numbers_pass() {
    let filters = [
        "offset == 3",
        "offset != 3",
        "offset < 3",
        "offset <= 3",
        "offset > 17",
        "offset >= 17",
        "offset & 5",
        "!(offset & 5)",
        "offset == 0x10 || offset == 010 && whence == 1",
        "(offset == 1 || offset == 2) && whence == 0",
        "offset == 1 || offset == 2 && whence == 1",
        "!offset == 3 && !(offset > 5)",
        "common_pid != 0 && offset == 7",
        "cpu & CPUS{0-0}",
        "cpu == CPUS{0}",
        "cpu != CPUS{0}",
        "CPU == 1",
        "offset & CPUS{0-0}",
        "offset == CPUS{1}",
        "comm ~ \"*\"",
        "comm == \"no such\"",
        "common_preempt_count >= 0",
    ];
    let mut file = fs::File::open("/dev/null").unwrap();
    same_records("syscalls/sys_enter_lseek", &filters, || {
        for offset in 0..20 {
            let _ = file.seek(SeekFrom::Start(offset));
            let _ = file.seek(SeekFrom::Current(i64::try_from(offset).unwrap() - 2));
        }
    });
}

#[test]
fn the_same_texts_pass() {
    let filters = [
        "newcomm == \"alpha\"",
        "newcomm != \"alpha\"",
        "newcomm ~ \"al*\"",
        "newcomm ~ \"*e*\"",
        "newcomm ~ \"[ab]*\"",
        "newcomm ~ \"?lpha\"",
        "newcomm ~ \"a*h?\"",
        "newcomm ~ \"!al*\"",
        "newcomm ~ \"beta\"",
        "oldcomm == 'alpha' && newcomm == 'beta'",
        "newcomm == \"a name of fiftee\"",
        "newcomm == \"\"",
        "newcomm ~ \"*\"",
        "newcomm ~ \"\"",
        "newcomm ~ \"*ta\"",
    ];
    let old = fs::read_to_string("/proc/thread-self/comm").unwrap();
    same_records("task/task_rename", &filters, || {
        for name in ["alpha", "beta", "gamma", "a name of fifteen and more", "b", old.trim_end()] {
            fs::write("/proc/thread-self/comm", name).unwrap();
        }
    });
}
