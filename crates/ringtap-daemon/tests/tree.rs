//! The tree without mounting it: every file, and what files do to events.

use ringtap::cpus::Pin;
use ringtap::{Config, Host, Instances};
use ringtap_daemon::control::{Caller, Control};
use ringtap_daemon::fs::{Access, Answer, Entry, Handle, Kind, Mapped, Node, Ownership, Tree};
use rustix::io::Errno;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

ringtap::event! {
    /// What the tests write.
    struct Work<'a> as tree:work {
        number: u32,
        name: &'a str,
    }
}

ringtap::event! {
    /// What triggers switch.
    struct Other as tree:other {
        number: u32,
    }
}

/// A tree of buffers so small that the tests need little memory.
fn tree() -> Tree {
    let instances = Instances::new(&Config { ring_subbufs: 16, ..Config::default() }).unwrap();
    Tree::new(Control::new(instances), Ownership::default())
}

fn read(tree: &Tree, path: &str) -> Result<String, Errno> {
    let access = Access { read: true, ..Access::default() };
    let mut handle = tree.open(tree.resolve(path)?, access, &Caller::of_thread())?;
    let mut text = Vec::new();
    loop {
        match handle.read(text.len() as u64, 4096)? {
            Answer::Bytes(more) if more.is_empty() => return Ok(String::from_utf8(text).unwrap()),
            Answer::Bytes(more) => text.extend(more),
            Answer::Wait(_) => return Err(Errno::AGAIN),
        }
    }
}

fn write(tree: &Tree, path: &str, text: &str) -> Result<usize, Errno> {
    let access = Access { write: true, ..Access::default() };
    let caller = Caller::of_thread();
    tree.open(tree.resolve(path)?, access, &caller)?.write(text.as_bytes(), &caller)
}

/// The lines of a trace that are events.
fn events(tree: &Tree, path: &str) -> Vec<String> {
    let text = read(tree, path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(": ").expect("a time").1.to_owned()).collect()
}

/// Calls `with` with each entry below a directory.
fn walk(tree: &Tree, node: Node, path: &str, with: &mut dyn FnMut(&str, &Entry)) {
    for entry in tree.list(node).unwrap() {
        let path = format!("{path}/{}", entry.name);
        with(&path, &entry);
        if entry.kind == Kind::Directory {
            walk(tree, entry.node, &path, with);
        }
    }
}

#[test]
fn every_file_of_two_thousand_events() {
    let tree = tree();
    for number in 0..2000 {
        let (system, name) = (format!("sys{}", number % 40), format!("event{number}"));
        let format = format!(
            "name: {name}\nID: 0\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
             \n\tfield:u64 value;\toffset:8;\tsize:8;\tsigned:0;\n\nprint fmt: \"value=%llu\", REC->value\n"
        );
        tree.control().instances().register_event(&system, &name, &format).unwrap();
    }
    tree.make_dir(tree.resolve("instances").unwrap(), "one").unwrap();
    let (mut files, mut inodes) = (0, HashSet::from([Node::ROOT.ino()]));
    let start = Instant::now();
    walk(&tree, Node::ROOT, "", &mut |path, entry| {
        assert!(inodes.insert(entry.node.ino()), "{path}: its number is another file's");
        assert_eq!(Node::from_ino(entry.node.ino()), Some(entry.node));
        let attributes = tree.attributes(entry.node).unwrap();
        assert_eq!(attributes.kind, entry.kind, "{path}");
        if entry.kind == Kind::File {
            files += 1;
            assert!(attributes.mode & 0o007 == 0, "{path}: strangers have no business here");
            let readable = attributes.mode & 0o444 != 0;
            match read(&tree, path) {
                Ok(_) => assert!(readable, "{path}"),
                Err(Errno::AGAIN) => assert!(path.ends_with("/trace_pipe"), "{path}"),
                Err(Errno::INVAL) => assert!(!readable || path.ends_with("_raw"), "{path}"),
                Err(errno) => panic!("{path}: {errno}"),
            }
        }
    });
    let took = start.elapsed();
    println!("{files} files in {took:?}");
    assert!(files > 2 * 2000 * 6, "{files} files");
    assert!(took < Duration::from_secs(20), "the whole tree took {took:?}");
}

#[test]
fn names_lead_where_lists_say() {
    let tree = tree();
    walk(&tree, Node::ROOT, "", &mut |path, entry| assert_eq!(tree.resolve(path), Ok(entry.node), "{path}"));
    assert_eq!(tree.resolve("per_cpu/cpu00"), Err(Errno::NOENT));
    assert_eq!(tree.resolve("tracing_on/x"), Err(Errno::NOTDIR));
    let open = |path: &str| tree.open(tree.resolve(path).unwrap(), Access::default(), &Caller::of_thread());
    assert_eq!(open("events").unwrap_err(), Errno::ISDIR);
}

#[test]
fn a_removed_instance_is_gone_and_its_namesake_is_another() {
    let tree = tree();
    let instances = tree.resolve("instances").unwrap();
    let first = tree.make_dir(instances, "one").unwrap();
    let held =
        tree.open(tree.resolve("instances/one/trace").unwrap(), Access::default(), &Caller::of_thread());
    assert_eq!(tree.remove_dir(instances, "one"), Err(Errno::BUSY));
    drop(held);
    tree.set_attributes(first, Some(0o700), Some(5), None).unwrap();
    assert_eq!(tree.attributes(first).map(|it| (it.mode, it.uid)), Ok((0o700, 5)));
    tree.remove_dir(instances, "one").unwrap();
    assert_eq!(tree.attributes(first), Err(Errno::NOENT));
    let second = tree.make_dir(instances, "one").unwrap();
    assert_ne!(first, second);
    assert_eq!(tree.attributes(second).map(|it| (it.mode, it.uid)), Ok((0o750, 0)));
    // Made by other hands, it is here as well.
    tree.control().instances().create("two").unwrap();
    assert!(tree.resolve("instances/two/tracing_on").is_ok());
    tree.control().instances().remove("two").unwrap();
    assert_eq!(tree.resolve("instances/two"), Err(Errno::NOENT));
}

#[test]
fn files_decide_what_is_recorded() {
    let tree = tree();
    let instances = tree.control().instances();
    Work::register(instances).unwrap();
    Other::register(instances).unwrap();
    let writer = instances.writer();
    let work = |number| Work { number, name: "w" }.write(&writer);
    let other = |number| Other { number }.write(&writer);
    let of = "events/tree/work";
    let empty = || {
        let access = Access { write: true, truncate: true, ..Access::default() };
        tree.open(tree.resolve("trace").unwrap(), access, &Caller::of_thread()).map(drop).unwrap();
    };

    work(1);
    assert_eq!(events(&tree, "trace"), [""; 0]);
    write(&tree, "set_event", "tree:work").unwrap();
    assert_eq!(read(&tree, "events/tree/enable").unwrap(), "X\n");
    work(2);
    other(2);
    assert_eq!(events(&tree, "trace"), ["work: number=2 name=w"]);
    assert!(read(&tree, "saved_cmdlines").unwrap().starts_with(&format!("{} ", Caller::of_thread().tid)));

    empty();
    write(&tree, &format!("{of}/filter"), "number > 5").unwrap();
    (4..8).for_each(work);
    assert_eq!(events(&tree, "trace"), ["work: number=6 name=w", "work: number=7 name=w"]);
    assert_eq!(write(&tree, &format!("{of}/filter"), "nothing > 5"), Err(Errno::INVAL));
    write(&tree, &format!("{of}/filter"), "0").unwrap();

    empty();
    write(&tree, "set_event_pid", "1").unwrap();
    work(8);
    let tid = Caller::of_thread().tid;
    write(&tree, "set_event_pid", &tid.to_string()).unwrap();
    work(9);
    write(&tree, "set_event_notrace_pid", &tid.to_string()).unwrap();
    work(10);
    assert_eq!(events(&tree, "trace"), ["work: number=9 name=w"]);
    for list in ["set_event_pid", "set_event_notrace_pid"] {
        let access = Access { write: true, truncate: true, ..Access::default() };
        tree.open(tree.resolve(list).unwrap(), access, &Caller::of_thread()).unwrap();
        assert_eq!(read(&tree, list).unwrap(), "");
    }

    empty();
    write(&tree, &format!("{of}/trigger"), "enable_event:tree:other:1 if number == 12").unwrap();
    assert_eq!(read(&tree, "events/tree/other/enable").unwrap(), "0*\n");
    work(11);
    other(11);
    work(12);
    other(12);
    let expected = ["work: number=11 name=w", "work: number=12 name=w", "other: number=12"];
    assert_eq!(events(&tree, "trace"), expected);
    let text = read(&tree, &format!("{of}/trigger")).unwrap();
    assert_eq!(text, "enable_event:tree:other:count=0 if number == 12\n");
    write(&tree, &format!("{of}/trigger"), "!enable_event:tree:other").unwrap();
    write(&tree, "events/tree/other/enable", "0").unwrap();

    write(&tree, &format!("{of}/trigger"), "traceoff if number == 20").unwrap();
    work(20);
    assert_eq!(read(&tree, "tracing_on").unwrap(), "0\n");
    write(&tree, &format!("{of}/trigger"), "!traceoff").unwrap();
    write(&tree, "tracing_on", "1").unwrap();

    write(&tree, &format!("{of}/trigger"), "hist:keys=number:sort=number").unwrap();
    [30, 31, 30].into_iter().for_each(work);
    let text = read(&tree, &format!("{of}/hist")).unwrap();
    assert!(text.contains("{ number:         30 } hitcount:          2\n"), "{text}");
    assert!(text.ends_with("    Hits: 3\n    Entries: 2\n    Dropped: 0\n"), "{text}");
    assert_eq!(write(&tree, &format!("{of}/trigger"), "hist:keys=number:sort=number"), Err(Errno::EXIST));
    write(&tree, &format!("{of}/trigger"), "hist:keys=number:sort=number:pause").unwrap();
    work(32);
    assert!(read(&tree, &format!("{of}/trigger")).unwrap().ends_with(" [paused]\n"));
    write(&tree, &format!("{of}/trigger"), "hist:keys=number:sort=number:clear").unwrap();
    assert!(read(&tree, &format!("{of}/hist")).unwrap().contains("    Hits: 0\n"));
    write(&tree, &format!("{of}/trigger"), "!hist:keys=number:sort=number").unwrap();
    assert_eq!(read(&tree, &format!("{of}/hist")).unwrap(), "");
}

#[test]
fn markers_of_the_top_are_copied_where_that_is_asked_for() {
    let tree = tree();
    let instances = tree.resolve("instances").unwrap();
    tree.make_dir(instances, "copies").unwrap();
    tree.make_dir(instances, "other").unwrap();
    write(&tree, "instances/copies/options/copy_trace_marker", "1").unwrap();
    write(&tree, "trace_marker", "for all who want it").unwrap();
    write(&tree, "instances/other/trace_marker", "for one").unwrap();
    let expected = ["tracing_mark_write: for all who want it"];
    assert_eq!(events(&tree, "trace"), expected);
    assert_eq!(events(&tree, "instances/copies/trace"), expected);
    assert_eq!(events(&tree, "instances/other/trace"), ["tracing_mark_write: for one"]);
}

#[test]
fn snapshots() {
    let tree = tree();
    assert!(read(&tree, "snapshot").unwrap().contains("\n# * Snapshot is freed *\n"));
    write(&tree, "trace_marker", "before").unwrap();
    write(&tree, "snapshot", "1").unwrap();
    write(&tree, "trace_marker", "after").unwrap();
    assert_eq!(events(&tree, "snapshot"), ["tracing_mark_write: before"]);
    assert_eq!(events(&tree, "trace").len(), 2);
    assert_eq!(write(&tree, "per_cpu/cpu0/snapshot", "0"), Err(Errno::INVAL));
    write(&tree, "snapshot", "2").unwrap();
    assert!(read(&tree, "snapshot").unwrap().contains("\n# * Snapshot is allocated *\n"));
    write(&tree, "snapshot", "0").unwrap();
    assert!(read(&tree, "snapshot").unwrap().contains("\n# * Snapshot is freed *\n"));

    let instances = tree.control().instances();
    Work::register(instances).unwrap();
    write(&tree, "events/tree/work/enable", "1").unwrap();
    write(&tree, "events/tree/work/trigger", "snapshot:1").unwrap();
    Work { number: 1, name: "asks for it" }.write(&instances.writer());
    let patience = Instant::now();
    // A thread of the host's takes it.
    while read(&tree, "snapshot").unwrap().contains("freed") {
        assert!(patience.elapsed() < Duration::from_secs(60), "nobody took the snapshot");
        std::thread::yield_now();
    }
    assert!(events(&tree, "snapshot").iter().any(|line| line.starts_with("tracing_mark_write: after")));
}

#[test]
fn snapshots_are_read_raw() {
    let tree = tree();
    let raw = || {
        let node = tree.resolve("per_cpu/cpu0/snapshot_raw").unwrap();
        tree.open(node, Access { read: true, ..Access::default() }, &Caller::of_thread()).unwrap()
    };
    let next = |handle: &mut Handle, len| match handle.read(0, len)? {
        Answer::Bytes(bytes) => Ok::<_, Errno>(bytes),
        Answer::Wait(_) => panic!("a copy is not waited for"),
    };
    let has = |page: &[u8], text: &str| page.windows(text.len()).any(|part| part == text.as_bytes());
    let write_on_cpu_0 = |text: &str| {
        let _pin = Pin::to(0).unwrap();
        write(&tree, "trace_marker", text).unwrap();
    };
    assert_eq!(tree.attributes(tree.resolve("per_cpu/cpu0/snapshot_raw").unwrap()).unwrap().mode, 0o440);
    let mut first = raw();
    assert_eq!(next(&mut first, 4096), Ok(Vec::new()), "there is no snapshot");
    write_on_cpu_0("in the first");
    write(&tree, "snapshot", "1").unwrap();
    write_on_cpu_0("in the second alone");
    // A sub-buffer in two parts.
    let mut page = next(&mut first, 4000).unwrap();
    page.extend(next(&mut first, 4096).unwrap());
    assert_eq!((page.len(), has(&page, "in the first"), has(&page, "alone")), (4096, true, false));
    assert_eq!(next(&mut first, 4096), Ok(Vec::new()));
    let mut second = raw();
    assert_eq!(next(&mut second, 4096), Err(Errno::BUSY), "one consumer a buffer");
    // The next snapshot has all that the buffer has, and takes nothing from it.
    write(&tree, "snapshot", "1").unwrap();
    let page = next(&mut first, 4096).unwrap();
    assert!(has(&page, "in the first") && has(&page, "alone"));
    assert_eq!(events(&tree, "per_cpu/cpu0/trace").len(), 2);
    drop(first);
    assert_eq!(next(&mut second, 4096), Ok(Vec::new()), "it was consumed");
}

#[test]
fn the_mask_of_cpus_keeps_markers_out() {
    let tree = tree();
    let instances = tree.control().instances();
    Work::register(instances).unwrap();
    write(&tree, "events/tree/work/enable", "1").unwrap();
    let _pin = Pin::to(0).unwrap();
    if tree.list(tree.resolve("per_cpu").unwrap()).unwrap().len() < 2 {
        println!("skipped, as there is one CPU");
        return;
    }
    write(&tree, "tracing_cpumask", "2").unwrap();
    assert_eq!(write(&tree, "trace_marker", "kept out"), Err(Errno::BADF));
    Work { number: 1, name: "written" }.write(&instances.writer());
    assert_eq!(events(&tree, "trace").len(), 1, "events look at no mask");
    write(&tree, "tracing_cpumask", "3").unwrap();
    write(&tree, "trace_marker", "let in").unwrap();
    assert_eq!(events(&tree, "trace").len(), 2);
}

#[test]
fn what_is_mapped_keeps_its_size() {
    #[derive(Default)]
    struct Known(AtomicBool);
    impl Mapped for Known {
        fn is_mapped(&self, _: u32, _: &Host, cpu: u32) -> bool {
            cpu == 0 && self.0.load(Relaxed)
        }
    }
    let tree = tree();
    let known = Arc::new(Known::default());
    known.0.store(true, Relaxed);
    tree.set_strict(Arc::clone(&known) as Arc<dyn Mapped>);
    let size = read(&tree, "buffer_size_kb").unwrap();
    for (file, text) in [
        ("buffer_size_kb", "32"),
        ("per_cpu/cpu0/buffer_size_kb", "32"),
        ("buffer_subbuf_size_kb", "8"),
        ("snapshot", "1"),
    ] {
        assert_eq!(write(&tree, file, text), Err(Errno::BUSY), "{file}");
    }
    assert_eq!(write(&tree, "buffer_subbuf_size_kb", "4"), Ok(1), "it is so already");
    assert_eq!(write(&tree, "free_buffer", "x"), Ok(1), "it fails, and nobody hears of it");
    assert_eq!(read(&tree, "buffer_size_kb").unwrap(), size);
    write(&tree, "tracing_on", "0").unwrap();
    known.0.store(false, Relaxed);
    write(&tree, "buffer_size_kb", "32").unwrap();
    assert_ne!(read(&tree, "buffer_size_kb").unwrap(), size);
    assert_eq!(read(&tree, "tracing_on").unwrap(), "0\n", "a setting outlives the buffers");
}

#[test]
fn what_a_pipe_takes_and_does_not_hand_out_is_for_the_next() {
    let tree = tree();
    for number in 0..50 {
        write(&tree, "trace_marker", &format!("number {number} of them\n")).unwrap();
    }
    let mut text = String::new();
    for _ in 0..10_000 {
        let access = Access { read: true, ..Access::default() };
        let mut pipe = tree.open(tree.resolve("trace_pipe").unwrap(), access, &Caller::of_thread()).unwrap();
        match pipe.read(0, 100).unwrap() {
            Answer::Bytes(bytes) => text += std::str::from_utf8(&bytes).unwrap(),
            Answer::Wait(_) => break,
        }
    }
    let numbers: Vec<_> =
        text.lines().filter_map(|line| line.split_once("number ")).map(|(_, rest)| rest).collect();
    let expected: Vec<_> = (0..50).map(|number| format!("{number} of them")).collect();
    assert_eq!(numbers, expected);
}

/// The format of an event with one number of this name.
fn format_with(field: &str) -> String {
    format!(
        "name: any\nID: 0\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
         \n\tfield:u64 {field};\toffset:8;\tsize:8;\tsigned:0;\n\nprint fmt: \"{field}=%llu\", REC->{field}\n"
    )
}

/// Empties a file as a shell's `>` does.
fn empty(tree: &Tree, path: &str) -> Result<(), Errno> {
    let access = Access { write: true, truncate: true, ..Access::default() };
    tree.open(tree.resolve(path)?, access, &Caller::of_thread()).map(drop)
}

#[test]
fn event_rules_are_carried_out_whole_or_not_at_all() {
    let tree = tree();
    let declare = |name: &str, field: &str| {
        let format = format_with(field).replace("name: any", &format!("name: {name}"));
        tree.control().instances().register_event("shop", name, &format).unwrap();
    };
    let says = |file: &str| read(&tree, file).unwrap();
    declare("served", "took_ns");
    declare("opened", "fd");
    write(&tree, "events/shop/served/filter", "took_ns == 5").unwrap();

    // Refused at their last line, tried or not, nothing of them is done.
    for wrong in [
        "on shop:*\nfilter shop:* took_ns > 9\nfilter shop:served nofield > 1",
        "filter shop:served took_ns > 9\ntrigger shop:opened bogus",
        "trigger shop:opened traceoff\ntrigger shop:opened traceoff:3",
        "trigger shop:later traceoff if (fd",
        "on shop:*\nnonsense",
    ] {
        for text in [format!("try\n{wrong}"), wrong.to_owned()] {
            let done = write(&tree, "event_rules", &text);
            // Two of a kind in one write are found when the second is made.
            assert_eq!(done.is_err(), !(text.starts_with("try") && wrong.contains(":3")), "{text}");
            assert_eq!(says("events/shop/served/filter"), "took_ns == 5\n", "{text}");
            assert!(says("events/shop/opened/trigger").starts_with('#'), "{text}");
            let rest = ["event_rules", "awaited_events", "set_event"].map(says).concat();
            assert_eq!(rest, "", "{text}");
        }
    }
    assert!(
        says("error_log").contains("filter of shop:served: error: Field not found\n  Command: nofield > 1")
    );

    // What is tried is not done; done, it counts where it fits, and for later events.
    let rules = "filter shop:* took_ns > 9\ntrigger shop:later hist:keys=took_ns if took_ns > 3\n";
    write(&tree, "event_rules", &format!("try\n{rules}on shop:*")).unwrap();
    assert_eq!(says("event_rules"), "");
    write(&tree, "event_rules", &format!("{rules}on shop:*")).unwrap();
    assert_eq!(says("event_rules"), rules);
    assert_eq!(says("events/shop/served/filter"), "took_ns > 9\n");
    assert_eq!(says("events/shop/opened/filter"), "none\n");
    assert_eq!(says("set_event"), "shop:served\nshop:opened\n");
    declare("later", "took_ns");
    declare("closed", "fd");
    assert_eq!(says("events/shop/later/filter"), "took_ns > 9\n");
    assert!(says("events/shop/later/trigger").starts_with("hist:keys=took_ns"));
    assert_eq!(says("events/shop/later/enable"), "1*\n");
    assert_eq!(says("events/shop/closed/filter"), "none\n");
    assert_eq!(says("event_rules"), "filter shop:* took_ns > 9\n", "what is of one event is done");

    // A trigger waits for the event that it switches.
    write(&tree, "event_rules", "trigger shop:served enable_event:shop:detail").unwrap();
    assert!(says("events/shop/served/trigger").starts_with('#'));
    declare("detail", "fd");
    assert_eq!(says("events/shop/served/trigger"), "enable_event:shop:detail:unlimited\n");

    // Taken away, it is so for later ones, too.
    write(&tree, "event_rules", "filter shop:* 0").unwrap();
    declare("latest", "took_ns");
    assert_eq!(says("events/shop/served/filter") + &says("events/shop/latest/filter"), "none\nnone\n");
    write(&tree, "event_rules", "filter shop:* took_ns > 9\ntrigger shop:* stacktrace").unwrap();
    empty(&tree, "event_rules").unwrap();
    declare("last", "took_ns");
    for event in ["served", "opened", "later", "detail", "last"] {
        assert_eq!(says(&format!("events/shop/{event}/filter")), "none\n", "{event}");
        assert!(says(&format!("events/shop/{event}/trigger")).starts_with('#'), "{event}");
    }
}
