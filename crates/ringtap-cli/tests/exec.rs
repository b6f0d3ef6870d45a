//! Debian's trace-cmd, unchanged, on ringtap's buffers.

#[path = "../../ringtap-daemon/tests/random/mod.rs"]
mod random;
#[path = "../../ringtap-daemon/tests/storming/mod.rs"]
mod storming;
mod support;

use random::Random;
use ringtap::attach::{Connection, Role, SOCKET_VARIABLE};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use storming::operate;
use support::{cannot_exec, ringtap, said, signal, until};

/// How many processes write.
const WRITERS: usize = 4;
/// What a process of this test writes, and where: a number of events, and a `trace_marker` or nothing.
const WRITER: &str = "RINGTAP_TEST_WRITER";

/// Says why, once, and returns true where there is no trace-cmd, or nothing to run it on.
fn cannot_record() -> bool {
    let is_missing = Command::new("trace-cmd").arg("--version").output().is_err();
    if is_missing {
        println!("skipped, as trace-cmd is not installed");
    }
    is_missing || cannot_exec()
}

/// A directory of its own for each test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringtap-exec-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A shell script that starts the writers and waits for them: `marker` is where they write, by files; without it
/// they attach to the socket, and write into the shared memory.
fn writers(events: usize, marker: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    let one = |number| {
        format!(
            "{WRITER}='{number} {events} {marker}' {} process --exact --ignored --nocapture >/dev/null & ",
            exe.display()
        )
    };
    (0..WRITERS).map(one).collect::<String>() + "wait"
}

/// One of the processes that write.
#[test]
#[ignore = "started by the other tests"]
fn process() {
    let task = std::env::var(WRITER).unwrap();
    let mut words = task.split(' ');
    let [number, events] = [(); 2].map(|()| words.next().unwrap().parse::<usize>().unwrap());
    let text = |event| format!("writer {number} event {event}");
    if let Some(marker) = words.next().filter(|marker| !marker.is_empty()) {
        let mut file = fs::File::options().write(true).open(marker).unwrap();
        (0..events).for_each(|event| file.write_all(text(event).as_bytes()).unwrap());
        return;
    }
    let writer = Connection::from_environment(Role::Writer).unwrap().expect("exec serves").writer().unwrap();
    for event in 0..events {
        // Writers that share a lock may find it taken for too long.
        while ringtap::event::marker::print(&writer, text(event)).is_err() {}
    }
}

ringtap::event! {
    /// What a program says that traces itself.
    struct Said as exec_test:said { number: u32 }
}

/// A program that traces itself, as users write them.
#[test]
#[ignore = "started by the other tests"]
fn typed_process() {
    let attachment = ringtap::attach::Attachment::attach(std::env::var_os(SOCKET_VARIABLE).unwrap()).unwrap();
    Said::register(&attachment).unwrap();
    let writer = attachment.writer();
    (0..1000).for_each(|number| Said { number }.write(&writer));
}

#[test]
fn one_command_records_a_program_that_has_not_run_yet() {
    if cannot_record() {
        return;
    }
    let place = Place::new("one");
    let program = std::env::current_exe().unwrap();
    let mut command = ringtap();
    command.args(["exec", "trace-cmd", "record", "-e", "exec_test:*"]).arg(program);
    let output =
        command.args(["--exact", "--ignored", "typed_process"]).current_dir(&place.0).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let report = report(&place.0);
    let numbers: Vec<_> = report
        .lines()
        .filter_map(|line| line.split_once("said: ")?.1.trim().strip_prefix("number="))
        .collect();
    assert_eq!(numbers, (0..1000).map(|number| number.to_string()).collect::<Vec<_>>(), "{report}");
}

/// Each writer's events, in the order of a report's lines, and how many the report says were lost.
fn events(report: &str) -> (BTreeMap<usize, Vec<usize>>, usize) {
    let (mut seen, mut lost) = (BTreeMap::<_, Vec<_>>::new(), 0);
    for line in report.lines() {
        if let Some((_, written)) = line.split_once("writer ") {
            let (writer, event) = written.split_once(" event ").unwrap();
            seen.entry(writer.parse().unwrap()).or_default().push(event.trim().parse().unwrap());
        } else if let Some((before, _)) = line.split_once(" EVENTS DROPPED]") {
            lost += before.rsplit('[').next().unwrap().parse::<usize>().unwrap();
        }
    }
    (seen, lost)
}

fn exec(place: &Path, options: &[&str], script: &str) -> Output {
    ringtap().arg("exec").args(options).args(["--", "sh", "-c", script]).current_dir(place).output().unwrap()
}

fn report(place: &Path) -> String {
    let output = Command::new("trace-cmd").arg("report").current_dir(place).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_event_is_recorded_once_and_in_order() {
    if cannot_record() {
        return;
    }
    const EVENTS: usize = 20_000 / WRITERS;
    let marker = |instance: &str| format!("/sys/kernel/tracing/{instance}trace_marker");
    for (subbuf, options, into) in [
        ("4", "", String::new()),
        ("8", "", marker("")),
        ("4", "--nosplice", marker("")),
        ("8", "--nosplice", String::new()),
        ("4", "-B web", marker("instances/web/")),
        ("8", "-B web", marker("instances/web/")),
        ("4", "--nosplice -B web", marker("instances/web/")),
        ("8", "--nosplice -B web", marker("instances/web/")),
        ("4", "-d", marker("")),
    ] {
        let place = Place::new(&format!("record{subbuf}{}", options.replace(' ', "")));
        fs::write(place.0.join("writers.sh"), writers(EVENTS, &into)).unwrap();
        let script = format!("exec trace-cmd record {options} -p nop sh writers.sh");
        let output = exec(&place.0, &["--subbuf-size", subbuf], &script);
        assert!(output.status.success(), "{options}: {}", said(&output));
        let report = report(&place.0);
        let (seen, lost) = events(&report);
        assert_eq!(seen.len(), WRITERS, "{options}: {report}");
        assert_eq!(
            seen.values().map(Vec::len).sum::<usize>() + lost,
            WRITERS * EVENTS,
            "{options}: {lost} lost"
        );
        for (writer, events) in &seen {
            assert!(events.is_sorted_by(|a, b| a < b), "{options}: writer {writer}: {events:?}");
        }
    }
}

#[test]
fn losses_are_counted() {
    if cannot_record() {
        return;
    }
    let place = Place::new("losses");
    // The ring goes round many times while nobody reads.
    let script = format!("trace-cmd start -p nop; {}; trace-cmd stop; trace-cmd extract", writers(5000, ""));
    let output = exec(&place.0, &["--buffer-size", "16"], &script);
    assert!(output.status.success(), "{}", said(&output));
    let (seen, lost) = events(&report(&place.0));
    assert!(lost > 10_000, "{lost}");
    assert_eq!(seen.values().map(Vec::len).sum::<usize>() + lost, WRITERS * 5000);
}

#[test]
fn all_verbs_run() {
    if cannot_record() {
        return;
    }
    let place = Place::new("verbs");
    let script = "set -e
        trace-cmd start -p nop
        echo 'writer 0 event 0' > /sys/kernel/tracing/trace_marker
        trace-cmd show | grep -q 'writer 0 event 0'
        trace-cmd stat | grep -q 'Buffer size'
        trace-cmd stop
        test $(cat /sys/kernel/tracing/tracing_on) = 0
        trace-cmd restart
        echo 'writer 0 event 1' > /sys/kernel/debug/tracing/trace_marker
        trace-cmd stop
        trace-cmd extract > /dev/null
        trace-cmd report > first.txt
        trace-cmd split -o part.dat -i trace.dat 0.0 > /dev/null
        trace-cmd report -i part.dat.1 > second.txt || trace-cmd report -i part.dat > second.txt
        trace-cmd list -o | grep -q overwrite
        trace-cmd list -C | grep -q mono
        trace-cmd list -B > /dev/null
        trace-cmd clear
        ! trace-cmd show | grep writer
        trace-cmd reset
        test $(cat /sys/kernel/tracing/events/enable) = '?' -o $(cat /sys/kernel/tracing/events/enable) = 0
        echo 'writer 0 event 2' > /sys/kernel/tracing/trace_marker
        trace-cmd snapshot -s
        trace-cmd clear
        trace-cmd snapshot | grep -q 'writer 0 event 2'
        trace-cmd snapshot -f
        trace-cmd snapshot | grep -q 'freed'
        trace-cmd list -e | grep -q exec || test $? = 1
        trace-cmd list -p | grep -q nop
        mkdir /sys/kernel/tracing/instances/one
        rmdir /sys/kernel/tracing/instances/one";
    let output = exec(&place.0, &[], script);
    assert!(output.status.success(), "{}", said(&output));
    for name in ["first.txt", "second.txt"] {
        let text = fs::read_to_string(place.0.join(name)).unwrap();
        assert_eq!(events(&text).0.get(&0), Some(&vec![0, 1]), "{name}: {text}");
    }
}

#[test]
fn libtracefs_reads_each_event_once() {
    if cannot_exec() {
        return;
    }
    let place = Place::new("libtracefs");
    let client = place.0.join("client");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/libtracefs.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o"]).arg(&client);
    match compiler.args([source, "-ldl"]).output() {
        Ok(output) => assert!(output.status.success(), "{}", said(&output)),
        Err(error) => return println!("skipped, as there is no C compiler: {error}"),
    }
    // The library finds no events at all where no program has declared one: the kernel's own system has no `enable`.
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "{} typed_process --exact --ignored > /dev/null && exec {}",
        program.display(),
        client.display()
    );
    let output = exec(&place.0, &[], &script);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", said(&output));
    if text.starts_with("missing") {
        return println!("skipped: {text}");
    }
    assert!(text.contains("iterated: each once: 1, in order: 1\n"), "{text}");
    // Debian 12's cannot map.
    assert!(text.contains("mapped: each once: 1\n") || text.contains("not by this version"), "{text}");
}

#[test]
fn a_stream_is_live() {
    if cannot_record() {
        return;
    }
    let place = Place::new("stream");
    fs::write(place.0.join("writers.sh"), writers(2000, "/sys/kernel/tracing/trace_marker")).unwrap();
    let output = exec(&place.0, &["--buffer-size", "64"], "exec trace-cmd stream -p nop sh writers.sh");
    assert!(output.status.success(), "{}", said(&output));
    let (seen, _) = events(&String::from_utf8_lossy(&output.stdout));
    let count = seen.values().map(Vec::len).sum::<usize>();
    // What the buffers hold when the command ends, trace-cmd does not wait for.
    assert!(count > WRITERS * 1000, "{}", said(&output));
    // It prints CPU by CPU, so a writer that moved to another one is not in order; but no event comes twice.
    for (writer, mut events) in seen {
        events.sort_unstable();
        let twice: Vec<_> = events.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "writer {writer}: {twice:?}");
    }
}

#[test]
fn the_status_is_passed_on_and_nothing_is_left() {
    if cannot_exec() {
        return;
    }
    let place = Place::new("status");
    assert_eq!(exec(&place.0, &[], "exit 7").status.code(), Some(7));
    assert_eq!(exec(&place.0, &[], "kill -9 $$").status.code(), Some(128 + 9));
    assert_eq!(ringtap().args(["exec", "/no/such/program"]).output().unwrap().status.code(), Some(127));
    let script = "test -S $RINGTAP_SOCKET && grep -c fuse.ringtap /proc/mounts && dirname $RINGTAP_SOCKET";
    let output = exec(&place.0, &[], script);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().is_some_and(|mounts| mounts != "0"), "{text}");
    let folder = lines.next().unwrap();
    assert!(!Path::new(folder).exists(), "{folder}");
    assert!(
        !fs::read_to_string("/proc/mounts").unwrap().contains("fuse.ringtap /sys"),
        "the mounts were private"
    );
}

#[test]
fn a_killed_server_leaves_errors_and_the_next_one_serves() {
    if cannot_exec() {
        return;
    }
    let place = Place::new("killed");
    let (directory, socket) = (place.0.join("tracing"), place.0.join("ringtap.sock"));
    fs::create_dir(&directory).unwrap();
    let serve = || {
        let mut command = ringtap();
        command.args(["serve", "--mount", directory.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
        command.stderr(Stdio::null()).spawn().unwrap()
    };
    let raw = directory.join("per_cpu/cpu0/trace_pipe_raw");
    let mut first = serve();
    until("it is mounted", || raw.exists());
    // One that waits for events that never come.
    let mut blocked = Command::new("cat").arg(&raw).stderr(Stdio::null()).spawn().unwrap();
    let is_asleep = |pid: u32| {
        fs::read_to_string(format!("/proc/{pid}/wchan"))
            .is_ok_and(|place| place.contains("fuse") || place.contains("request_wait"))
    };
    until("it waits", || is_asleep(blocked.id()));
    signal(&first, Signal::KILL);
    first.wait().unwrap();
    assert_eq!(blocked.wait().unwrap().code(), Some(1), "an error, and no hang");
    assert!(fs::read_dir(&directory).is_err());
    let mut second = serve();
    until("the next one is mounted", || raw.exists());
    signal(&second, Signal::TERM);
    assert_eq!(second.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    assert!(!raw.exists() && fs::read_dir(&directory).unwrap().next().is_none(), "unmounted");
}

/// A process that ends with its test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The storm's directory and seed.
const STORM: &str = "RINGTAP_TEST_STORM";

/// One of the storm's processes: operates until its server is gone, of which it must be told.
#[test]
#[ignore = "started by the other tests"]
fn storming_process() {
    let task = std::env::var(STORM).unwrap();
    let (root, seed) = task.split_once(' ').unwrap();
    let mut random = Random(seed.parse::<u64>().unwrap() | 1);
    let is_served = || fs::metadata(root).map_err(|error| error.raw_os_error());
    let not_connected = Some(rustix::io::Errno::NOTCONN.raw_os_error());
    while is_served().err() != Some(not_connected) {
        operate(Path::new(root), &mut random);
    }
}

/// An attached program: writes as many events as each line of its input says.
#[test]
#[ignore = "started by the other tests"]
fn attached_process() {
    let attachment = ringtap::attach::Attachment::attach(std::env::var_os(SOCKET_VARIABLE).unwrap()).unwrap();
    Said::register(&attachment).unwrap();
    let writer = attachment.writer();
    for line in std::io::stdin().lines() {
        (0..line.unwrap().parse().unwrap()).for_each(|number| Said { number }.try_write(&writer).unwrap());
    }
}

#[test]
fn a_server_killed_in_a_storm_leaves_errors_and_the_next_one_serves_on() {
    if cannot_exec() {
        return;
    }
    let place = Place::new("storm");
    let (directory, socket) = (place.0.join("tracing"), place.0.join("ringtap.sock"));
    fs::create_dir(&directory).unwrap();
    let serve = || {
        let mut command = ringtap();
        command.args(["serve", "--mount", directory.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
        let server = Ended(command.args(["--buffer-size", "64"]).stderr(Stdio::null()).spawn().unwrap());
        until("it is mounted", || directory.join("trace").exists());
        server
    };
    let this = || Command::new(std::env::current_exe().unwrap());
    let server = serve();
    let kept = directory.join("instances/kept");
    fs::create_dir(&kept).unwrap();
    let mut program = this();
    program.args(["attached_process", "--exact", "--ignored"]).env(SOCKET_VARIABLE, &socket);
    let mut program = Ended(program.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let switch = kept.join("events/exec_test/said/enable");
    until("its event is declared", || switch.exists());
    fs::write(&switch, "1").unwrap();
    let tell = |events| writeln!(program.0.stdin.as_ref().unwrap(), "{events}").unwrap();
    let said_events = || fs::read_to_string(kept.join("trace")).unwrap().matches(" said: ").count();
    tell(100);
    until("it wrote", || said_events() == 100);

    let seed = std::env::var("RINGTAP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("RINGTAP_SEED={seed}");
    let storm = |number: u64| {
        let mut command = this();
        command.args(["storming_process", "--exact", "--ignored"]).stdout(Stdio::null());
        command.env(STORM, format!("{} {}", directory.display(), seed + number * 7919));
        Ended(command.spawn().unwrap())
    };
    let mut clients: Vec<_> = (0..32).map(storm).collect();
    let made = || fs::read_dir(directory.join("instances")).map_or(0, Iterator::count);
    until("it storms", || made() > 3);
    // Killed, as it is dropped.
    drop(server);
    let begin = std::time::Instant::now();
    while clients.iter_mut().any(|client| client.0.try_wait().unwrap().is_none()) {
        assert!(begin.elapsed() < std::time::Duration::from_secs(60), "a client hangs");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for mut client in clients {
        assert!(client.0.wait().unwrap().success(), "each was told that its server is gone");
    }

    let mut server = serve();
    until("the living are taken over", || switch.exists());
    assert_eq!((said_events(), fs::read_to_string(&switch).unwrap().as_str()), (100, "1\n"));
    tell(50);
    until("it goes on", || said_events() == 150);
    drop(program.0.stdin.take());
    assert!(program.0.wait().unwrap().success());
    signal(&server.0, Signal::TERM);
    server.0.wait().unwrap();
}

/// What a shell that is started by these words says: status and both outputs.
fn under(words: &[&str], script: &str) -> Output {
    Command::new(words[0]).args(&words[1..]).args(["sh", "-c", script]).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn without_dev_fuse_it_says_so_and_serves_its_socket() {
    if cannot_exec() {
        return;
    }
    let place = Place::new("nofuse");
    let (program, place) = (env!("CARGO_BIN_EXE_ringtap"), place.0.display());
    let view = "set -e; mount -t tmpfs nodev /dev; mknod /dev/null c 1 3; mknod /dev/urandom c 1 9";
    for arguments in [
        format!("mount {place}"),
        format!("serve --mount {place} --socket {place}/no"),
        "exec true".to_owned(),
    ] {
        let output = under(&["unshare", "-m"], &format!("{view}; exec {program} {arguments}"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{arguments}: {text}");
        assert!(text.contains("failed to open /dev/fuse (is the fuse module loaded"), "{text}");
    }
    // What needs no FUSE works.
    let script = format!(
        "{view}; export RINGTAP_SOCKET={place}/s; {program} serve --socket {place}/s & server=$!
        until {program} show -f tracing_on; do sleep 0.1; done 2>/dev/null
        {program} start -B web; {program} instance list; kill $server"
    );
    let output = under(&["unshare", "-m"], &script);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("1\n") && text.contains("web"), "{}", said(&output));
}

/// Without what mapping needs: started by `words`, and named so.
fn reads_and_says_so(name: &str, words: &str) {
    let place = Place::new(name);
    fs::set_permissions(&place.0, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // In a view of its own, anybody may open /dev/fuse.
    let device = place.0.join("fuse").display().to_string();
    let program = env!("CARGO_BIN_EXE_ringtap");
    let inside = "set -e; cd /sys/kernel/tracing; echo a marker > trace_marker; grep marker trace
        for cpu in per_cpu/*; do dd if=$cpu/trace_pipe_raw bs=4096 count=1 iflag=nonblock status=none || :; done | cat -v
        command -v trace-cmd > /dev/null || exit 0
        cd $PLACE
        echo 'for n in $(seq 500); do echo numbered $n > /sys/kernel/tracing/trace_marker; done' > some.sh
        for how in '' --nosplice; do
            trace-cmd record $how -p nop sh some.sh > said.txt 2>&1 || { cat said.txt; exit 1; }
            test $(trace-cmd report | grep -c numbered) = 500
        done";
    fs::write(place.0.join("inside.sh"), inside).unwrap();
    let script = format!(
        "set -e; mknod {device} c 10 229; chmod 666 {device}; mount --bind {device} /dev/fuse; cd /tmp
        {words} test -x {program} || {{ echo cannot; exit 0; }}
        exec {words} env TMPDIR=/tmp PLACE={} {program} exec sh {}",
        place.0.display(),
        place.0.join("inside.sh").display()
    );
    let output = under(&["unshare", "-m"], &script);
    if said(&output).contains("cannot\n") {
        return println!("skipped, as nobody may not run {program}");
    }
    assert!(output.status.success(), "{words}: {}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("a marker").count(), 2, "{words}: {text}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot map it"), "{}", said(&output));
}

#[test]
fn without_root_it_reads_and_says_so() {
    if !cannot_exec() {
        reads_and_says_so("nobody", "setpriv --reuid 65534 --regid 65534 --clear-groups");
    }
}

#[test]
fn root_of_a_user_namespace_reads() {
    if !cannot_exec() {
        reads_and_says_so("userns", "unshare -Ur");
    }
}

#[test]
fn without_the_capability_to_mount_it_takes_a_user_namespace() {
    if cannot_exec() {
        return;
    }
    const WITHOUT: &str = "setpriv --bounding-set -sys_admin";
    reads_and_says_so("nocap", WITHOUT);
    let place = Place::new("nocapmount");
    let program = env!("CARGO_BIN_EXE_ringtap");
    let words: Vec<_> = WITHOUT.split(' ').collect();
    let output = under(&words, &format!("exec {program} mount {0} --socket {0}/s", place.0.display()));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("failed to mount on") && text.contains("only root may"), "{text}");
}

#[test]
fn the_options_say_whose_the_files_are() {
    if cannot_exec() {
        return;
    }
    let place = Place::new("ownership");
    fs::set_permissions(&place.0, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let directory = place.0.join("tracing");
    fs::create_dir(&directory).unwrap();
    let mut command = ringtap();
    command.arg("mount").arg(&directory).arg("--socket").arg(place.0.join("s"));
    command.args(["-o", "uid=12345,gid=23456,mode=750"]).stderr(Stdio::null());
    let mut server = Ended(command.spawn().unwrap());
    until("it is mounted", || directory.join("trace").exists());
    fs::create_dir(directory.join("instances/web")).unwrap();
    for (path, mode) in [
        (".", 0o750),
        ("trace", 0o640),
        ("trace_marker", 0o220),
        ("free_buffer", 0o200),
        ("available_events", 0o440),
        ("per_cpu/cpu0/trace_pipe_raw", 0o440),
        ("options/overwrite", 0o640),
        ("events", 0o755),
        ("instances/web", 0o750),
        ("instances/web/trace", 0o640),
    ] {
        let data = fs::metadata(directory.join(path)).unwrap();
        assert_eq!((data.uid(), data.gid(), data.mode() & 0o7777), (12345, 23456, mode), "{path}");
    }
    let read = |user: &str, group: &str| {
        let words = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"];
        under(&words, &format!("cat {}/tracing_on", directory.display()))
    };
    assert_eq!(read("34567", "23456").stdout, b"1\n", "the group may");
    assert_eq!(read("12345", "34567").stdout, b"1\n", "the owner may");
    assert!(said(&read("34567", "34567")).contains("Permission denied"), "others may not");
    signal(&server.0, Signal::TERM);
    server.0.wait().unwrap();
    for (options, why) in [
        ("uid", "'uid' has no value"),
        ("gid=x", "'x' is no number"),
        ("mode=999", "'999' is no octal mode"),
        ("size=1", "there is no option 'size': use uid=, gid= and mode="),
    ] {
        let output = ringtap().args(["mount", "/nowhere", "-o", options]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options}");
        assert!(said(&output).contains(why), "{}", said(&output));
    }
}
