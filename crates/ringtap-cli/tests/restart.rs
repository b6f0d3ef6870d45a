//! `ringtap serve` is killed and started again, while a program is attached.

mod support;

use ringtap::attach::{Attachment, Connection, Role, SOCKET_VARIABLE};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{Temporary, ringtap, said, signal, until};

ringtap::event! {
    /// What the program writes.
    pub struct Step as restart:step { number: u64 }
}
ringtap::event! {
    /// What it declares and does not write.
    pub struct Other as restart:other { number: u64 }
}

/// The program: writes until it is told to stop, says how much, and lives on until it is told to end.
#[test]
#[ignore = "a process of the other test"]
fn program() {
    let socket = std::env::var_os(SOCKET_VARIABLE).unwrap();
    let attachment = Attachment::attach(&socket).unwrap();
    Step::register(&attachment).unwrap();
    Other::register(&attachment).unwrap();
    let writer = attachment.writer();
    println!("attached");
    let mut lines = std::io::stdin().lock().lines();
    lines.next().unwrap().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let written = scope.spawn(|| {
            let mut number = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Everything is recorded that is odd, and all odd numbers are.
                Step { number: number * 2 + 1 }.try_write(&writer).unwrap();
                number += 1;
                if number.is_multiple_of(64) {
                    std::thread::sleep(std::time::Duration::from_micros(100));
                }
            }
            number
        });
        lines.next().unwrap().unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        println!("wrote {}", written.join().unwrap());
    });
    lines.next();
}

fn serve(socket: &Path) -> Child {
    let mut command = ringtap();
    command.arg("serve").arg("--socket").arg(socket).args(["--buffer-size", "64"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("the host serves", || Connection::connect(socket, Role::Reader).is_ok());
    child
}

fn ask(socket: &Path, arguments: &[&str]) -> String {
    let output = ringtap().env(SOCKET_VARIABLE, socket).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Events of the instance that were written, as its counters say.
fn written(socket: &Path) -> u64 {
    let files = ask(socket, &["show", "-f", "options/overwrite"]);
    assert_eq!(files, "1\n");
    let mut all = 0;
    for cpu in 0.. {
        let file = format!("per_cpu/cpu{cpu}/stats");
        let output = ringtap().env(SOCKET_VARIABLE, socket).args(["show", "-f", &file]).output().unwrap();
        if !output.status.success() {
            return all;
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let count = |key: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().parse().unwrap()
        };
        all += count("entries:") + count("overrun:") + count("read events:") + count("commit overrun:");
    }
    all
}

#[test]
fn a_killed_host_is_started_again_and_everything_is_there() {
    let folder = Temporary::new("restart");
    let socket = folder.path().join("host.sock");
    let mut host = serve(&socket);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["program", "--exact", "--ignored", "--nocapture"]).env(SOCKET_VARIABLE, &socket);
    let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut hear = |word: &str| {
        said.by_ref()
            .map(Result::unwrap)
            .find_map(|line| line.split_once(word).map(|it| it.1.trim().to_owned()))
    };
    let mut told = program.stdin.take().unwrap();
    hear("attached").unwrap();

    ask(&socket, &["start", "-e", "restart:step", "-f", "number > 0 && number < 1000000000"]);
    ask(&socket, &["start", "-B", "side", "-e", "restart:other", "-e", "later:*"]);
    let connection = Connection::connect(&socket, Role::Reader).unwrap();
    let write = |path: &str, text: &str| {
        connection.tree(path, ringtap::serve::TreeCall::Write(text.as_bytes())).unwrap();
    };
    write("options/sym-addr", "1");
    write("events/restart/step/trigger", "hist:keys=common_pid");
    write("events/restart/other/trigger", "stacktrace:3");
    write("events/restart/other/trigger", "traceoff if number == 5");
    write("instances/side/events/restart/other/filter", "number > 7");
    write("instances/side/set_event_notrace_pid", "4321");
    drop(connection);
    let look = || {
        [
            vec!["list"],
            vec!["list", "-B", "side"],
            vec!["instance", "list"],
            vec!["show", "-f", "options/sym-addr"],
            vec!["show", "-f", "trace_clock"],
            vec!["show", "-f", "tracing_cpumask"],
            vec!["show", "-f", "events/restart/step/filter"],
            vec!["show", "-f", "events/restart/step/trigger"],
            vec!["show", "-f", "events/restart/other/trigger"],
            vec!["show", "-B", "side", "-f", "events/restart/other/filter"],
            vec!["show", "-B", "side", "-f", "set_event_notrace_pid"],
        ]
        .map(|arguments| format!("{arguments:?}\n{}", ask(&socket, &arguments)))
        .concat()
    };
    let before = look();
    for part in
        ["later:*", "side\n", "number > 0 &&", "hist:keys=common_pid", "stacktrace", "number > 7", "4321"]
    {
        assert!(before.contains(part), "{part}: {before}");
    }
    writeln!(told, "write").unwrap();
    until("it writes", || written(&socket) > 1000);
    for _ in 0..2 {
        signal(&host, Signal::KILL);
        host.wait().unwrap();
        host = serve(&socket);
        assert_eq!(look(), before);
    }
    writeln!(told, "stop").unwrap();
    let wrote: u64 = hear("wrote ").unwrap().parse().unwrap();
    assert_eq!(written(&socket), wrote);
    // The histogram was counted in all the while, and not begun anew.
    let hist = ask(&socket, &["show", "-f", "events/restart/step/hist"]);
    assert!(hist.contains(&format!("Hits: {wrote}\n")), "{wrote}: {hist}");
    writeln!(told, "end").unwrap();
    program.wait().unwrap();
    signal(&host, Signal::TERM);
    let ended = host.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(told.contains("took over the buffers") && !told.contains("not restored"), "{told}");
}
