//! A host, programs that are traced into it, and what they wrote.

#![allow(dead_code, reason = "each test program uses its part")]

use ringtap::serve::Server;
use ringtap::{Config, Host, Item};
use ringtap_format::{Context, Dialect, Formats, Strings, Symbols, Target, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The library, built: for tests, cargo makes only what they are linked with.
pub(crate) fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "ringtap-preload"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo is there").success());
        let test = std::env::current_exe().expect("tests are files");
        test.parent().and_then(Path::parent).expect("in a folder").join("libringtap_preload.so")
    };
    BUILT.get_or_init(build).clone()
}

/// A folder of a test's own, removed with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringtap-preload-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder can be made");
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Compiles a program of C's.
    pub(crate) fn compile(&self, name: &str, source: &str, options: &[&str]) -> PathBuf {
        let (file, program) = (self.join(&format!("{name}.c")), self.join(name));
        std::fs::write(&file, source).expect("it can be written");
        let mut compiler = Command::new("cc");
        compiler.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-fno-builtin", "-pthread", "-o"]);
        compiler.arg(&program).arg(&file).args(options);
        let output = compiler.output().expect("there is a C compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An event as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) system: String,
    pub(crate) name: String,
    pub(crate) tid: u32,
    pub(crate) ticks: u64,
    pub(crate) ints: BTreeMap<String, i64>,
    pub(crate) text: String,
}

impl Event {
    pub(crate) fn int(&self, field: &str) -> i64 {
        *self.ints.get(field).unwrap_or_else(|| panic!("{} has no {field}: {:?}", self.name, self.ints))
    }
}

/// What came of traced programs.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// In the order of their times.
    pub(crate) events: Vec<Event>,
    pub(crate) lost: u64,
}

impl Trace {
    pub(crate) fn of<'t>(&'t self, name: &str) -> impl Iterator<Item = &'t Event> {
        self.events.iter().filter(move |event| event.name == name)
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.of(name).count()
    }
}

/// A host that programs are traced into.
pub(crate) struct Tracer {
    pub(crate) host: Host,
    server: Server,
    _folder: Folder,
}

impl Tracer {
    /// A host whose buffers have this many sub-buffers of 64 KiB each.
    pub(crate) fn new(subbufs: u32) -> Self {
        let config = Config { subbuf_size: 1 << 16, ring_subbufs: subbufs, ..Config::default() };
        let host = Host::new(&config).expect("there is memory");
        let folder = Folder::new();
        let server = host.serve(folder.join("socket")).expect("it can be served");
        Self { host, server, _folder: folder }
    }

    /// A command whose events of these patterns come here; all, where there is none.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>, events: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LD_PRELOAD", library()).env("RINGTAP_SOCKET", self.server.path());
        command.env("RINGTAP_PRELOAD_EVENTS", events).env("RINGTAP_PRELOAD_VERBOSE", "1");
        command
    }

    /// Everything written so far and not read before.
    pub(crate) fn read(&self) -> Trace {
        let mut formats = Formats::new(Target::HOST, Dialect::Kernel);
        for event in self.host.events() {
            formats.add(&event.system, &event.format).expect("the host checked it");
        }
        let mut trace = Trace::default();
        for mut reader in self.host.readers().expect("nobody else reads") {
            while let Some(item) = reader.next().expect("the host is here") {
                match item {
                    Item::Record(record) => {
                        let (bytes, ticks) = (record.payload.to_vec(), record.ticks);
                        trace.events.push(decode(&formats, &bytes, ticks));
                    }
                    Item::Lost(lost) => trace.lost += lost.count.expect("ours are counted"),
                    other => panic!("{other:?}"),
                }
            }
        }
        trace.events.sort_by_key(|event| event.ticks);
        trace
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, command: &mut Command) -> (Output, Trace) {
        let output = command.output().expect("the command runs");
        (output, self.read())
    }
}

fn decode(formats: &Formats, record: &[u8], ticks: u64) -> Event {
    let event = formats.of_record(record).expect("all events were declared");
    let context = Context { symbols: &Symbols::default(), strings: &Strings::default(), hz: None };
    let mut text = Vec::new();
    event.print(record, &context, &mut text).expect("it can be printed");
    let int = |field: &ringtap_format::Field| match field.value(record, formats.target()) {
        Some(Value::Signed(value)) => Some((field.name.clone(), value)),
        Some(Value::Unsigned(value) | Value::Address(value)) => {
            Some((field.name.clone(), value.cast_signed()))
        }
        _ => None,
    };
    Event {
        system: event.system().to_owned(),
        name: event.name().to_owned(),
        tid: u32::from_le_bytes(record[4..8].try_into().expect("four bytes")),
        ticks,
        ints: event.fields().iter().filter_map(int).collect(),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}
