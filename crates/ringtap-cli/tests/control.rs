//! The commands that set what a host traces, on a real one.

mod support;

use ringtap::attach;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use support::{ringtap, said, signal, until};

ringtap::event! {
    /// What the tests write.
    pub struct Read as app:read { bytes: u64 }
}
ringtap::event! {
    /// What the tests write, too.
    pub struct Closed as app:closed { fd: u32 }
}

ringtap::event! {
    /// What the examples read.
    pub struct DemoRead as demo:read { bytes: u64 }
}
ringtap::event! {
    /// What ends them.
    pub struct DemoError as demo:error { code: u32 }
}

ringtap::event! {
    /// What recordings choose.
    pub struct Chosen as choice:chosen { number: u32 }
}
ringtap::event! {
    /// What they do not.
    pub struct Other as choice:other { number: u32 }
}

/// `ringtap serve`, on a socket of its own.
struct Served {
    folder: PathBuf,
    child: Child,
}

impl Served {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringtap-control-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let socket = folder.join("host.sock");
        let mut command = ringtap();
        command.arg("serve").arg("--socket").arg(&socket).args(["--buffer-size", "64"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the host serves", || attach::Connection::connect(&socket, attach::Role::Reader).is_ok());
        Self { folder, child }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("host.sock")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        ringtap().env(attach::SOCKET_VARIABLE, self.socket()).args(arguments).output().unwrap()
    }

    /// What a command prints that must succeed.
    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command says that must fail, without the names of this test's files.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {}", said(&output));
        said(&output).replace(self.folder.to_str().unwrap(), "FOLDER")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            signal(&self.child, Signal::TERM);
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn lines_with(text: &str, word: &str) -> usize {
    text.lines().filter(|line| line.contains(word)).count()
}

/// One process has one registration of each event, so all of it is one test.
#[test]
fn a_program_is_switched_filtered_shown_and_reset() {
    let host = Served::new("program");
    let started = host.run(&["start", "-e", "app:*"]);
    assert_eq!(
        said(&started),
        "status Some(0), stderr:\nringtap: app:* is not declared yet; it is on as soon as a program declares it\n"
    );
    assert_eq!(host.ask(&["list"]), "on  as soon as it is declared: app:*\n");

    let attachment = attach::Attachment::attach(host.socket()).unwrap();
    Read::register(&attachment).unwrap();
    Closed::register(&attachment).unwrap();
    let writer = attachment.writer();
    Read { bytes: 1 }.write(&writer);
    Closed { fd: 7 }.write(&writer);
    let shown = host.ask(&["show"]);
    assert_eq!((lines_with(&shown, "read: bytes=1"), lines_with(&shown, "closed: fd=7")), (1, 1), "{shown}");

    host.ask(&["stop"]);
    Read { bytes: 2 }.write(&writer);
    assert_eq!(lines_with(&host.ask(&["show"]), "bytes=2"), 0);

    // A filter for one event, another instance for both.
    host.ask(&["start", "-e", "app:read", "-f", "bytes > 10", "-C", "mono"]);
    host.ask(&["start", "-B", "all", "-e", "app"]);
    assert_eq!(host.ask(&["instance", "list"]), "all\n");
    for bytes in [5, 50] {
        Read { bytes }.write(&writer);
    }
    let shown = host.ask(&["show"]);
    assert_eq!(
        (lines_with(&shown, "bytes=5 "), lines_with(&shown, "bytes=5\n"), lines_with(&shown, "bytes=50")),
        (0, 0, 1),
        "{shown}"
    );
    // The instance's buffers are mapped by this process as soon as it hears of them.
    until("the other instance has events", || {
        Read { bytes: 77 }.write(&writer);
        lines_with(&host.ask(&["show", "-B", "all"]), "bytes=77") > 0
    });
    assert!(host.ask(&["list"]).contains("app:read if bytes > 10"));

    // Of several settings one is refused, and none is made.
    let sized = |host: &Served| host.ask(&["show", "-f", "buffer_size_kb"]);
    let before = sized(&host);
    let refusal = host.refused(&["set", "-b", "128", "-C", "sundial"]);
    insta::assert_snapshot!("control-clock", refusal);
    assert_eq!(sized(&host), before);
    insta::assert_snapshot!("control-filter", host.refused(&["start", "-e", "app:read", "-f", "byte > 10"]));
    assert!(host.ask(&["list"]).contains("app:read if bytes > 10"), "a refused filter leaves the last one");
    // Nor does one that is refused behind the kernel's own file.
    host.refused(&["set", "events/app/read/filter=byte > 10"]);
    assert!(host.ask(&["list"]).contains("app:read if bytes > 10"));
    host.refused(&["set", "set_event_pid=7", "-C", "mono", "no/such=1"]);
    assert_eq!(host.ask(&["show", "-f", "set_event_pid"]), "");
    // A filter counts where its field is; nowhere, it is refused.
    let filtered = host.run(&["start", "-e", "app:*", "-f", "bytes > 20"]);
    insta::assert_snapshot!("control-pattern-filter", said(&filtered));
    assert!(host.ask(&["list"]).contains("on  app:read if bytes > 20\n"));
    insta::assert_snapshot!("control-nowhere", host.refused(&["start", "-e", "app:*", "-f", "none > 1"]));
    insta::assert_snapshot!("control-trigger", host.refused(&["set", "-e", "app:read", "-R", "bogus"]));
    assert!(host.ask(&["list"]).contains("app:read if bytes > 20\n"));

    // All triggers and filters go with a reset, whatever they are.
    for trigger in ["hist:keys=bytes:vals=hitcount:sort=hitcount", "traceoff:3 if bytes == 1", "stacktrace:2"]
    {
        host.ask(&["start", "-e", "app:read", "-R", trigger]);
    }
    host.ask(&["set", "-B", "all", "-e", "app:closed", "-R", "enable_event:app:read"]);
    host.ask(&["reset", "--all"]);
    let triggers = host.ask(&["show", "-f", "events/app/read/trigger"]);
    assert!(triggers.starts_with("# Available"), "{triggers}");
    let triggers = host.ask(&["show", "-B", "all", "-f", "events/app/closed/trigger"]);
    assert!(triggers.starts_with("# Available"), "{triggers}");
    let listed = host.ask(&["list"]);
    assert_eq!(listed, "off app:closed\noff app:read\n");
    assert_eq!(lines_with(&host.ask(&["show"]), "bytes="), 0);
    host.ask(&["instance", "rm", "all"]);
    assert_eq!(host.ask(&["instance", "list", "--json"]), "{\"instances\":[]}\n");
}

/// A program that is its own host has no files to list events from, and events all the same.
#[test]
fn events_of_a_programs_own_host() {
    let folder = support::Temporary::new("own-host");
    let socket = folder.path().join("own.sock");
    let host = ringtap::Host::new(&ringtap::Config { ring_subbufs: 16, ..Default::default() }).unwrap();
    let _server = host.serve(&socket).unwrap();
    host.register_event("own", "thing", "name: thing\nID: 0\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\tfield:u64 a;\toffset:8;\tsize:8;\tsigned:0;\n\nprint fmt: \"\"\n").unwrap();
    let list = |more: &[&str]| {
        let output = ringtap().arg("list").arg("--attach").arg(&socket).args(more).output().unwrap();
        said(&output)
    };
    assert_eq!(list(&[]), "status Some(0), stdout:\nown:thing\n");
    assert!(list(&["--json"]).contains("\"event\":\"thing\""));

    // What needs no files works as elsewhere; what does says what to do instead, and leaves all as it was.
    let ask = |arguments: &[&str]| {
        let output = ringtap().env(attach::SOCKET_VARIABLE, &socket).args(arguments).output().unwrap();
        said(&output).replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    let done = "status Some(0), stderr:\n";
    let writer = host.writer();
    writer.write(&[0; 16]).unwrap();
    for stop in [&["stop"][..], &["stop", "--all"]] {
        assert_eq!(ask(stop), done);
        let _off = writer.write(&[0; 16]).unwrap_err();
        assert_eq!(ask(&["start"]), done);
        writer.write(&[0; 16]).unwrap();
    }
    let written = || host.cpus().iter().map(|&cpu| host.stats(cpu).unwrap().written()).sum::<u64>();
    assert_eq!(written(), 3);
    assert_eq!(ask(&["stop"]), done);
    assert_eq!(ask(&["reset"]), done);
    assert_eq!(written(), 0);
    writer.write(&[0; 16]).unwrap();
    assert_eq!(ask(&["instance", "list"]), done);
    let refused: String = [
        &["show"][..],
        &["start", "-e", "own:thing"],
        &["set", "-b", "64"],
        &["reset", "-b", "64"],
        &["snapshot", "--take"],
        &["instance", "add", "a"],
        &["list", "-o"],
        &["record", "-e", "own:thing", "-o", "/dev/null"],
    ]
    .map(|arguments| format!("{arguments:?}\n{}", ask(arguments)))
    .concat();
    insta::assert_snapshot!("control-own-host", refused);
    assert_eq!(written(), 1);
}

/// `stat` and `stream` find the host as the other commands do.
#[test]
fn counters_of_the_default_host_and_its_instances() {
    let host = Served::new("counters");
    let counters = host.ask(&["stat", "--json"]);
    assert!(counters.starts_with("{\"clock\":\"") && counters.contains("\"cpus\":[{\"cpu\":0"), "{counters}");
    host.ask(&["instance", "add", "side"]);
    host.ask(&["set", "-B", "side", "-C", "mono"]);
    assert!(host.ask(&["stat", "-B", "side", "--json"]).starts_with("{\"clock\":\"mono\""));
    insta::assert_snapshot!("control-stat-instance", host.refused(&["stat", "-B", "nosuch"]));
    let plan = host.ask(&["stream", "--dry-run"]);
    assert!(plan.contains(host.socket().to_str().unwrap()), "{plan}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let host = Served::new("errors");
    insta::assert_snapshot!("control-no-instance", host.refused(&["show", "-B", "no-such"]));
    insta::assert_snapshot!("control-no-file", host.refused(&["show", "-f", "no/such"]));
    insta::assert_snapshot!("control-nothing-to-set", host.refused(&["set"]));
    insta::assert_snapshot!("control-remove", host.refused(&["instance", "rm", "no-such"]));
    insta::assert_snapshot!("control-event", host.refused(&["start", "-e", "a b"]));
    let nobody = ringtap().args(["stop", "--attach", "/no/such.sock"]).output().unwrap();
    insta::assert_snapshot!("control-no-host", said(&nobody));
    host.ask(&["instance", "add", "twice"]);
    insta::assert_snapshot!("control-add", host.refused(&["instance", "add", "twice"]));
    // Of several instances all are made or removed, or none.
    host.refused(&["instance", "add", "new", "twice"]);
    host.refused(&["instance", "rm", "twice", "no-such"]);
    assert_eq!(host.ask(&["instance", "list"]), "twice\n");
    // A start that fails leaves no instance.
    host.refused(&["start", "-B", "half", "-C", "sundial"]);
    assert_eq!(host.ask(&["instance", "list"]), "twice\n");
    // Nor does a reset that fails change anything.
    host.ask(&["stop"]);
    host.refused(&["reset", "-b", "4000000000"]);
    assert_eq!(host.ask(&["show", "-f", "tracing_on"]), "0\n");
    let others: String = [
        &["start", "-e", "app:read", "-f", ""][..],
        &["show", "-f", "events"],
        &["show", "-f", "trace_pipe"],
        &["reset", "-b", "4000000000"],
        &["instance", "add", "a\nb"],
    ]
    .map(|arguments| format!("{arguments:?}\n{}", host.refused(arguments)))
    .concat();
    insta::assert_snapshot!("control-others", others);
    assert!(host.refused(&["snapshot", "-c", "9999"]).contains("there is no CPU 9999 here; there are 0"));
    assert!(host.ask(&["list", "-C"]).contains('['));
    assert!(host.ask(&["list", "-o"]).contains("options/overwrite=1"));
}

/// Between the program and a real host: each greeting that passes claims to be of the next release. Ends with the test.
fn of_another_release(host: PathBuf, socket: &std::path::Path) {
    use ringtap_abi::control::{Header, MAX_PACKET, PROTOCOL, Part, request};
    let new = || {
        let kind = SocketType::SEQPACKET;
        rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
    };
    let listener = new();
    rustix::net::bind(&listener, &SocketAddrUnix::new(socket).unwrap()).unwrap();
    rustix::net::listen(&listener, 8).unwrap();
    std::thread::spawn(move || {
        while let Ok(client) = rustix::net::accept(&listener) {
            let mut packet = vec![0; MAX_PACKET];
            let (len, _) = rustix::net::recv(&client, &mut packet[..], RecvFlags::empty()).unwrap();
            let (greeting, body) = Header::split(&packet[..len]).unwrap();
            assert_eq!((greeting.kind, greeting.cpu), (request::HELLO, PROTOCOL));
            let greeting = Header { cpu: PROTOCOL + 1, ..greeting };
            let greeting = [greeting.bytes(), body].concat();
            let server = new();
            rustix::net::connect(&server, &SocketAddrUnix::new(&host).unwrap()).unwrap();
            rustix::net::send(&server, &greeting, SendFlags::empty()).unwrap();
            let (len, _) = rustix::net::recv(&server, &mut packet[..], RecvFlags::empty()).unwrap();
            rustix::net::send(&client, &packet[..len], SendFlags::empty()).unwrap();
        }
    });
}

#[test]
fn a_host_of_another_release_is_named_by_every_command() {
    let host = Served::new("release");
    let socket = host.folder.join("next.sock");
    of_another_release(host.socket(), &socket);
    let file = host.folder.join("file");
    let file = file.to_str().unwrap();
    let commands: [&[&str]; 13] = [
        &["list"],
        &["show"],
        &["start", "-e", "app:read"],
        &["stop"],
        &["set", "-b", "128"],
        &["reset"],
        &["snapshot", "--take"],
        &["instance", "add", "one"],
        &["instance", "list"],
        &["stat"],
        &["stream"],
        &["record", "-o", file],
        &["export", "--to", "chrome", "-o", file, "--attach", socket.to_str().unwrap()],
    ];
    let sentence =
        "the client speaks version 4 and this host version 3: use the same release of ringtap on both sides";
    for command in commands {
        let output = ringtap().env(attach::SOCKET_VARIABLE, &socket).args(command).output().unwrap();
        assert_eq!(said(&output), format!("status Some(1), stderr:\nringtap: {sentence}\n"), "{command:?}");
    }
    assert!(!std::fs::exists(file).unwrap());
    assert_eq!((host.ask(&["list"]), host.ask(&["instance", "list"])), (String::new(), String::new()));
}

/// The examples of the README and of the help texts, before the program that they are about runs.
#[test]
fn examples_work_before_and_while_the_program_runs() {
    let host = Served::new("examples");
    let examples: [&[&str]; 4] = [
        &["start", "-e", "shop:*", "-f", "took_ns > 1000000"],
        &["start", "-e", "demo:read", "-f", "bytes > 4096"],
        &["start", "-e", "demo:*", "-e", "demo:error", "-R", "traceoff"],
        &["set", "-e", "demo:read", "-f", "bytes > 4096"],
    ];
    for example in examples {
        let output = host.run(example);
        assert!(output.status.success(), "{example:?}: {}", said(&output));
    }
    insta::assert_snapshot!("control-awaited", host.ask(&["list"]));
    insta::assert_snapshot!("control-all-of-nothing", host.refused(&["start", "-e", ":"]));

    let attachment = attach::Attachment::attach(host.socket()).unwrap();
    DemoRead::register(&attachment).unwrap();
    DemoError::register(&attachment).unwrap();
    let writer = attachment.writer();
    for bytes in [1, 5000] {
        DemoRead { bytes }.write(&writer);
    }
    DemoError { code: 7 }.write(&writer);
    DemoRead { bytes: 6000 }.write(&writer);
    let shown = host.ask(&["show"]);
    let counts = ["bytes=1\n", "bytes=5000", "code=7", "bytes=6000"].map(|text| shown.matches(text).count());
    assert_eq!(counts, [0, 1, 0, 0], "filtered, and off from the error on, as in the kernel: {shown}");
    for example in &examples[1..] {
        // The trigger is there already, and so is the filter.
        host.ask(example);
    }
    host.ask(&["reset"]);
    assert_eq!(host.ask(&["list"]), "off demo:error\noff demo:read\n");
    assert!(host.refused(&["show", "-c", "9999"]).contains("there is no CPU 9999 here; there are 0"));
}

#[test]
fn a_recording_switches_its_events_on_and_back() {
    let host = Served::new("choice");
    let attachment = attach::Attachment::attach(host.socket()).unwrap();
    Chosen::register(&attachment).unwrap();
    Other::register(&attachment).unwrap();
    let writer = attachment.writer();
    host.ask(&["instance", "add", "web"]);
    host.ask(&["stop"]);
    let state = || ["set_event", "awaited_events", "tracing_on"].map(|file| host.ask(&["show", "-f", file]));
    let before = state();
    assert_eq!(before[2], "0\n");
    let file = host.folder.join("t.dat");
    let file = file.to_str().unwrap();
    let both = ["--kernel", "-e", "sched:sched_process_exit"];
    let ways: [(&[&str], &str); 3] = [(&[], ""), (&["-B", "web"], "instances/web/"), (&both, "")];
    for (number, (options, folder)) in (0..).zip(ways) {
        if options == both && support::cannot_trace() {
            continue;
        }
        let mut record = ringtap();
        record.env(attach::SOCKET_VARIABLE, host.socket()).args(["record", "--announce", "-o", file]);
        record.args(["-e", "choice:chosen", "-e", "choice:late"]).args(options);
        if options == both {
            record.arg("--attach").arg(host.socket());
        }
        let mut record = record.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 10];
        std::io::Read::read_exact(record.stdout.as_mut().unwrap(), &mut line).unwrap();
        let is_on = |event: &str| {
            host.ask(&["show", "-f", &format!("{folder}events/choice/{event}/enable")]).starts_with('1')
        };
        assert!(is_on("chosen") && !is_on("other"));
        Chosen { number }.write(&writer);
        Other { number }.write(&writer);
        std::process::Command::new("true").status().unwrap();
        signal(&record, Signal::INT);
        let output = record.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("choice:late is not declared yet"), "{told}");
        assert_eq!(state(), before);
        let report = host.ask(&["report", file]);
        let has = |text: &str| lines_with(&report, text);
        assert_eq!((has(&format!("chosen: number={number}")), has("other:")), (1, 0), "{report}");
        assert_eq!(has("sched_process_exit") > 0, options == both, "{report}");
    }
    assert_eq!(
        said(&host.run(&["record", "-B", "none"])),
        "status Some(1), stderr:\nringtap: there is no instance none; there are web\n"
    );

    let mut stream = ringtap();
    stream.env(attach::SOCKET_VARIABLE, host.socket()).args(["stream", "-B", "web", "-e", "choice:chosen"]);
    let mut stream = stream.stdout(Stdio::piped()).spawn().unwrap();
    until("the event is on", || {
        host.ask(&["show", "-f", "instances/web/events/choice/chosen/enable"]).starts_with('1')
    });
    Chosen { number: 77 }.write(&writer);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("chosen: number=77")));
    signal(&stream, Signal::INT);
    stream.wait().unwrap();
    assert_eq!(state(), before);
}

#[test]
fn the_host_ends_and_leaves_nothing() {
    let mut host = Served::new("ends");
    let socket = host.socket();
    signal(&host.child, Signal::INT);
    assert_eq!(host.child.wait().unwrap().signal(), Some(2));
    assert!(!socket.exists());
}
