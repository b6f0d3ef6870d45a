//! `ringtap export` as it happens: an application's events, and the kernel's.

mod support;

use ringtap::{Config, Host};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use support::{Temporary, cannot_trace, run, said, signal, until};

ringtap::event! {
    /// Work begins.
    struct WorkBegin as live:work_begin { flow: u64 }
}

ringtap::event! {
    /// And ends.
    struct WorkEnd<'a> as live:work_end { how: &'a str }
}

#[test]
fn an_application_is_exported_until_somebody_stops_it() {
    let temporary = Temporary::new("export-attach");
    let host = Host::new(&Config::default()).unwrap();
    let socket = temporary.path().join("app.sock");
    let _server = host.serve(&socket).unwrap();
    WorkBegin::register(&host).unwrap();
    WorkEnd::register(&host).unwrap();
    let writer = host.writer();
    for round in 1..=1000 {
        WorkBegin { flow: round }.write(&writer);
        WorkEnd { how: "we\"ll\n" }.write(&writer);
    }
    let out = temporary.path().join("trace.json");
    let arguments = ["export", "--to", "chrome", "-o", out.to_str().unwrap(), "--attach"];
    let export = temporary.ringtap().args(arguments).arg(&socket).spawn().unwrap();
    until("the export begins", || out.exists());
    signal(&export, Signal::INT);
    let output = export.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.ends_with("trace.json: 2000 events, 0 lost\n"), "{stderr}");

    let objects: Vec<Value> = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    let of = |kind: &str| objects.iter().filter(|object| object["ph"] == kind).cloned().collect::<Vec<_>>();
    let (begun, ended) = (of("B"), of("E"));
    assert_eq!((begun.len(), ended.len()), (1000, 1000));
    assert!(begun.iter().all(|span| span["name"] == "work" && span["cat"] == "live"));
    assert!(ended.iter().all(|span| span["args"]["how"] == "we\"ll\n"));
    // The thread is shown in its process, which can still be asked for.
    assert!(begun.iter().all(|span| span["pid"] == std::process::id()), "{:?}", begun[0]);
    assert_eq!(of("s").len(), 1000);
}

#[test]
fn a_command_is_exported_until_it_ends() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("export-kernel");
    let out = temporary.path().join("ctf");
    let arguments = ["export", "--to", "ctf", "-o", out.to_str().unwrap(), "--kernel"];
    let command = ["-e", "sched:sched_process_exec", "--", "sh", "-c", "/bin/true; exit 7"];
    let output = run(&[&arguments[..], &command].concat());
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    let metadata = fs::read_to_string(out.join("metadata")).unwrap();
    assert!(metadata.contains("name = \"sched:sched_process_exec\";"), "{metadata}");
    assert!(metadata.contains("string { encoding = UTF8; } _filename;"), "{metadata}");
    let streams: Vec<_> =
        fs::read_dir(&out).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    let has = |name: &[u8]| streams.iter().any(|bytes| bytes.windows(name.len()).any(|held| held == name));
    assert!(has(b"/bin/true\0"), "{}", said(&output));
}

#[test]
fn what_makes_no_sense_is_told() {
    let refused = |arguments: &[&str]| {
        said(&run(&[&["export", "--to", "chrome", "-o", "/nowhere/out.json"], arguments].concat()))
    };
    insta::assert_snapshot!(
        "export-live-filter",
        refused(&["-e", "a:b", "-F", "x == 1", "--attach", "/nowhere"])
    );
    insta::assert_snapshot!("export-no-socket", refused(&["--attach", "/nowhere"]));
    insta::assert_snapshot!("export-no-source", refused(&[]));
}
