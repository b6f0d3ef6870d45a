//! The program as its users meet it: its texts, its exit statuses, and what it leaves behind.

mod support;

use rustix::process::{Signal, WaitId, WaitIdOptions};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{cannot_trace, pid, ringtap, run, said, said_of_tracefs, signal};

#[test]
fn help_texts() {
    insta::assert_snapshot!("help", said(&run(&["--help"])));
    insta::assert_snapshot!("help-demo", said(&run(&["demo", "--help"])));
    insta::assert_snapshot!("help-stream", said(&run(&["stream", "--help"])));
    insta::assert_snapshot!("help-export", said(&run(&["export", "--help"])));
    insta::assert_snapshot!("help-query", said(&run(&["query", "--help"])));
    insta::assert_snapshot!("help-record", said(&run(&["record", "--help"])));
    insta::assert_snapshot!("help-report", said(&run(&["report", "--help"])));
    insta::assert_snapshot!("help-stat", said(&run(&["stat", "--help"])));
    insta::assert_snapshot!("help-serve", said(&run(&["serve", "--help"])));
    insta::assert_snapshot!("help-recover", said(&run(&["recover", "--help"])));
    insta::assert_snapshot!("help-mount", said(&run(&["mount", "--help"])));
    insta::assert_snapshot!("help-exec", said(&run(&["exec", "--help"])));
    insta::assert_snapshot!("help-completions", said(&run(&["completions", "--help"])));
    insta::assert_snapshot!("help-man", said(&run(&["man", "--help"])));
}

#[test]
fn wrong_usage() {
    insta::assert_snapshot!("usage-no-command", said(&run(&[])));
    insta::assert_snapshot!("usage-unknown-command", said(&run(&["stats"])));
    insta::assert_snapshot!("usage-interval", said(&run(&["stat", "--kernel", "--interval", "0"])));
    insta::assert_snapshot!("usage-ownership", said(&run(&["mount", "-o", "gid=x", "/tmp"])));
    insta::assert_snapshot!("usage-two-sources", said(&run(&["stat", "--kernel", "--attach", "s"])));
}

#[test]
fn completions_and_manual_name_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(&["completions", shell]);
        assert!(script.status.success() && script.stderr.is_empty());
        let script = String::from_utf8(script.stdout).unwrap();
        for word in [
            "demo",
            "stream",
            "report",
            "recover",
            "stat",
            "completions",
            "man",
            "interval",
            "attach",
            "consume",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let page = String::from_utf8(run(&["man"]).stdout).unwrap();
    for command in ["demo", "stream", "report", "recover", "stat", "completions", "man"] {
        assert!(page.contains(&format!("ringtap\\-{command}(1)")), "{command}: {page}");
    }
    assert!(!page.contains("demo\\-worker"), "hidden commands stay hidden");
    let page = String::from_utf8(run(&["man", "stat"]).stdout).unwrap();
    assert!(page.contains(".TH ringtap-stat 1") && page.contains("\\-\\-interval"), "{page}");
    insta::assert_snapshot!("man-unknown", said(&run(&["man", "held"])));
}

#[test]
fn a_closed_pipe_is_success() {
    for arguments in [&["--help"][..], &["completions", "bash"], &["man"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = ringtap().args(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(said(&output), "status Some(0), stderr:\n", "{arguments:?}");
    }
}

#[test]
fn stat_shows_the_kernels_counters() {
    if cannot_trace() {
        return;
    }
    let table = String::from_utf8(run(&["stat", "--kernel"]).stdout).unwrap();
    let heading: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["CPU", "entries", "read", "overrun", "dropped", "bytes", "commit-ovr"]);
    assert!(!table.contains('\x1b'), "no colours, and nothing drawn over, outside a terminal");

    let tracefs = ringtap::tracefs::Tracefs::find().unwrap();
    let instance = tracefs.create_instance().unwrap();
    instance.set_recording(true).unwrap();
    instance.write_marker("one event").unwrap();
    let name = instance.path().file_name().unwrap().to_str().unwrap();
    let json = run(&["stat", "--json", &format!("--kernel={name}")]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let cpus = json["cpus"].as_array().unwrap();
    assert_eq!(cpus.len(), tracefs.cpus().unwrap().len());
    assert_eq!(cpus.iter().map(|cpu| cpu["entries"].as_u64().unwrap()).sum::<u64>(), 1);
    insta::assert_snapshot!("stat-unknown-instance", said_of_tracefs(&run(&["stat", "--kernel=no-such"])));
}

#[test]
fn stat_ends_by_a_signal_and_by_a_closed_pipe() {
    if cannot_trace() {
        return;
    }
    for (number, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut stat = ringtap();
        let stat = stat.args(["stat", "--kernel", "--json", "--interval", "60"]).stdout(Stdio::piped());
        let mut stat = stat.spawn().unwrap();
        // Its first line is out, so its handlers stand.
        let mut first = [0];
        std::io::Read::read_exact(stat.stdout.as_mut().unwrap(), &mut first).unwrap();
        signal(&stat, number);
        assert_eq!(stat.wait().unwrap().signal(), Some(status - 128));
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut stat = ringtap();
    let stat = stat.args(["stat", "--kernel", "--interval", "0.01"]).stdout(writer).stderr(Stdio::piped());
    assert_eq!(said(&stat.output().unwrap()), "status Some(0), stderr:\n");
}

#[test]
fn what_is_missing_is_one_sentence_with_its_remedy() {
    if cannot_trace() || !rustix::process::geteuid().is_root() {
        return;
    }
    let unmounted = "umount -a -t tracefs && exec \"$0\" stat --kernel";
    let mut without = Command::new("unshare");
    let without = without.args(["--mount", "sh", "-c", unmounted, env!("CARGO_BIN_EXE_ringtap")]);
    insta::assert_snapshot!("no-tracefs", said(&without.output().unwrap()));

    // Started by root through a descriptor, as others may not enter the folders that lead to it.
    let mut nobody = Command::new("setpriv");
    let nobody = nobody.args(["--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]);
    let nobody = nobody.args([env!("CARGO_BIN_EXE_ringtap"), "stat", "--kernel"]).output().unwrap();
    if nobody.status.code() == Some(127) || nobody.status.code() == Some(126) {
        println!("skipped, as nobody else may run the program here");
        return;
    }
    insta::assert_snapshot!("no-permission", said_of_tracefs(&nobody));
}

/// A held command, stopped.
fn held(command: &[&str]) -> Child {
    let mut held = ringtap();
    held.args(["held", "--parent", &std::process::id().to_string(), "--"]).args(command);
    let held = held.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = rustix::process::waitid(WaitId::Pid(pid(&held)), options).unwrap().unwrap();
    assert!(status.stopped());
    held
}

#[test]
fn a_held_command_begins_when_told_and_is_itself() {
    let script = ["sh", "-c", "grep SigIgn /proc/self/status; echo $$; exit 7"];
    let directly = support::with_signals(script[0]).args(&script[1..]).output().unwrap().stdout;
    let ignored = String::from_utf8(directly).unwrap().lines().next().unwrap().to_owned();
    let held_shell = held(&script);
    let id = held_shell.id();
    std::thread::sleep(Duration::from_millis(20));
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    assert!(status.contains("State:\tT (stopped)"), "{status}");
    signal(&held_shell, Signal::CONT);
    let output = held_shell.wait_with_output().unwrap();
    // A broken pipe has to end the command as it would without us, so SIGPIPE is not ignored.
    assert_eq!(said(&output), format!("status Some(7), stdout:\n{ignored}\n{id}\n"));
}

#[test]
fn a_command_that_cannot_run_is_told_as_shells_do() {
    for (name, command) in [("held-not-found", "no-such-command"), ("held-not-executable", "/etc/passwd")] {
        let held = held(&[command]);
        signal(&held, Signal::CONT);
        insta::assert_snapshot!(name, said(&held.wait_with_output().unwrap()));
    }
}

#[test]
fn a_held_command_dies_with_its_parent() {
    // The shell is the parent; it is gone before anybody continues the command.
    let script = "\"$0\" held --parent $$ -- touch \"$1\" & \
                  while ! grep -q '^State:.T' /proc/$!/status; do :; done; echo $!; kill -9 $$";
    let touched = std::env::temp_dir().join(format!("ringtap-held-{}", std::process::id()));
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", script, env!("CARGO_BIN_EXE_ringtap")]).arg(&touched);
    let output = shell.stderr(Stdio::null()).output().unwrap();
    assert_eq!(output.status.signal(), Some(9));
    let held = String::from_utf8(output.stdout).unwrap();
    let status = format!("/proc/{}/status", held.trim());
    for _ in 0..200 {
        // A zombie has ended too; who reaps it is not our business.
        let state = std::fs::read_to_string(&status).unwrap_or_default();
        if state.is_empty() || state.contains("State:\tZ") {
            assert!(!touched.exists());
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the held process outlives its parent");
}

#[cfg(not(feature = "query"))]
#[test]
fn what_was_not_built_is_told() {
    insta::assert_snapshot!("query-not-built", said(&run(&["query", "trace.dat", "SELECT 1"])));
}
