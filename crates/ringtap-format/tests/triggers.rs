//! Triggers: the same commands are accepted and refused as by the running kernel, and shown as it shows them; histograms,
//! which not every kernel has, are compared with its documentation.

use ringtap_format::trigger::hist::{Change, SortBy, SortKey};
use ringtap_format::trigger::{
    AVAILABLE, Action, Command, HistErrorKind, HistRow, HistTable, Trigger, TriggerError,
};
use ringtap_format::{Dialect, Event, Formats, Symbols, Target};
use std::fs;
use std::path::{Path, PathBuf};

/// An event that does not happen while tests run.
const EVENT: &str = "syscalls/sys_enter_reboot";

/// A tracefs instance that is removed again.
struct Instance(PathBuf);

impl Instance {
    /// `None`, and a line that says so, where this kernel cannot be traced.
    fn create() -> Option<Self> {
        let path = Path::new("/sys/kernel/tracing/instances")
            .join(format!("ringtap-trigger-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                println!("skipped: cannot make a tracefs instance: {error}");
                None
            }
        }
    }

    /// What the kernel says of a command: its error number and the log, or else what it shows.
    fn answer(&self, command: &str) -> Result<String, (i32, String)> {
        fs::write(self.0.join("error_log"), "").unwrap();
        let trigger = self.0.join("events").join(EVENT).join("trigger");
        match fs::write(&trigger, command) {
            Ok(()) => Ok(fs::read_to_string(trigger).unwrap()),
            Err(error) => {
                let log = fs::read_to_string(self.0.join("error_log")).unwrap();
                let log = log.split_once("] ").map_or(String::new(), |(_, log)| log.to_owned());
                Err((error.raw_os_error().unwrap(), log))
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            println!("{} stays: {error}", self.0.display());
        }
    }
}

const EINVAL: i32 = 22;
const EEXIST: i32 = 17;

/// An event's `trigger` file, kept as a host keeps it.
struct File<'e> {
    event: &'e Event,
    triggers: Vec<Trigger>,
}

impl File<'_> {
    fn write(&mut self, command: &str) -> Result<String, (i32, String)> {
        let command = Command::parse(command, self.event, &Symbols::default())
            .map_err(|error| (error.errno(), error.log(self.event).unwrap_or_default()))?;
        let is_known = |trigger: &Trigger| match &trigger.action {
            Action::Switch { system, event, .. } => {
                Path::new("/sys/kernel/tracing/events").join(system).join(event).join("id").exists()
            }
            _ => true,
        };
        match command {
            Some(Command::Add(trigger) | Command::Remove(trigger)) if !is_known(&trigger) => {
                return Err((EINVAL, String::new()));
            }
            Some(Command::Add(trigger)) => {
                if self.triggers.iter().any(|other| other.is_same(&trigger)) {
                    return Err((EEXIST, String::new()));
                }
                self.triggers.insert(0, *trigger);
            }
            Some(Command::Remove(trigger)) => {
                self.triggers.retain(|other| !other.is_same(&trigger));
            }
            None => {}
        }
        Ok(self.text())
    }

    fn text(&self) -> String {
        let lines = self.triggers.iter().map(|trigger| trigger.text(trigger.count, false) + "\n");
        lines.collect()
    }
}

#[test]
fn the_same_triggers_are_accepted_and_refused() {
    let commands = [
        "traceon",
        "traceoff:3",
        "traceon:5 if cmd == 1",
        "!traceon",
        "stacktrace",
        "stacktrace if cmd==1",
        "!traceoff:0",
        "!stacktrace",
        "enable_event:task:task_rename",
        "enable_event:task:task_rename:2 if cmd > 5",
        "disable_event:task:task_newtask:7",
        "disable_event:task:task_rename",
        "!disable_event:task:task_rename",
        "!enable_event:task:task_rename",
        "enable_event:foo:bar",
        "!enable_event:foo:bar",
        "enable_event:task",
        "enable_event",
        "enable_event:",
        "enable_event task:task_rename",
        "!enable_event:task:task_rename:",
        "enable_event:task:task_rename:",
        "enable_event:task:task_rename:2:3",
        "!enable_event:task:task_rename:2",
        "enable_event:task:task_rename:x",
        "bogus",
        "!bogus",
        "traceon:x",
        "traceon:5:6",
        "!traceon",
        "traceoff if foo == 1",
        "traceoff foo",
        "traceoff if",
        "traceoff if ",
        "traceon:0",
        "!traceon if nonsense",
        "traceon:-1",
        "!traceon:-1",
        "traceon:18446744073709551615",
        "!traceon",
        "traceon:18446744073709551616",
        " traceon",
        "!traceon",
        "traceon ",
        "!traceon",
        "! traceon",
        "traceon:0x10",
        "!traceon",
        "traceon:010",
        "!traceon",
        "traceon:08",
        "traceon\tif cmd == 1",
        "!traceon",
        "traceon if cmd == 1 ",
        "!traceon",
        "traceon:3if cmd==1",
        "traceon if  cmd == 1",
        "!traceoff",
        "traceon:",
        "!traceon",
        "traceonx",
        "traceon;",
        "",
        "traceon iff cmd == 1",
        "traceoff :3",
        "traceoff: 3",
        "!traceoff",
        "traceoff 3",
        "!traceoff",
        "stacktrace:5 if cmd == 1 || foo == 2",
        "traceoff:3:foo if cmd == 1",
        "!traceoff",
        "traceoff if (cmd == 1",
        "traceoff if cmd == 1)",
        "traceoff if cmd == 'a",
        "traceoff:9223372036854775807",
        "traceon:2",
        "!traceoff",
        "!disable_event:task:task_newtask",
    ];
    let Some(instance) = Instance::create() else { return };
    let Ok(format) = fs::read_to_string(format!("/sys/kernel/tracing/events/{EVENT}/format")) else {
        return println!("skipped: this kernel has no {EVENT}");
    };
    let mut formats = Formats::new(Target::HOST, Dialect::Kernel);
    formats.add("syscalls", &format).unwrap();
    let mut file = File { event: formats.iter().next().unwrap(), triggers: Vec::new() };
    let mut different = Vec::new();
    for command in commands {
        let theirs = instance.answer(command);
        // While there are none, each kernel lists those that it has.
        let theirs = theirs.map(|text| if text.starts_with("# Available") { String::new() } else { text });
        let ours = file.write(command);
        if ours != theirs {
            different.push(format!("{command:?}\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    let empty = instance.answer("").unwrap();
    let known = empty.trim_start_matches("# Available triggers:\n#").split_whitespace();
    for name in known.filter(|name| !name.ends_with("_hist")) {
        assert!(AVAILABLE.contains(name), "{name} is missing");
    }
}

const FORMAT: &str = "name: kmalloc\nID: 374\nformat:\n\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
    \tfield:unsigned long call_site;\toffset:8;\tsize:8;\tsigned:0;\n\
    \tfield:size_t bytes_req;\toffset:24;\tsize:8;\tsigned:0;\n\
    \tfield:size_t bytes_alloc;\toffset:32;\tsize:8;\tsigned:0;\n\
    \tfield:int node;\toffset:40;\tsize:4;\tsigned:1;\n\
    \tfield:char comm[16];\toffset:44;\tsize:16;\tsigned:0;\n\
    \tfield:__data_loc char[] path;\toffset:60;\tsize:4;\tsigned:0;\n\
    \tfield:u8 blob[200];\toffset:64;\tsize:200;\tsigned:0;\n\n\
    print fmt: \"\"\n";

fn formats() -> Formats {
    let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
    formats.add("kmem", FORMAT).unwrap();
    formats
}

fn add(text: &str) -> Result<Trigger, String> {
    let formats = formats();
    let event = formats.iter().next().unwrap();
    match Command::parse(text, event, &Symbols::default()) {
        Ok(Some(Command::Add(trigger))) => Ok(*trigger),
        Ok(other) => panic!("{text}: {other:?}"),
        Err(error) => Err(error.log(event).unwrap_or_else(|| error.to_string())),
    }
}

#[test]
fn histograms_are_shown_as_the_kernel_shows_them() {
    for (written, shown) in [
        ("hist:keys=call_site", "hist:keys=call_site:vals=hitcount:sort=hitcount:size=2048 [active]"),
        (
            "hist:key=call_site.sym:val=bytes_req,hitcount,bytes_alloc.hex:sort=bytes_req.descending,call_site",
            "hist:keys=call_site.sym:vals=hitcount,bytes_req,bytes_alloc.hex:\
             sort=bytes_req.descending,call_site.sym:size=2048 [active]",
        ),
        (
            "hist:keys=common_pid.execname,bytes_req.buckets=32,cpu:size=1000:name=shared:pause if bytes_req > 8",
            "hist:name=shared:keys=common_pid.execname,bytes_req.buckets=32,common_cpu:vals=hitcount:sort=hitcount:\
             size=1024 if bytes_req > 8 [active]",
        ),
        (
            "hist:keys=stacktrace,common_timestamp.usecs:sort=hitcount.descending",
            "hist:keys=common_stacktrace,common_timestamp.usecs:vals=hitcount:sort=hitcount.descending:size=2048:\
             clock=global [active]",
        ),
        (
            "hist:keys=comm,path:values=bytes_req",
            "hist:keys=comm,path:vals=hitcount,bytes_req:sort=hitcount:size=2048 [active]",
        ),
    ] {
        assert_eq!(add(written).unwrap().text(None, false), shown, "{written}");
    }
    assert!(add("hist:keys=node").unwrap().text(None, true).ends_with(" [paused]"));
}

#[test]
fn wrong_histograms_are_refused_with_the_kernels_words_and_places() {
    for (written, message, column) in [
        ("hist:keys=foo", "Couldn't find field", 10),
        ("hist:keys=call_site:vals=foo", "Couldn't find field", 25),
        ("hist:keys=blob", "Couldn't find field", 10),
        ("hist:keys=", "Empty assignment", 5),
        ("hist:keys=call_site.foo", "Invalid field modifier", 20),
        ("hist:keys=call_site.execname", "Invalid field modifier", 20),
        ("hist:keys=comm.hex", "Invalid field modifier", 15),
        ("hist:keys=node.buckets=x", "Expecting numeric literal", 15),
        ("hist:keys=node:vals=bytes_req.log2", "Invalid field modifier", 20),
        ("hist:keys=node:vals=comm", "String type can not be an operand in expression", 20),
        ("hist:keys=node:x=bytes_req", "Too many variables defined", 15),
        ("hist:keys=node:sort=foo", "Sort field must be a key or a val", 20),
        ("hist:keys=node:sort=node.up", "Invalid sort modifier", 25),
        ("hist:keys=node:sort=,node", "Empty sort field", 15),
        ("hist:keys=node:sort=node,hitcount,node", "Too many sort fields (Max = 2)", 15),
    ] {
        let log = add(written).unwrap_err();
        let caret = " ".repeat("  Command: ".len() + column);
        let expected = format!("hist:kmem:kmalloc: error: {message}\n  Command: {written}\n{caret}^\n");
        assert_eq!(log, expected);
    }
    for written in [
        "hist",
        "hist:",
        "hist:vals=bytes_req",
        "hist:keys=node:size=64",
        "hist:keys=node:size=x",
        "hist:keys=node:foo",
        "hist:keys=node,comm,path,call_site",
        "hist:keys=node:vals=bytes_req,bytes_alloc,node",
        "hist:keys=path,path",
        "hist:if node == 1",
        "hist:keys=node if",
    ] {
        let refused = add(written).unwrap_err();
        assert!(!refused.contains("Command"), "{written}: {refused}");
    }
    let named = TriggerError::of_hist(HistErrorKind::NamedMismatch, "hist:keys=node:name=x");
    assert!(
        named.to_string().ends_with(&format!("\n{}^", " ".repeat("  Command: hist:keys=node:".len()))),
        "{named}"
    );
    let log = add("hist:keys=node if foo == 1").unwrap_err();
    assert!(
        log.starts_with("event filter parse error: error: Field not found\n  Command: foo == 1\n"),
        "{log}"
    );
}

#[test]
fn histograms_are_told_apart() {
    let same = |one: &str, other: &str| add(one).unwrap().is_same(&add(other).unwrap());
    assert!(same("hist:keys=node", "hist:key=node:sort=hitcount:clear"));
    assert!(!same("hist:keys=node", "hist:keys=node.hex"));
    assert!(!same("hist:keys=node", "hist:keys=node if node == 1"));
    assert!(!same("hist:keys=node", "hist:keys=node:name=x"));
    let Action::Hist(hist) = add("hist:keys=node:sort=node.descending:cont").unwrap().action else {
        panic!("a histogram")
    };
    assert_eq!(hist.change, Some(Change::Continue));
    assert_eq!(hist.sort, [SortKey { by: SortBy::Key(0), descending: true }]);
}

/// The `hist` file of a trigger with these rows.
fn table(written: &str, rows: &[HistRow<'_>], hits: u64, dropped: u64) -> String {
    let trigger = add(written).unwrap();
    let info = trigger.text(None, false);
    let Action::Hist(hist) = &trigger.action else { panic!("a histogram") };
    let shape = hist.shape().unwrap();
    assert!(
        rows.iter().all(|row| row.key.len() == shape.key_words() && row.sums.len() == 1 + shape.nr_values())
    );
    let symbols =
        Symbols::parse("0000000000401000 t main\n0000000000401100 t work\n0000000000402000 t _end\n");
    let mut out = Vec::new();
    HistTable { hist, info: &info, rows, hits, dropped }.print(&symbols, &mut out);
    String::from_utf8(out).unwrap()
}

fn row<'a>(key: &'a [u64], sums: &'a [u64]) -> HistRow<'a> {
    HistRow { key, sums, comm: b"worker\0\0\0\0\0\0\0\0\0\0" }
}

/// The layout of the kernel's documentation, Documentation/trace/histogram.rst.
#[test]
fn a_table_has_the_kernels_layout() {
    let rows = [
        row(&[18_446_744_071_580_608_289], &[3, 144]),
        row(&[18_446_744_072_106_379_007], &[1, 176]),
        row(&[18_446_744_071_579_557_049], &[1, 1024]),
    ];
    let expected = "\
# event histogram
#
# trigger info: hist:keys=call_site:vals=hitcount,bytes_req:sort=hitcount:size=2048 [active]
#

{ call_site: 18446744071579557049 } hitcount:          1  bytes_req:       1024
{ call_site: 18446744072106379007 } hitcount:          1  bytes_req:        176
{ call_site: 18446744071580608289 } hitcount:          3  bytes_req:        144

Totals:
    Hits: 5
    Entries: 3
    Dropped: 7
";
    assert_eq!(table("hist:keys=call_site:vals=bytes_req", &rows, 5, 7), expected);
}

/// The lines between the head and the totals.
fn lines(written: &str, rows: &[HistRow<'_>]) -> Vec<String> {
    let text = table(written, rows, 0, 0);
    let (_, rows) = text.split_once("#\n\n").unwrap();
    let (rows, _) = rows.split_once("\nTotals:").unwrap();
    rows.lines().map(str::to_owned).collect()
}

#[test]
fn keys_of_every_kind() {
    let word = |text: &[u8; 8]| u64::from_le_bytes(*text);
    let one = |written, key: &[u64]| lines(written, &[row(key, &[2])]).join("|");
    assert_eq!(one("hist:keys=call_site.hex", &[0xdead]), "{ call_site: dead } hitcount:          2");
    assert_eq!(
        one("hist:keys=call_site.sym", &[0x40_1008]),
        "{ call_site: [401008] main                                          } hitcount:          2"
    );
    assert_eq!(
        one("hist:keys=call_site.sym-offset", &[0x40_1108]),
        "{ call_site: [401108] work+0x8/0xf00                                          } hitcount:          2"
    );
    assert_eq!(
        one("hist:keys=common_pid.execname", &[42]),
        "{ common_pid: worker          [        42] } hitcount:          2"
    );
    assert_eq!(one("hist:keys=bytes_req.log2", &[5]), "{ bytes_req: ~ 2^5  } hitcount:          2");
    assert_eq!(one("hist:keys=bytes_req.buckets=32", &[64]), "{ bytes_req: ~ 64-95 } hitcount:          2");
    assert_eq!(
        one("hist:keys=comm,node", &[word(b"a longer"), word(b" name\0\0\0"), 7]),
        "{ comm: a longer name                                     , node:          7 } hitcount:          2"
    );
    let mut stack = [0; 16];
    stack[..2].copy_from_slice(&[0x40_1010, 0x40_1120]);
    assert_eq!(
        one("hist:keys=common_stacktrace", &stack),
        "{ common_stacktrace:|         main+0x10/0x100|         work+0x20/0xf00|} hitcount:          2"
    );
    let hex = lines("hist:keys=node:vals=bytes_req.hex", &[row(&[1], &[2, 255])]);
    assert_eq!(hex, ["{ node:          1 } hitcount:          2  bytes_req:         ff"]);
}

#[test]
fn rows_are_sorted() {
    let minus = (-1i64).cast_unsigned();
    let below_zero = [minus];
    let rows = [row(&[2], &[1, 9]), row(&below_zero, &[3, 9]), row(&[1], &[2, 5])];
    let order = |written| -> Vec<u64> {
        let lines = lines(written, &rows);
        lines.iter().map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap()).collect()
    };
    assert_eq!(order("hist:keys=node:vals=bytes_req"), [2, 1, minus]);
    assert_eq!(order("hist:keys=node:vals=bytes_req:sort=hitcount.descending"), [minus, 1, 2]);
    assert_eq!(order("hist:keys=node:vals=bytes_req:sort=node"), [minus, 1, 2]);
    assert_eq!(
        order("hist:keys=node:vals=bytes_req:sort=bytes_req.descending,node.descending"),
        [2, minus, 1]
    );
}
