//! The tests on the live kernel skip, with one line, where it cannot be traced.

use super::*;
use std::io::Read;

/// A usable tracefs; mounts one where root may and none is.
fn live() -> Option<Tracefs> {
    let found = Tracefs::find().or_else(|error| {
        if error.kind() == Kind::NotMounted {
            let mount = ["-t", "tracefs", "nodev", "/sys/kernel/tracing"];
            let _ = std::process::Command::new("mount").args(mount).status();
        }
        Tracefs::find()
    });
    found.inspect_err(|error| println!("skipped, as it needs the live kernel: {error}")).ok()
}

/// The bytes of all whole sub-buffers and the rest that a reader of `cpus` gets now.
fn drain(instance: &Instance, cpus: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &cpu in cpus {
        let mut pipe = fs::File::from(instance.open_raw(cpu).unwrap());
        let mut subbuf = vec![0; 4096];
        while let Ok(len @ 1..) = pipe.read(&mut subbuf) {
            bytes.extend_from_slice(&subbuf[..len]);
        }
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn the_first_tracefs_line_counts() {
    let mounts = "proc /proc proc rw 0 0\nnodev /a\\040b\\134c tracefs rw 0 0\nnodev /later tracefs rw 0 0\n";
    assert_eq!(first_tracefs(mounts), Some(PathBuf::from("/a b\\c")));
    assert_eq!(first_tracefs("tracefs /elsewhere tmpfs rw 0 0\n"), None);
    assert_eq!(unescape("odd\\9"), "odd\\9");
}

#[test]
fn releases_and_cpu_lists_parse() {
    assert_eq!(parse_release("6.18.44-fc-v595\n"), Some((6, 18)));
    assert_eq!(parse_release("7.0-rc1"), Some((7, 0)));
    assert_eq!(parse_release("unknown"), None);
    assert_eq!(cpus::parse("0-2,5\n"), Some(vec![0, 1, 2, 5]));
    assert_eq!(cpus::parse("\n"), None);
}

#[test]
fn an_instance_records_and_leaves_nothing_behind() {
    let Some(tracefs) = live() else { return };
    let top_level = |file| tracefs.top_level().read(file).unwrap();
    let before = ["buffer_size_kb", "trace_clock", "set_event", "tracing_on"].map(top_level);

    let instance = tracefs.create_instance().unwrap();
    let path = instance.path().to_owned();
    assert!(path.starts_with(tracefs.root()) && path.is_dir());
    instance.set_clock("mono").unwrap();
    instance.set_sizes_kib(4, 64).unwrap();
    instance.set_buffer_percent(0).unwrap();
    instance.set_overwrite(false).unwrap();
    assert!(instance.read("trace_clock").unwrap().contains("[mono]"));
    assert_eq!(instance.read("buffer_percent").unwrap(), "0\n");
    assert_eq!(instance.read("options/overwrite").unwrap(), "0\n");

    instance.set_recording(true).unwrap();
    instance.write_marker("seen by a reader").unwrap();
    instance.set_recording(false).unwrap();
    let cpus = tracefs.cpus().unwrap();
    assert_eq!(cpus.iter().map(|&cpu| instance.stats(cpu).unwrap().entries).sum::<u64>(), 1);
    assert!(holds(&drain(&instance, &cpus), "seen by a reader"));
    assert_eq!(cpus.iter().map(|&cpu| instance.stats(cpu).unwrap().read_events).sum::<u64>(), 1);

    instance.remove().unwrap();
    assert!(!path.exists());
    assert_eq!(["buffer_size_kb", "trace_clock", "set_event", "tracing_on"].map(top_level), before);
}

#[test]
fn only_the_followed_process_is_recorded() {
    let Some(tracefs) = live() else { return };
    let instance = tracefs.create_instance().unwrap();
    let [exec] = &tracefs.resolve("sched:sched_process_exec").unwrap()[..] else { panic!("not one event") };
    assert!(tracefs.format(exec).unwrap().starts_with("name: sched_process_exec\n"));
    assert!(tracefs.header_page().unwrap().contains("commit"));
    instance.enable(exec).unwrap();

    // The shell waits for a line, so that it is followed before it runs anything.
    let script = "read go; /bin/true";
    let mut shell = std::process::Command::new("sh");
    let mut shell = shell.args(["-c", script]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    instance.follow(shell.id()).unwrap();
    instance.set_recording(true).unwrap();
    std::process::Command::new("/bin/false").status().unwrap();
    drop(shell.stdin.take());
    shell.wait().unwrap();

    instance.disable(exec).unwrap();
    let bytes = drain(&instance, &tracefs.cpus().unwrap());
    assert!(holds(&bytes, "/bin/true") && !holds(&bytes, "/bin/false"));
}

/// Whether it comes true while we wait. A descriptor that was closed lives on in what other tests of this process
/// have forked meanwhile, as long as that runs.
fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    (0..1200).any(|_| {
        is_so() || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            false
        }
    })
}

#[test]
fn what_the_kernel_refuses_is_one_sentence() {
    let Some(tracefs) = live() else { return };
    let instance = tracefs.create_instance().unwrap();
    let refused = instance.set_clock("sundial").unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.to_string().starts_with("the kernel does not accept 'sundial' for "), "{refused}");
    assert_eq!(instance.set_buffer_percent(101).unwrap_err().kind(), Kind::Refused);
    assert_eq!(tracefs.resolve("sched:sched_swich").unwrap_err().kind(), Kind::UnknownEvent);
    assert_eq!(tracefs.existing_instance("..").unwrap_err().kind(), Kind::UnknownInstance);
    assert_eq!(instance.open_raw(99_999).unwrap_err().kind(), Kind::Io);
}

#[test]
fn an_open_reader_keeps_the_instance() {
    let Some(tracefs) = live() else { return };
    let instance = tracefs.create_instance().unwrap();
    let path = instance.path().to_owned();
    let reader = instance.open_raw(tracefs.cpus().unwrap()[0]).unwrap();
    assert_eq!(instance.remove().unwrap_err().kind(), Kind::Busy);
    drop(reader);
    assert!(eventually(|| fs::remove_dir(&path).is_ok()), "{}", path.display());
}

#[test]
fn stale_instances_go_and_living_ones_stay() {
    let Some(tracefs) = live() else { return };
    let own = tracefs.create_instance().unwrap();
    let own_name = own.path().file_name().unwrap().to_str().unwrap();
    // This process's pid, but another start: left by an earlier process that had the same pid.
    let stale = InstanceName { start: 1, ..InstanceName::parse(own_name).unwrap() }.to_string();
    let path = tracefs.root().join("instances").join(&stale);
    fs::create_dir(&path).unwrap();
    let reader = tracefs.existing_instance(&stale).unwrap().open_raw(0).unwrap();
    assert!(!tracefs.remove_stale().unwrap().contains(&stale), "somebody reads it");
    drop(reader);
    // Another test's sweep, running meanwhile, may be the one that removes it.
    let is_gone = || {
        tracefs.remove_stale().unwrap();
        !path.exists()
    };
    assert!(eventually(is_gone) && own.path().exists());
}
