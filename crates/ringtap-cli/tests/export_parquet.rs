//! `ringtap export --to parquet`: what DuckDB and pyarrow read is what we decode ourselves, field for field.
#![cfg(feature = "parquet")]

mod support;
#[path = "support/synthetic.rs"]
mod synthetic;

use ringtap::{Config, Host};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use support::{Temporary, cannot_trace, run, said, signal, until};

fn capture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compliance/capture.dat")
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

/// A Python that has DuckDB and pyarrow; `None` and one line that says why not, which in CI is a failure.
fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parquet-venv");
    let python = folder.join("bin/python");
    let has_both = |python: &Path| {
        let output = Command::new(python).args(["-c", "import duckdb, pyarrow.parquet"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    // Tests of this program run at once; one of them installs.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _guard = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if has_both(&python) {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).output();
    let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "duckdb", "pyarrow"];
    let installed = Command::new(&python).args(arguments).output();
    if made.is_ok_and(|made| made.status.success()) && installed.is_ok() && has_both(&python) {
        return Some(python);
    }
    assert!(
        std::env::var_os("RINGTAP_SKIP_NOTHING").is_none(),
        "DuckDB and pyarrow cannot be installed by pip"
    );
    println!("skipped, as DuckDB and pyarrow cannot be installed by pip");
    None
}

fn export(arguments: &[&str]) {
    let output = run(&[&["export", "--to", "parquet"], arguments].concat());
    assert!(output.status.success(), "{}", said(&output));
}

/// What we decode ourselves, in a file.
fn decoded(trace: &Path, out: &Path) {
    let ours = run(&["report", "--json", path(trace)]);
    assert!(ours.status.success(), "{}", said(&ours));
    fs::write(out, ours.stdout).unwrap();
}

/// What the script counts, once it has found all equal.
fn compared(python: &Path, arguments: &[&Path], hosts: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/read_parquet.py");
    let output = Command::new(python).arg(script).args(arguments).args(hosts).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The traces: a kernel's, and an application's with fields of every kind, odd strings and losses, in both byte orders.
fn traces(temporary: &Temporary) -> Vec<(PathBuf, &'static str)> {
    let mut traces = vec![(capture(), "12092 1 0")];
    for is_big in [false, true] {
        let file = temporary.path().join(format!("kinds-{is_big}.dat"));
        fs::write(&file, synthetic::all_kinds(is_big)).unwrap();
        traces.push((file, "35 3 1"));
    }
    traces
}

#[test]
fn one_file_reads_the_same() {
    let Some(python) = python() else { return };
    let temporary = Temporary::new("parquet-wide");
    for (trace, counts) in traces(&temporary) {
        let [out, json] = ["out.parquet", "out.jsonl"].map(|name| temporary.path().join(name));
        export(&["-o", path(&out), path(&trace)]);
        decoded(&trace, &json);
        assert_eq!(compared(&python, &[&json, &out], &[]), counts, "{}", trace.display());
    }
}

#[test]
fn folders_of_several_hosts_are_one_table() {
    let Some(python) = python() else { return };
    let temporary = Temporary::new("parquet-folder");
    for (place, (trace, counts)) in traces(&temporary).into_iter().enumerate() {
        let [out, json] = ["folder", "jsonl"].map(|name| temporary.path().join(format!("{name}-{place}")));
        let hosts = ["db-1", "web 2/é"];
        let partition = if place == 1 { "event" } else { "hour" };
        for host in hosts {
            export(&["--partition", partition, "--host", host, "-o", path(&out), path(&trace)]);
        }
        decoded(&trace, &json);
        assert_eq!(compared(&python, &[&json, &out], &hosts), counts, "{}", trace.display());
    }
}

#[test]
fn the_pages_example_runs() {
    let Some(python) = python() else { return };
    let temporary = Temporary::new("parquet-page");
    std::os::unix::fs::symlink(capture().canonicalize().unwrap(), temporary.path().join("trace.dat"))
        .unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/export.md");
    let page = fs::read_to_string(page).unwrap();
    let block = |kind: &str| {
        let (_, behind) = page.split_once(&format!("```{kind}\n")).unwrap();
        behind.split("```").next().unwrap().to_owned()
    };
    let folder = Path::new(env!("CARGO_BIN_EXE_ringtap")).parent().unwrap();
    let search = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let run_here = |command: &mut Command| {
        let output = command.current_dir(temporary.path()).env("PATH", &search).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    run_here(Command::new("sh").args(["-ec", &block("sh")]));
    let script = "import duckdb, sys\n\
                  for query in sys.argv[1].split(';')[:-1]: print(len(duckdb.sql(query).fetchall()))";
    let counts = run_here(Command::new(python).args(["-c", script, &block("sql")]));
    let counts: Vec<u32> = counts.lines().map(|count| count.parse().unwrap()).collect();
    // Hosts; events, names and spans.
    assert_eq!((counts.len(), counts[0]), (4, 2), "{counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// The files below a folder, without those that are still written.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap().path();
        match entry.is_dir() {
            true => found.append(&mut files(&entry)),
            false => found.push(entry),
        }
    }
    found.sort();
    found
}

#[test]
fn times_and_names_of_the_machine_are_those_that_were_typed() {
    let temporary = Temporary::new("parquet-origin");
    let out = temporary.path().join("out");
    // 2026-11-22 02:59:59; the trace begins a second later, and its last event is 7 seconds behind that.
    let origin = ["--host", "h", "--boot-id", "b", "--epoch", "1795316399"];
    let trace = temporary.path().join("kinds.dat");
    fs::write(&trace, synthetic::all_kinds(false)).unwrap();
    export(&[&origin[..], &["--partition", "hour", "-e", "words", "-o", path(&out), path(&trace)]].concat());
    let names: Vec<_> = files(&out)
        .iter()
        .map(|file| path(file.parent().unwrap().strip_prefix(&out).unwrap()).to_owned())
        .collect();
    assert_eq!(
        names,
        ["system=app/event=words/hour=2026-11-22-03", "system=ringtap/event=lost/hour=2026-11-22-03"]
    );
    assert!(files(&out).iter().all(|file| path(file).contains("/h-")), "{:?}", files(&out));
}

#[test]
fn nothing_is_left_of_an_export_that_fails() {
    let temporary = Temporary::new("parquet-fails");
    let file = temporary.path().join("file");
    fs::write(&file, "").unwrap();
    let inside = file.join("folder");
    let output =
        run(&["export", "--to", "parquet", "--partition", "event", "-o", path(&inside), path(&capture())]);
    assert_eq!(output.status.code(), Some(1));
    let output = run(&["export", "--to", "parquet", "-o", "ftp://host/folder/", path(&capture())]);
    let said = said(&output);
    assert!(output.status.code() == Some(1) && said.contains("cannot use ftp://host/folder/"), "{said}");
    // Nor does a file take the name of what is none, or of what a link leads away from; nor are folders made for it.
    let socket = temporary.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let link = temporary.path().join("link");
    std::os::unix::fs::symlink(&socket, &link).unwrap();
    let missing = temporary.path().join("no/folder/file");
    for out in [path(&socket), path(&link), path(&missing), "-"] {
        let output = run(&["export", "--to", "parquet", "-o", out, path(&capture())]);
        assert!(!output.status.success(), "{out}");
    }
    assert!(socket.metadata().unwrap().file_type().is_socket() && link.is_symlink());
    fs::remove_file(&link).unwrap();
    fs::remove_file(&socket).unwrap();
    assert_eq!(files(temporary.path()), [file]);
}

ringtap::event! {
    /// Work begins.
    struct WorkBegin as parquet:work_begin { user: u64 }
}

ringtap::event! {
    /// And ends.
    struct WorkEnd<'a> as parquet:work_end { how: &'a str }
}

/// What DuckDB answers about the files of an event in a folder, as Python prints it.
fn asked(python: &Path, folder: &Path, event: &str, columns: &str) -> String {
    let sql = format!("SELECT {columns} FROM '{}/system=*/event={event}/**/*.parquet'", path(folder));
    let script = "import duckdb, sys; print(duckdb.sql(sys.argv[1]).fetchall()[0])";
    let output = Command::new(python).args(["-c", script, &sql]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_application_is_exported_while_it_runs() {
    let Some(python) = python() else { return };
    let temporary = Temporary::new("parquet-attach");
    let host = Host::new(&Config::default()).unwrap();
    let socket = temporary.path().join("app.sock");
    let _server = host.serve(&socket).unwrap();
    WorkBegin::register(&host).unwrap();
    WorkEnd::register(&host).unwrap();
    let writer = host.writer();
    let work = |users: std::ops::Range<u64>| {
        for user in users {
            WorkBegin { user }.write(&writer);
            WorkEnd { how: "w\u{eb}ll" }.write(&writer);
        }
    };
    work(0..600);
    let out = temporary.path().join("out");
    let arguments =
        ["export", "--to", "parquet", "--partition", "hour", "--spans", "-o", path(&out), "--attach"];
    let export = temporary.ringtap().args(arguments).arg(&socket).spawn().unwrap();
    until("the export begins", || out.exists());
    work(600..1000);
    signal(&export, Signal::INT);
    let output = export.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(2), "{}", said(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).ends_with("out: 2000 events, 0 lost\n"),
        "{}",
        said(&output)
    );
    let all = "count(*), count(DISTINCT host), min(length(boot_id)), count(DISTINCT comm), \
               bool_and(abs(epoch(time) - epoch(now()::timestamp)) < 86400)";
    assert_eq!(
        asked(&python, &out, "work_begin", &format!("{all}, sum(\"user\")")),
        "(1000, 1, 36, 1, True, 499500)"
    );
    assert_eq!(
        asked(&python, &out, "work_end", &format!("{all}, min(how)")),
        "(1000, 1, 36, 1, True, 'w\u{eb}ll')"
    );
    let spans =
        "count(*), min(name), min(category), bool_and(duration_ns = epoch_ns(end_time) - epoch_ns(time))";
    assert_eq!(asked(&python, &out, "spans", spans), "(1000, 'work', 'parquet', True)");
    assert!(files(&out).iter().all(|file| !path(file).ends_with(".part")), "{:?}", files(&out));
}

#[test]
fn a_command_and_the_kernel_are_exported_until_it_ends() {
    if cannot_trace() {
        return;
    }
    let Some(python) = python() else { return };
    let temporary = Temporary::new("parquet-command");
    let out = temporary.path().join("out");
    let arguments = ["export", "--to", "parquet", "--partition", "event", "-o", path(&out), "--kernel"];
    let command = ["-e", "sched:sched_process_exec", "--", "sh", "-c", "/bin/true; /bin/true; exit 7"];
    let output = run(&[&arguments[..], &command].concat());
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    let columns = "count(*) FILTER (filename = '/bin/true'), count(DISTINCT boot_id)";
    assert_eq!(asked(&python, &out, "sched_process_exec", columns), "(2, 1)");
    // One file of the whole trace needs to know its events first.
    let refused = run(&["export", "--to", "parquet", "-o", path(&out), "--kernel", "--", "true"]);
    assert!(
        refused.status.code() == Some(1) && said(&refused).contains("--partition event"),
        "{}",
        said(&refused)
    );
}

/// An object store in this process.
#[cfg(feature = "remote")]
mod store {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    /// Objects by name, as a store keeps them that speaks S3.
    pub(crate) type Objects = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

    /// Answers PUTs of objects, until the test ends.
    pub(crate) fn object_store() -> (String, Objects) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let objects = Objects::default();
        let kept = Arc::clone(&objects);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let objects = Arc::clone(&objects);
                std::thread::spawn(move || answer(stream.unwrap(), &objects));
            }
        });
        (endpoint, kept)
    }

    fn answer(stream: TcpStream, objects: &Objects) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let mut words = line.split(' ');
            let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
            let mut len = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                let (name, value) = header.split_once(':').unwrap_or((header.trim(), ""));
                match name.to_lowercase().as_str() {
                    "" => break,
                    "content-length" => len = value.trim().parse().unwrap(),
                    _ => {}
                }
            }
            let mut body = vec![0; len];
            reader.read_exact(&mut body).unwrap();
            assert_eq!(method, "PUT", "{target}");
            objects.lock().unwrap().push((target, body));
            let done = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n";
            reader.get_mut().write_all(done.as_bytes()).unwrap();
        }
    }
}

#[cfg(feature = "remote")]
#[test]
fn an_object_store_gets_the_same_files() {
    let temporary = Temporary::new("parquet-store");
    let trace = capture();
    let (endpoint, objects) = store::object_store();
    for to in ["s3://traces/hosts/one.parquet", "s3://traces/hosts"] {
        let mut command = support::ringtap();
        command.env("AWS_ENDPOINT", &endpoint).env("AWS_ALLOW_HTTP", "true").env("AWS_REGION", "none");
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        let partition: &[&str] = if to.ends_with(".parquet") { &[] } else { &["--partition", "event"] };
        let arguments = [&["export", "--to", "parquet", "--host", "h", "-o", to], partition, &[path(&trace)]];
        let output = command.args(arguments.concat()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    // As they would be found in a folder.
    let folder = temporary.path().join("folder");
    for (target, body) in objects.lock().unwrap().iter() {
        let name = target.strip_prefix("/traces/hosts/").unwrap();
        let name = name.split('?').next().unwrap().replace("%3D", "=");
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, body).unwrap();
    }
    let Some(python) = python() else { return };
    let json = temporary.path().join("jsonl");
    decoded(&capture(), &json);
    let one = folder.join("one.parquet");
    assert_eq!(compared(&python, &[&json, &one], &[]), "12092 1 0");
    fs::remove_file(one).unwrap();
    assert_eq!(compared(&python, &[&json, &folder], &["h"]), "12092 1 0");
}
