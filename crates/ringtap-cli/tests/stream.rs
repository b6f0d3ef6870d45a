//! `ringtap stream` and `ringtap stat --attach`: applications, the live kernel, both, and what can be in the way.

mod support;

use ringtap::{Config, Host};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{Temporary, cannot_trace, children, run, runs, said, signal, until};

ringtap::event! {
    /// A request was answered.
    struct Answered<'a> as shop:answered { status: u16, path: &'a str }
    print "%s -> %u", path, status;
}

ringtap::event! {
    /// A request came.
    struct Asked as shop:asked { size: u32 }
}

/// Those who use the events above take turns: a process has one id for an event.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// A host with four events of two kinds.
struct Shop {
    host: Host,
    socket: PathBuf,
    _server: ringtap::serve::Server,
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Shop {
    fn open(temporary: &Temporary) -> Self {
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let host = Host::new(&Config::default()).unwrap();
        let socket = temporary.path().join("shop.sock");
        let server = host.serve(&socket).unwrap();
        for unregister in [Answered::declared(), Asked::declared()] {
            unregister.unregister();
        }
        Answered::register(&host).unwrap();
        Asked::register(&host).unwrap();
        let shop = Self { host, socket, _server: server, _turn: turn };
        shop.sell();
        shop
    }

    fn sell(&self) {
        let writer = self.host.writer();
        for (size, status, path) in [(100, 200, "/"), (5, 404, "/nowhere\x1b[31m")] {
            Asked { size }.write(&writer);
            Answered { status, path }.write(&writer);
        }
    }

    fn socket(&self) -> &str {
        self.socket.to_str().unwrap()
    }
}

/// Ends a stream by SIGINT once it has printed `lines` lines.
fn first_lines(temporary: &Temporary, arguments: &[&str], lines: usize) -> Vec<String> {
    let mut stream = temporary.ringtap().arg("stream").args(arguments).spawn().unwrap();
    let stdout = BufReader::new(stream.stdout.take().unwrap());
    let mut seen = Vec::new();
    for line in stdout.lines().map(Result::unwrap) {
        seen.push(line);
        if seen.len() == lines {
            signal(&stream, Signal::INT);
        }
    }
    let output = stream.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(2), "{}", said(&output));
    seen
}

#[test]
fn an_application_is_followed_without_consuming() {
    let temporary = Temporary::new("stream-attach");
    let shop = Shop::open(&temporary);
    let socket = shop.socket();
    for _ in 0..2 {
        let lines = first_lines(&temporary, &["--attach", socket], 4);
        assert!(lines[0].ends_with(": asked: size=100"), "{lines:?}");
        assert!(lines[1].ends_with(": answered: / -> 200"), "{lines:?}");
        assert!(lines[3].ends_with(": answered: /nowhere\\x1b[31m -> 404"), "steers no terminal: {lines:?}");
        assert_eq!(lines.len(), 4);
    }
    let only = first_lines(&temporary, &["--attach", socket, "-e", "shop:ans*", "--json"], 2);
    let answered: Value = serde_json::from_str(&only[1]).unwrap();
    assert_eq!((&answered["event"], &answered["fields"]["status"]), (&"answered".into(), &404.into()));
    assert_eq!(answered["pid"].as_u64(), Some(u64::from(ringtap::thread::id())));
    let read: u64 = shop.host.cpus().iter().map(|&cpu| shop.host.stats(cpu).unwrap().read_events).sum();
    assert_eq!(read, 0);
}

#[test]
fn each_layout_has_its_header() {
    let temporary = Temporary::new("stream-layout");
    let shop = Shop::open(&temporary);
    let of = |layout, lines| first_lines(&temporary, &["--attach", shop.socket(), "--layout", layout], lines);
    let (ftrace, trace_cmd, json) = (of("ftrace", 16), of("trace-cmd", 5), of("json", 4));
    let cpus = shop.host.cpus().len();
    assert_eq!(ftrace[0], "# tracer: nop");
    assert_eq!(ftrace[2], format!("# entries-in-buffer/entries-written: 0/0   #P:{cpus}"));
    assert!(ftrace[12].ends_with(": asked: size=100"), "{ftrace:?}");
    assert_eq!(trace_cmd[0], format!("cpus={cpus}"));
    assert!(trace_cmd[2].contains(": answered:             / -> 200"), "{trace_cmd:?}");
    assert!(trace_cmd[4].contains("/nowhere\\x1b[31m"), "steers no terminal: {trace_cmd:?}");
    let asked: Value = serde_json::from_str(&json[0]).unwrap();
    assert_eq!(asked["event"], "asked");
}

#[test]
fn a_consuming_stream_is_alone() {
    let temporary = Temporary::new("stream-consume");
    let shop = Shop::open(&temporary);
    let arguments = ["stream", "--attach", shop.socket(), "--consume"];
    let mut first = temporary.ringtap().args(arguments).spawn().unwrap();
    let mut stdout = BufReader::new(first.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let second = temporary.ringtap().args(arguments).output().unwrap();
    let shown = said(&second).replace(shop.socket(), "SOCKET").replace(&first.id().to_string(), "PID");
    insta::assert_snapshot!("stream-consumed", shown);
    signal(&first, Signal::TERM);
    assert_eq!(first.wait().unwrap().signal(), Some(15));
    let read: u64 = shop.host.cpus().iter().map(|&cpu| shop.host.stats(cpu).unwrap().read_events).sum();
    assert_eq!(read, 4);
    // The claim went with the process.
    shop.sell();
    assert_eq!(first_lines(&temporary, &arguments[1..], 4).len(), 4);
}

#[test]
fn the_end_of_the_host_ends_the_stream() {
    for how in ["--new", "--consume"] {
        let temporary = Temporary::new(&format!("stream-end{how}"));
        let shop = Shop::open(&temporary);
        let mut stream = temporary.ringtap();
        let stream = stream.args(["stream", how, "--attach", shop.socket()]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let socket = shop.socket().to_owned();
        drop(shop);
        let output = stream.wait_with_output().unwrap();
        let expected = format!("ringtap: the host of {socket} has ended\n");
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn stat_shows_a_hosts_counters() {
    let temporary = Temporary::new("stat-attach");
    let shop = Shop::open(&temporary);
    let output = run(&["stat", "--json", "--attach", shop.socket()]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cpus = json["cpus"].as_array().unwrap();
    assert_eq!(cpus.iter().map(|cpu| cpu["entries"].as_u64().unwrap()).sum::<u64>(), 4);
    assert_eq!(cpus.len(), shop.host.cpus().len());
}

/// What `ringtap ARGUMENTS` says, the socket's path left out.
fn refusal(arguments: &[&str], socket: &Path) -> String {
    said(&run(arguments)).replace(socket.to_str().unwrap(), "SOCKET")
}

#[test]
fn who_cannot_attach_is_told_why() {
    let temporary = Temporary::new("refused");
    let socket = temporary.path().join("a.sock");
    let path = socket.to_str().unwrap();
    let attach = ["stream", "--attach", path];
    insta::assert_snapshot!("attach-no-socket", refusal(&attach, &socket));
    insta::assert_snapshot!("attach-no-socket-stat", refusal(&["stat", "--attach", path], &socket));
    fs::write(&socket, "").unwrap();
    insta::assert_snapshot!("attach-a-file", refusal(&attach, &socket));
    fs::remove_file(&socket).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    insta::assert_snapshot!("attach-dead", refusal(&attach, &socket));
    fs::remove_file(&socket).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    insta::assert_snapshot!("attach-other-program", refusal(&attach, &socket));
    fs::remove_file(&socket).unwrap();

    let babbler = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::bind(&babbler, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
    rustix::net::listen(&babbler, 8).unwrap();
    let babble = std::thread::spawn(move || {
        let client = rustix::net::accept(&babbler).unwrap();
        rustix::io::write(&client, b"good morning").unwrap();
        client
    });
    insta::assert_snapshot!("attach-babbler", refusal(&attach, &socket));
    drop(babble.join());
}

#[test]
fn an_event_that_no_host_has_is_told() {
    let temporary = Temporary::new("unknown-event");
    let shop = Shop::open(&temporary);
    let unknown = ["stream", "--attach", shop.socket(), "-e", "shop:answred"];
    insta::assert_snapshot!("attach-unknown-event", refusal(&unknown, &shop.socket));
    let unknown = ["stream", "-e", "shop:answred", "--", "true"];
    insta::assert_snapshot!("command-unknown-event", refusal(&unknown, &shop.socket));
}

#[test]
fn another_user_may_not_attach() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped, as only root can become another user");
    }
    let temporary = Temporary::new("other-user");
    let shop = Shop::open(&temporary);
    let mut nobody = Command::new("setpriv");
    nobody.args(["--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]);
    nobody.args([env!("CARGO_BIN_EXE_ringtap"), "stream", "--attach", shop.socket()]);
    let output = nobody.output().unwrap();
    if matches!(output.status.code(), Some(126 | 127)) {
        return println!("skipped, as nobody else may run the program here");
    }
    insta::assert_snapshot!("attach-other-user", said(&output).replace(shop.socket(), "SOCKET"));
}

/// A program that uses ringtap, found by the socket's variable: one of the demo's workers.
const WORKER: &str = "exec \"$0\" demo-worker --parent $PPID --index 0 --of 1 --milliseconds 60000 \"$1\"";

fn worker<'a>() -> [&'a str; 5] {
    let (ringtap, folder) = (env!("CARGO_BIN_EXE_ringtap"), concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    ["sh", "-c", WORKER, ringtap, folder]
}

/// The JSON lines that are events; the command's own output is among them.
fn events(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["ts"].is_u64()).collect()
}

#[test]
fn a_command_that_uses_ringtap_is_followed() {
    let temporary = Temporary::new("stream-command");
    let output = temporary.ringtap().args(["stream", "--json", "--"]).args(worker()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    let events = events(&output);
    let hashed = events.iter().filter(|event| event["event"] == "file_hashed").count();
    assert!(hashed > 10, "{}", said(&output));
    assert!(temporary.is_empty(), "neither socket nor folder stays");
    let status = |script: &str| run(&["stream", "--", "sh", "-c", script]).status.code();
    assert_eq!((status("exit 7"), status("kill -9 $$")), (Some(7), Some(137)));
}

fn instances() -> Vec<String> {
    let tracefs = ringtap::tracefs::Tracefs::find().unwrap();
    let entries = fs::read_dir(tracefs.root().join("instances")).unwrap();
    entries.flatten().map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// The instances of a process, whose number their names hold.
fn instances_of(pid: u32) -> Vec<String> {
    let is_its = |name: &String| name.split(['-', '.']).any(|part| part == pid.to_string());
    instances().into_iter().filter(|name| name.starts_with("ringtap")).filter(is_its).collect()
}

#[test]
fn the_kernels_events_of_a_command_are_followed() {
    if cannot_trace() {
        return;
    }
    let output = run(&["stream", "--kernel", "--json", "--", "sh", "-c", "/bin/true; echo done"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    let events = events(&output);
    let executed = |program: &str| {
        let is_it = |event: &&Value| {
            let path = event["fields"]["filename"].as_str().unwrap_or_default();
            event["event"] == "sched_process_exec" && path.ends_with(program)
        };
        let event = events.iter().find(is_it).unwrap_or_else(|| panic!("{program}: {}", said(&output)));
        assert_eq!((event["source"].as_str(), event["system"].as_str()), (Some("kernel"), Some("sched")));
        assert_eq!(event["comm"].as_str(), Some(program.trim_start_matches('/')));
        event["pid"].as_u64().unwrap()
    };
    let (shell, child) = (executed("/sh"), executed("/true"));
    assert_ne!(shell, child);
    assert!(events.iter().all(|event| [shell, child].contains(&event["pid"].as_u64().unwrap())));
    let text = run(&["stream", "--kernel", "--", "/bin/true"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(": sched_process_exec: filename=/bin/true pid="), "{text}");
    let has_calls = fs::exists("/sys/kernel/tracing/events/syscalls").unwrap_or(false);
    assert!(!has_calls || text.contains(": sys_exit_group(error_code: 0)"), "{text}");
}

#[test]
fn kernel_and_application_are_on_one_timeline() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("stream-both");
    let arguments = ["stream", "--json", "--kernel", "-e", "sched:sched_process_ex*", "-e", "demo:*", "--"];
    let output = temporary.ringtap().args(arguments).args(worker()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    let events = events(&output);
    let place = |name: &str| events.iter().position(|event| event["event"] == name);
    let last = events.iter().rposition(|event| event["source"] == "application");
    assert!(place("sched_process_exec") < place("dir_read"), "{}", said(&output));
    assert!(last < place("sched_process_exit"), "{}", said(&output));
    assert!(events.iter().map(|event| event["ts"].as_u64()).is_sorted(), "{}", said(&output));
    assert!(temporary.is_empty());
}

#[test]
fn signals_leave_no_instance_and_no_child() {
    if cannot_trace() {
        return;
    }
    for (number, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let temporary = Temporary::new(&format!("stream-signal-{status}"));
        let mut stream = temporary.ringtap();
        stream.args([
            "stream",
            "--kernel",
            "-e",
            "raw_syscalls",
            "--",
            "sh",
            "-c",
            "while :; do sleep 0.01; done",
        ]);
        let mut stream = stream.spawn().unwrap();
        let mut stdout = BufReader::new(stream.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        let (pid, commands) = (stream.id(), children(&stream));
        // The command and its witness.
        assert_eq!((commands.len(), instances_of(pid).len()), (2, 1), "{:?}", instances());
        signal(&stream, number);
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        assert_eq!(stream.wait().unwrap().signal(), Some(status - 128));
        assert!(!commands.into_iter().any(runs) && temporary.is_empty());
        assert!(instances_of(pid).is_empty(), "{:?}", instances());
    }
}

#[test]
fn a_closed_pipe_leaves_no_instance() {
    if cannot_trace() {
        return;
    }
    let mut stream = Temporary::new("stream-pipe").ringtap();
    let mut stream = stream.args(["stream", "--kernel", "-e", "sched:sched_switch"]).spawn().unwrap();
    let mut stdout = BufReader::new(stream.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let pid = stream.id();
    drop(stdout);
    let output = stream.wait_with_output().unwrap();
    assert_eq!(said(&output), "status Some(0), stderr:\n");
    assert!(instances_of(pid).is_empty());
}

#[test]
fn what_a_killed_stream_leaves_is_tidied_by_the_next() {
    if cannot_trace() {
        return;
    }
    let mut stream = Temporary::new("stream-killed").ringtap();
    let mut stream = stream.args(["stream", "--kernel"]).spawn().unwrap();
    let pid = stream.id();
    until("its instance", || instances_of(pid).len() == 1);
    signal(&stream, Signal::KILL);
    assert_eq!(stream.wait().unwrap().signal(), Some(9));
    assert_eq!(instances_of(pid).len(), 1, "nobody could tidy up");
    assert!(run(&["stream", "--kernel", "--", "/bin/true"]).status.success());
    assert!(instances_of(pid).is_empty(), "the next run did");
}

#[test]
fn the_kernels_refusals_are_one_sentence() {
    if cannot_trace() {
        return;
    }
    let unknown = run(&["stream", "--kernel", "-e", "sched:sched_swich"]);
    insta::assert_snapshot!("kernel-unknown-event", said(&unknown));
    if !rustix::process::geteuid().is_root() {
        return println!("skipped, as only root can hide the tracefs");
    }
    let unmounted = "umount -a -t tracefs && exec \"$0\" stream --kernel";
    let without = Command::new("unshare")
        .args(["--mount", "sh", "-c", unmounted, env!("CARGO_BIN_EXE_ringtap")])
        .output();
    insta::assert_snapshot!("stream-no-tracefs", said(&without.unwrap()));
}

#[test]
fn a_shells_loop_ends_with_ctrl_c() {
    use std::os::unix::process::CommandExt;
    let temporary = Temporary::new("stream-loop");
    let shop = Shop::open(&temporary);
    let script = "while :; do \"$0\" stream --attach \"$1\" || true; done";
    let mut shell = support::with_signals("bash");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_ringtap")]).arg(&shop.socket).process_group(0);
    let mut shell = shell.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    if BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap() == 0 {
        assert_eq!(shell.wait().unwrap().code(), Some(127));
        return println!("skipped, as there is no bash");
    }
    // As the keyboard does: to the shell and its command.
    rustix::process::kill_process_group(support::pid(&shell), Signal::INT).unwrap();
    let mut ended = None;
    until("the loop ends", || {
        ended = shell.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().signal(), Some(2));
}
