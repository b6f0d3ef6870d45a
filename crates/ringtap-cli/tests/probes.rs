//! `-p` and `-u`: probes in programs, on the live kernel.

mod support;

use ringtap::tracefs::Tracefs;
use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{Temporary, run, said, signal, until};

const TIMES: usize = 20;

/// Says why, once, and returns true where programs cannot be probed here.
fn cannot_probe() -> bool {
    let found =
        Tracefs::find().and_then(|tracefs| tracefs.check_mapping().and_then(|()| tracefs.check_uprobes()));
    found.inspect_err(|error| println!("skipped, as it needs the live kernel: {error}")).is_err()
}

fn compile(temporary: &Temporary) -> PathBuf {
    let program = temporary.path().join("shop");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shop.c");
    let output = Command::new("cc").args(["-O1", "-g0", "-o"]).arg(&program).arg(source).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    program
}

fn events(output: &Output) -> Vec<Value> {
    let lines = String::from_utf8_lossy(&output.stdout);
    let parse = |line| serde_json::from_str(line).ok();
    lines.lines().filter_map(parse).filter(|line: &Value| line["type"] == "event").collect()
}

fn named<'e>(events: &'e [Value], name: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

fn number(event: &Value, field: &str) -> i64 {
    let value = &event["fields"][field];
    value.as_i64().unwrap_or_else(|| panic!("{field} of {event}"))
}

/// That of our own probes, none is left. Others may have theirs.
fn assert_none_of(program: &Path) {
    let root = Tracefs::find().unwrap().root().to_owned();
    let probes = std::fs::read_to_string(root.join("uprobe_events")).unwrap();
    assert!(!probes.contains(program.to_str().unwrap()), "{probes}");
}

#[test]
fn functions_returns_and_usdt_probes_are_counted_exactly() {
    if cannot_probe() {
        return;
    }
    let temporary = Temporary::new("probes-counts");
    let shop = compile(&temporary);
    let shop_text = shop.to_str().unwrap();
    let (item, price) = if cfg!(target_arch = "aarch64") { ("%x0", "%x1") } else { ("%di", "%si") };
    let probes = [
        "-p".to_owned(),
        format!("{shop_text}:sell item={item}:s32 price={price}:s64"),
        "-p".to_owned(),
        format!("{shop_text}:sell%return result=$retval:s32"),
        "-u".to_owned(),
        format!("{shop_text}:shop:sold"),
    ];
    let check = |events: &[Value]| {
        let (called, returned, sold) =
            (named(events, "sell"), named(events, "sell__return"), named(events, "sold"));
        assert_eq!([called.len(), returned.len(), sold.len()], [TIMES; 3], "{events:#?}");
        for (index, ((called, returned), sold)) in (0..).zip(called.iter().zip(&returned).zip(&sold)) {
            assert_eq!((number(called, "item"), number(called, "price")), (index, 1000 * index));
            assert_eq!(number(returned, "result"), 2 * index);
            assert_eq!((number(sold, "arg1"), number(sold, "arg2")), (index, 1000 * index));
            assert_eq!((&called["system"], &sold["system"]), (&"shop".into(), &"shop".into()));
            if cfg!(target_arch = "x86_64") {
                assert_eq!(number(sold, "arg3"), -7, "a constant");
            }
        }
    };
    let mut stream = temporary.ringtap();
    stream.args(["stream", "--kernel", "--json"]).args(&probes).arg("--").arg(&shop).arg(TIMES.to_string());
    let output = stream.output().unwrap();
    assert_eq!(output.status.code(), Some(42), "the probe's counter was raised: {}", said(&output));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("shop:sold: without arg4: the kernel cannot fetch '8f@%xmm0'"), "{complaint}");
    check(&events(&output));

    let file = temporary.path().join("shop.dat");
    let mut record = temporary.ringtap();
    record
        .args(["record", "--kernel", "-q", "-o"])
        .arg(&file)
        .args(&probes)
        .arg("--")
        .arg(&shop)
        .arg(TIMES.to_string());
    let output = record.output().unwrap();
    assert_eq!(output.status.code(), Some(42), "{}", said(&output));
    let report = temporary.ringtap().arg("report").arg("--json").arg(&file).output().unwrap();
    check(&events(&report));

    assert_none_of(&shop);
    let alone = Command::new(&shop).status().unwrap();
    assert_eq!(alone.code(), Some(41), "nobody watches any more");
}

#[test]
fn probes_stand_beside_an_applications_events_in_time() {
    if cannot_probe() {
        return;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "ringtap-preload"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
    let temporary = Temporary::new("probes-libc");
    let shop = compile(&temporary);
    let mut stream = temporary.ringtap();
    stream.args(["stream", "--kernel", "--json", "--preload", "libc", "-e", "libc_io:write"]);
    stream.args(["-p", "libc.so.6:longjmp", "-u"]).arg(format!("{}:shop:sold", shop.display()));
    let output = stream.arg("--").arg(&shop).arg(TIMES.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(42), "{}", said(&output));
    let events = events(&output);
    let order: Vec<_> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    let expected: Vec<_> = (0..TIMES).flat_map(|_| ["longjmp", "write", "sold"]).collect();
    // What the C library does when the program starts may jump, too.
    let first = order.len().saturating_sub(expected.len());
    assert!(order[..first].iter().all(|name| *name == "longjmp"), "{order:?}");
    assert_eq!(order[first..], expected);
    let writes = named(&events, "write");
    assert!((0..).zip(writes).all(|(index, write)| number(write, "count") == index), "{events:#?}");
}

#[test]
fn probes_that_authors_put_into_their_programs_are_hit() {
    if cannot_probe() {
        return;
    }
    let temporary = Temporary::new("probes-python");
    let collect = "import gc\nfor _ in range(10): gc.collect()";
    let mut stream = temporary.ringtap();
    stream.args(["stream", "--kernel", "--json", "-u", "/usr/bin/python3:python:gc__start"]);
    stream.args(["--", "/usr/bin/python3", "-c", collect]);
    let output = stream.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("cannot find /usr/bin/python3") || complaint.contains("has no USDT probe") {
        return println!("skipped: {complaint}");
    }
    assert!(output.status.success(), "{}", said(&output));
    let collected = events(&output);
    let collected = named(&collected, "gc__start");
    let of_all = collected.iter().filter(|event| number(event, "arg1") == 2).count();
    assert!(of_all >= 10, "the third generation was collected ten times: {collected:#?}");
}

#[test]
fn who_is_killed_leaves_his_probes_to_the_next() {
    if cannot_probe() {
        return;
    }
    let temporary = Temporary::new("probes-killed");
    let shop = compile(&temporary);
    let probe = format!("{}:sell", shop.display());
    let root = Tracefs::find().unwrap().root().to_owned();
    let ours = || {
        let probes = std::fs::read_to_string(root.join("uprobe_events")).unwrap();
        probes.lines().filter(|line| line.contains(shop.to_str().unwrap())).count()
    };
    let mut killed = temporary.ringtap().args(["stream", "--kernel", "-p", &probe]).spawn().unwrap();
    until("a probe is put in", || ours() == 1);
    signal(&killed, Signal::KILL);
    killed.wait().unwrap();
    // Another run on this machine may have been the next already.
    let next =
        temporary.ringtap().args(["stream", "--kernel", "-p", &probe, "--"]).arg(&shop).output().unwrap();
    assert_eq!(next.status.code(), Some(41), "{}", said(&next));
    assert_none_of(&shop);
}

#[test]
fn mistakes_are_told_before_anything_is_done() {
    if cannot_probe() {
        return;
    }
    let temporary = Temporary::new("probes-mistakes");
    let shop = compile(&temporary);
    let shop = shop.to_str().unwrap();
    let text = |option: &str, probe: &str| {
        said(&run(&["stream", "--kernel", option, probe, "--dry-run"])).replace(shop, "SHOP")
    };
    let told = |option: &str, probe: &str, sentence: &str| {
        let text = text(option, probe);
        assert!(text.starts_with("status Some(1), stderr:\nringtap: ") && text.contains(sentence), "{text}");
    };
    told(
        "-p",
        &format!("{shop}:sel"),
        "SHOP has no function 'sel'; did you mean sell? (a function that was inlined",
    );
    told(
        "-p",
        &format!("{shop}:nanosleep"),
        "SHOP only calls 'nanosleep'; probe the library that it comes from",
    );
    told(
        "-p",
        "no-such-program:main",
        "there is no program 'no-such-program' in PATH, and no library; give its path",
    );
    told("-u", &format!("{shop}:shop:solt"), "SHOP has no USDT probe 'shop:solt'; did you mean shop:sold?");
    told("-p", &format!("{shop}:0x7fffffff"), "0x7fffffff+0x0 is no code of SHOP");
    let refused =
        said(&run(&["stream", "--kernel", "-p", &format!("{shop}:sell n=$retval:s32"), "--", "true"]));
    assert!(refused.contains("the kernel refuses") && refused.contains("$retval needs %return"), "{refused}");
    let twice = temporary.path().join("twice");
    for (name, more) in
        [("one.c", "int main(void) { return same(); }"), ("two.c", "int two(void) { return same(); }")]
    {
        let source = format!(
            "__attribute__((noinline)) static int same(void) {{ __asm__ volatile(\"\"); return 1; }}\n{more}\n"
        );
        std::fs::write(temporary.path().join(name), source).unwrap();
    }
    let files = ["one.c", "two.c"].map(|name| temporary.path().join(name));
    assert!(Command::new("cc").arg("-o").arg(&twice).args(files).status().unwrap().success());
    let several = text("-p", &format!("{}:same", twice.display()));
    assert!(
        several.contains("has several functions 'same'; give one of their addresses instead: 0x"),
        "{several}"
    );
    let address = several.split("instead: ").nth(1).unwrap().split(',').next().unwrap();
    let one = text("-p", &format!("{}:{address}", twice.display()));
    assert!(one.contains("status Some(0)") && one.contains(" as twice:0x"), "{one}");
    let ifunc = text("-p", "libc.so.6:memcpy");
    assert!(
        ifunc.contains("chooses one of several functions") || ifunc.contains("status Some(0)"),
        "{ifunc}"
    );
}
