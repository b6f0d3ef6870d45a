//! The library as C and C++ programs use it: each is compiled with all warnings as errors, and checks itself.

mod common;

use common::{Language, Link, compile, compile_with, has, output_within, run, scratch, under_valgrind};
use ringtap::event::{Declared, Text};
use ringtap::{Config, Host, Instances, Item, Writer};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_host_of_its_own() {
    for (language, link) in [
        (Language::C, Link::Shared),
        (Language::C, Link::Static),
        (Language::Cpp, Link::Shared),
        (Language::Cpp, Link::Static),
    ] {
        let Some(program) = compile("embedded.c", language, link) else { continue };
        run(&mut Command::new(program));
    }
}

#[test]
fn without_restartable_sequences() {
    let Some(program) = compile("embedded.c", Language::Cpp, Link::Shared) else { return };
    run(Command::new(program).env("GLIBC_TUNABLES", "glibc.pthread.rseq=0"));
}

#[test]
fn nothing_is_wrong_with_its_memory() {
    let Some(program) = compile("embedded.c", Language::C, Link::Shared).filter(|_| has("valgrind")) else {
        return;
    };
    run(&mut under_valgrind(&program, true));
}

#[test]
fn writing_allocates_nothing() {
    for (language, link) in [(Language::C, Link::Shared), (Language::Cpp, Link::Static)] {
        let Some(program) = compile("costs.c", language, link) else { continue };
        run(&mut Command::new(program));
    }
}

ringtap::symbols! { enum Source: u8 { Disk = 0, Cache = 1 => "page cache" } }
ringtap::symbols! { flags Access: u32 { READ = 1, WRITE = 2 } }
ringtap::event! { struct None_ as fields:none {} }
ringtap::event! { struct One as fields:one { a: u8 } }
ringtap::event! { struct Two as fields:two { a: u64, b: u32 } }
ringtap::event! { struct Three as fields:three { a: u64, b: u32, c: u32 } }
ringtap::event! { struct Unsigned as fields:unsigned_numbers { a: u8, b: u16, c: u32, d: u64, e: usize } }
ringtap::event! { struct Signed as fields:signed_numbers { a: i8, b: i64, c: i16, d: i32, e: isize, f: bool } }
ringtap::event! { struct Other as fields:other_numbers { a: f32, b: f64, c: *const u8, d: bool } }
ringtap::event! { struct Arrays as fields:arrays { a: [u32; 3], b: [u8; 5], c: [i16; 2], d: Text<16>, e: Text<4> } }
ringtap::event! { struct Symbols as fields:symbols { source: Source, access: Access } }
ringtap::event! { struct Texts<'a> as fields:texts { status: u16, path: &'a str, part: &'a str, end: u8 } }
ringtap::event! { struct Slices<'a> as fields:slices { a: &'a [u8], b: &'a [u32], c: &'a [i64], d: &'a [f64] } }
ringtap::event! { struct OneText<'a> as fields:one_text { took_ns: u64, path: &'a str } }
ringtap::event! { struct EvenText<'a> as fields:even_text { length: u32, text: &'a str } }
ringtap::event! { struct Wide as fields:wide { a: [u64; 20], b: u32 } }
ringtap::event! {
    struct Printed<'a> as fields:printed { fd: i32, port: u16, peer: &'a str }
    print "%s:%u fd=%d open=%d", peer, port, fd, "REC->fd >= 0";
}
ringtap::event! { struct RequestBegin as fields:request_begin { user: u32 } }
ringtap::event! { struct RequestEnd as fields:request_end {} }
ringtap::event! { struct WorkBegin as fields:work_begin {} }
ringtap::event! { struct WorkEnd as fields:work_end {} }

/// The events of tests/c/fields.h, in its order.
fn declared() -> Vec<&'static Declared> {
    vec![
        None_::declared(),
        One::declared(),
        Two::declared(),
        Three::declared(),
        Unsigned::declared(),
        Signed::declared(),
        Other::declared(),
        Arrays::declared(),
        Symbols::declared(),
        Texts::declared(),
        Slices::declared(),
        OneText::declared(),
        Wide::declared(),
        Printed::declared(),
        RequestBegin::declared(),
        RequestEnd::declared(),
        WorkBegin::declared(),
        WorkEnd::declared(),
    ]
}

/// Writes what `write_fields` of tests/c/fields.h writes.
fn write_fields(writer: &Writer) {
    let wide: [u64; 20] = std::array::from_fn(|index| index as u64 + 1);
    None_ {}.write(writer);
    One { a: 7 }.write(writer);
    Two { a: 1, b: 2 }.write(writer);
    Three { a: u64::MAX, b: 2, c: 3 }.write(writer);
    Unsigned { a: 255, b: 65535, c: 4_000_000_000, d: u64::MAX, e: 5 }.write(writer);
    Signed { a: -1, b: -2, c: -3, d: -4, e: -5, f: true }.write(writer);
    Other { a: 1.5, b: -2.5, c: std::ptr::without_provenance(0x1234), d: false }.write(writer);
    let (a, b) = ([1, 2, 3_000_000_000], [1, 2, 3, 4, 255]);
    Arrays { a, b, c: [-1, 2], d: Text::new("main"), e: Text::new("aäö") }.write(writer);
    Symbols { source: Source::Cache, access: Access::READ | Access::WRITE }.write(writer);
    Texts { status: 200, path: "/cart", part: "abc", end: 9 }.write(writer);
    Slices { a: &b, b: &a, c: &[-5, 5], d: &[0.25] }.write(writer);
    OneText { took_ns: 81_250, path: "/cart/7" }.write(writer);
    Wide { a: wide, b: 21 }.write(writer);
    Printed { fd: 3, port: 8080, peer: "::1" }.write(writer);
    RequestBegin { user: 7 }.write(writer);
    WorkBegin {}.write(writer);
    WorkEnd {}.write(writer);
    RequestEnd {}.write(writer);
}

/// Writes the texts of tests/c/fields.c.
fn write_texts(writer: &Writer) {
    let text: String = ('a'..='z').cycle().take(1200).collect();
    let lengths = (0..80u32).chain((80..1200).step_by(50));
    for length in lengths {
        let text = &text[..length as usize];
        EvenText { length, text }.write(writer);
        OneText { took_ns: length.into(), path: text }.write(writer);
    }
}

/// All payloads that are in a host, without their thread's number, in the order of their time.
fn payloads(host: &Host) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for mut reader in host.readers().expect("nobody reads") {
        while let Some(item) = reader.next().expect("it can be read") {
            let Item::Record(record) = item else { panic!("{item:?}") };
            let mut payload = record.payload.to_vec();
            payload[4..8].fill(0);
            records.push((record.ticks, payload));
        }
    }
    records.sort();
    records.into_iter().map(|(_, payload)| payload).collect()
}

#[test]
fn the_same_declaration_and_record_as_in_rust() {
    for language in [Language::C, Language::Cpp] {
        let Some(program) = compile("fields.c", language, Link::Shared) else { continue };
        let directory = scratch(&format!("fields-{language:?}"));
        let host = Host::new(&Config::default()).expect("there is memory");
        let _server = host.serve(directory.join("host.sock")).expect("it serves");
        let output = run(Command::new(program).env("RINGTAP_SOCKET", directory.join("host.sock")));
        let told = String::from_utf8(output.stdout).expect("it prints text");
        let told: Vec<(&str, &str)> =
            told.split_terminator('\x0c').filter_map(|part| part.split_once('\n')).collect();

        EvenText::register(&host).expect("it is the same declaration");
        for declared in declared() {
            let id = declared.register(&host).expect("it is the same declaration");
            if let Some((_, format)) =
                told.iter().find(|(head, _)| head.ends_with(&format!(" {}", declared.name())))
            {
                assert_eq!(*format, declared.format(None), "{}", declared.name());
                assert!(told.contains(&(&format!("{id} {}", declared.name()), format)));
            }
        }
        assert_eq!(told.len(), 16);
        let from_c = payloads(&host);
        write_fields(&host.writer());
        write_texts(&host.writer());
        let from_rust = payloads(&host);
        assert_eq!(from_c.len(), 18 + 2 * (80 + 23));
        assert_eq!(from_c, from_rust);
        declared().iter().for_each(|declared| declared.unregister());
        EvenText::declared().unregister();
    }
}

/// A line that the program says, once it does.
fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).expect("it speaks");
    line.trim_end().to_owned()
}

#[test]
fn a_host_switches_events_of_a_running_program() {
    let Some(program) = compile("switched.c", Language::C, Link::Shared) else { return };
    let socket = scratch("switched").join("host.sock");
    let instances = Instances::new(&Config::default()).expect("there is memory");
    let _server = instances.serve(&socket).expect("it serves");
    let mut child = Command::new("timeout")
        .args(["60".as_ref(), program.as_os_str(), socket.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    assert_eq!(line(&mut output), "off");
    let top = instances.top();
    let id = instances.event("switched", "tick").expect("it is declared").id;
    assert_eq!(payloads(&top.host()).len(), 0, "it was off");
    top.set_event(id, true);
    assert_eq!(line(&mut output), "on 0");
    assert!(!payloads(&top.host()).is_empty(), "it was on");
    top.set_event(id, false);
    let mut said = [line(&mut output), line(&mut output)];
    said.sort();
    assert_eq!(said, ["off 0", "off 1"]);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_program_traces_to_whoever_is_there() {
    let Some(program) = compile("init.c", Language::Cpp, Link::Shared) else { return };
    let directory = scratch("init");
    let own = run(Command::new(&program)
        .arg("own")
        .env("XDG_RUNTIME_DIR", &directory)
        .env_remove("RINGTAP_SOCKET"));
    let socket = String::from_utf8(own.stdout).expect("it prints text");
    assert!(socket.starts_with(&*directory.to_string_lossy()), "{socket}");
    assert!(!Path::new(socket.trim_end()).exists(), "{socket} is left behind");

    let host = Host::new(&Config::default()).expect("there is memory");
    let _server = host.serve(directory.join("host.sock")).expect("it serves");
    run(Command::new(&program).arg("there").env("RINGTAP_SOCKET", directory.join("host.sock")));
    assert_eq!(payloads(&host).len(), 1);
}

/// Another program of the workspace, where cargo has built it.
fn built_program(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.ancestors().nth(2)?.join(name);
    let exists = program.exists() || common::skip(&format!("{} is not built", program.display()));
    exists.then_some(program)
}

#[test]
fn the_command_line_follows_a_c_program() {
    let Some((program, ringtap)) =
        compile("served.c", Language::C, Link::Static).zip(built_program("ringtap"))
    else {
        return;
    };
    let socket = scratch("served").join("host.sock");
    let mut child = Command::new(program)
        .arg(&socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    assert_eq!(line(&mut output), "ready");
    let mut stream = Command::new(ringtap)
        .args(["stream".as_ref(), "--json".as_ref(), "--attach".as_ref(), socket.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(stream.stdout.take().expect("it is piped"));
    let mut seen: Vec<String> = Vec::new();
    while !seen.last().is_some_and(|line| line.contains("all is written")) {
        let next = line(&mut lines);
        assert!(!next.is_empty(), "it ended behind {seen:#?}");
        seen.push(next);
    }
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
    // Its host is gone.
    let _ = stream.wait();
    let has = |parts: &[&str]| seen.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(has(&["one_text", "/cart/7", "81250"]), "{seen:#?}");
    assert!(has(&["printed", "::1:8080 fd=3 open=1"]), "{seen:#?}");
    assert!(has(&["symbols", "page cache", "READ|WRITE"]), "{seen:#?}");
    assert_eq!(seen.iter().filter(|line| line.contains(r#""system":"fields""#)).count(), 18, "{seen:#?}");
}

#[test]
fn a_forked_child_declares_with_its_parent() {
    let programs =
        compile("plugin.c", Language::C, Link::Plugin).zip(compile("forked.c", Language::C, Link::Shared));
    let Some((plugin, program)) = programs else { return };
    run(Command::new(program).arg(plugin).arg(scratch("forked").join("host.sock")));
}

#[test]
fn spans_are_slices_on_a_time_line() {
    let programs = compile("fields.c", Language::Cpp, Link::Static).zip(built_program("ringtap"));
    let Some((program, ringtap)) = programs else { return };
    let directory = scratch("spans");
    let (file, line) = (directory.join("trace.dat"), directory.join("trace.json"));
    run(Command::new(&ringtap).args(["record", "-o"]).arg(&file).arg("--").arg(program));
    run(Command::new(&ringtap).args(["export", "--to", "chrome", "-o"]).arg(&line).arg(&file));
    let line = std::fs::read_to_string(line).expect("it was written");
    let slices =
        line.lines().filter(|line| line.starts_with(r#"{"ph":"B""#) || line.starts_with(r#"{"ph":"E""#));
    let slices: Vec<&str> = slices.collect();
    let [outer, inner, _, _] = slices[..] else { panic!("two begin, two end: {line}") };
    assert!(outer.contains(r#""name":"request""#) && outer.contains(r#""user":7"#), "{outer}");
    assert!(inner.contains(r#""name":"work""#), "{inner}");
    assert!(slices[2..].iter().all(|end| end.starts_with(r#"{"ph":"E""#)), "{line}");
}

#[test]
fn of_a_program_that_dies_the_last_event_is_in_the_recorders_file() {
    let Some(ringtap) = built_program("ringtap").filter(|_| has("trace-cmd")) else { return };
    let directory = scratch("crash");
    for (language, death, signal) in [
        (Language::C, "segv", libc::SIGSEGV),
        (Language::C, "abort", libc::SIGABRT),
        (Language::Cpp, "exception", libc::SIGABRT),
    ] {
        let Some(program) = compile("crash.c", language, Link::Shared) else { continue };
        let file = directory.join(death);
        let mut record = Command::new(&ringtap);
        record.args(["record", "-q", "--snapshot-on", "crash", "-o"]).arg(&file).arg("--").arg(program);
        let output = record.arg(death).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + signal), "{death}: {said}");
        let report = run(Command::new("trace-cmd").args(["report", "-i"]).arg(&file));
        let text = String::from_utf8_lossy(&report.stdout);
        let steps = text.lines().filter_map(|line| line.split_once("number="));
        let numbers: Vec<u64> = steps.filter_map(|(_, number)| number.trim().parse().ok()).collect();
        assert!(numbers.iter().copied().eq(0..1000), "{death}: {text}");
    }
}

#[test]
fn a_program_that_hangs_says_where() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 1000 & sleep 1000; exit 1"]);
    let stuck = output_within(&mut shell, Duration::from_secs(2)).expect_err("it does not end");
    let ends = |end: &str| stuck.lines().filter(|line| line.trim_end().ends_with(end)).count();
    assert_eq!(ends(" sleep"), 4, "two threads, looked at twice: {stuck}");
    if has("gdb") {
        assert!(stuck.contains("nanosleep"), "{stuck}");
    }
    assert!(stuck.contains("was killed"), "{stuck}");
}

/// Runs the torture with this seed, events a writer and mode.
fn torture(mode: &str, seed: u64, events: u64, prefix: &dyn Fn(&Path) -> Command) {
    let programs =
        compile("plugin.c", Language::C, Link::Plugin).zip(compile("torture.c", Language::C, Link::Shared));
    let Some((plugin, program)) = programs else { return };
    let directory = scratch(&format!("torture-{mode}-{events}"));
    let mut command = prefix(&program);
    command.args([mode, &seed.to_string(), &events.to_string()]).arg(plugin);
    command.args([directory.join("host.sock"), directory.join("counts")]);
    let output = run(&mut command);
    println!("seed {seed}, {mode}: {}", String::from_utf8_lossy(&output.stdout).trim_end());
}

/// `RINGTAP_SEED` repeats a run, `RINGTAP_TORTURE` makes it so many times longer.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn seed() -> u64 {
    number("RINGTAP_SEED", u64::from(std::process::id()))
}

#[test]
fn threads_signals_forks_execs_exits_and_plugins_lose_nothing() {
    let rounds = number("RINGTAP_TORTURE", 1);
    for round in 0..rounds {
        torture("embedded", seed() + round, 3000, &|program| Command::new(program));
        torture("attached", seed() + round, 3001, &|program| Command::new(program));
    }
}

#[test]
fn nor_do_they_without_restartable_sequences() {
    torture("attached", seed(), 3002, &|program| {
        let mut command = Command::new(program);
        command.env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
        command
    });
}

#[test]
fn nor_under_valgrind() {
    if has("valgrind") {
        torture("embedded", seed(), 40, &|program| under_valgrind(program, false));
    }
}

/// The blocks of a document in this language.
fn blocks<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let mark = format!("```{language}\n");
    document.split(mark.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_guides_example_prints_what_the_guide_says() {
    let guide = std::fs::read_to_string(common::crate_dir().join("../../docs/c.md")).expect("it is there");
    let ([program], [printed]) = (&blocks(&guide, "c")[..], &blocks(&guide, "text")[..]) else {
        panic!("the guide has one program, and what it prints");
    };
    let source = scratch("guide").join("shop.c");
    std::fs::write(&source, program).expect("it can be written");
    for language in [Language::C, Language::Cpp] {
        let Some(program) = compile_with(&source, language, Link::Shared, &["-O2"]) else { continue };
        let output = run(&mut Command::new(program));
        assert_eq!(String::from_utf8_lossy(&output.stdout), *printed);
    }
}

#[test]
fn installed_it_is_found_by_pkg_config() {
    let Some(xtask) = built_program("xtask") else { return };
    if !has("gcc") || !has("pkg-config") {
        return;
    }
    let prefix = scratch("prefix");
    let mut install = Command::new(xtask);
    install.args(["install-capi".as_ref(), "--prefix".as_ref(), prefix.as_os_str()]);
    // The libraries under the names that cargo gives them in the end.
    let built = scratch("built");
    for (from, to) in [("libringtap.so", "libringtap_c.so"), ("libringtap.a", "libringtap_c.a")] {
        std::os::unix::fs::symlink(common::libraries().join(from), built.join(to))
            .expect("links can be made");
    }
    run(install.arg("--built").arg(built));
    for options in [&["--cflags", "--libs"][..], &["--cflags", "--libs", "--static"]] {
        let found = run(Command::new("pkg-config")
            .args(options)
            .arg("ringtap")
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
        let flags = String::from_utf8(found.stdout).expect("flags are text");
        let mut compiler = Command::new("gcc");
        compiler.arg(common::crate_dir().join("tests/c/embedded.c")).args(flags.split_whitespace());
        run(compiler.arg("-o").arg(prefix.join("embedded")).arg("-pthread"));
        run(Command::new(prefix.join("embedded")).env("LD_LIBRARY_PATH", prefix.join("lib")));
    }
}

#[test]
fn the_header_declares_what_the_library_exports() {
    if !has("nm") {
        return;
    }
    let header = std::fs::read_to_string(common::crate_dir().join("include/ringtap.h")).expect("it is there");
    let api = header.split("The declaring macros").next().expect("they come behind the functions");
    let mut declared: Vec<&str> = api
        .lines()
        .filter(|line| !line.starts_with([' ', '/', '*', '#']))
        .filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("ringtap_") && api.contains(&format!("{name}(")))
        .collect();
    let output =
        run(Command::new("nm").args(["-D", "--defined-only"]).arg(common::libraries().join("libringtap.so")));
    let symbols = String::from_utf8(output.stdout).expect("symbols are text");
    let mut exported: Vec<&str> = symbols.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    declared.sort_unstable();
    declared.dedup();
    exported.sort_unstable();
    assert_eq!(declared, exported);
}
