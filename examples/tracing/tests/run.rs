//! The examples run, and what they trace is seen from outside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The `ringtap` program, where somebody built it: the one that the variable `RINGTAP` names, or the workspace's.
fn ringtap() -> Option<PathBuf> {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target");
    let named = std::env::var_os("RINGTAP").map(PathBuf::from);
    let built = ["debug", "release"].map(|profile| PathBuf::from(format!("{workspace}/{profile}/ringtap")));
    let found = named.into_iter().chain(built).find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var_os("RINGTAP_SKIP_NOTHING").is_none(), "the steps before this one build it");
        println!("skipped: there is no `ringtap` program; `cargo build -p ringtap-cli` makes it");
    }
    found
}

/// Ended with the test, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_tool_is_seen_live() {
    let Some(ringtap) = ringtap() else { return };
    let output = Command::new(ringtap)
        .args(["stream", "--json", "--", env!("CARGO_BIN_EXE_words"), "Cargo.toml", "no-such-file"])
        .output()
        .expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for part in ["count_enter", "count_exit", "Cargo.toml", "no-such-file", "\"skipped\"", "\"read\""] {
        assert!(text.contains(part), "{part} is in {text}");
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn a_servers_requests_are_seen_live() {
    let Some(ringtap) = ringtap() else { return };
    let mut server = Command::new(env!("CARGO_BIN_EXE_web"));
    server.env_remove("RINGTAP_SOCKET").env("XDG_RUNTIME_DIR", std::env::temp_dir()).stdout(Stdio::piped());
    let mut server = Running(server.spawn().expect("it runs"));
    let mut said = BufReader::new(server.0.stdout.take().expect("a pipe")).lines();
    let mut line = || said.next().expect("a line").expect("UTF-8");
    let (url, attach) = (line(), line());
    let address = url.strip_prefix("http://").expect("its address");
    let socket = attach.strip_prefix("ringtap stream --attach ").expect("its socket");
    let mut stream = Command::new(ringtap);
    stream.args(["stream", "--json", "--attach", socket]).stdout(Stdio::piped());
    let mut stream = Running(stream.spawn().expect("it runs"));
    let mut seen = BufReader::new(stream.0.stdout.take().expect("a pipe")).lines();
    assert!(get(address, "/").ends_with("hello\n"));
    assert!(get(address, "/sleep/20").contains("slept 20 ms"));
    assert!(get(address, "/missing").starts_with("HTTP/1.1 404"));
    // Each line comes while the server runs.
    for part in
        ["\"path\":\"/\"", "request_enter", "\"status\":200", "going to sleep", "/missing", "\"status\":404"]
    {
        let found = seen.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.contains(part)));
        assert!(found.is_some(), "{part} is seen");
    }
    // SAFETY: our own child, not yet waited for.
    unsafe { libc::kill(server.0.id().cast_signed(), libc::SIGINT) };
    assert!(server.0.wait().expect("a child").success());
}

#[test]
fn a_jobs_processes_write_into_one_trace() {
    let mut job = Command::new(env!("CARGO_BIN_EXE_job"));
    job.env_remove("RINGTAP_SOCKET").env("XDG_RUNTIME_DIR", std::env::temp_dir());
    let output = job.output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    // Three workers write 1000 items, the killed one 501, each of four events: made, entered, the event, left. The host
    // tells of four ends.
    assert_eq!(text.trim(), "14008 events of 4 workers", "{}", String::from_utf8_lossy(&output.stderr));
}
