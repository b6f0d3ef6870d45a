//! What programs call is what their traces hold, call by call: programs that count for themselves.

mod support;

use std::collections::HashSet;
use support::{Folder, Trace, Tracer};

const TORTURE: &str = include_str!("torture.c");
const NAMES: [&str; 7] = ["mallocs", "frees", "writes", "handler_writes", "locks", "waits", "errors"];

/// What the program counted.
fn counted(file: &std::path::Path) -> [u64; 7] {
    let bytes = std::fs::read(file).expect("the program has made it");
    std::array::from_fn(|index| u64::from_le_bytes(bytes[8 * index..][..8].try_into().expect("eight bytes")))
}

/// The same numbers, from the trace.
fn traced(trace: &Trace) -> [u64; 7] {
    let is_ours = |size: i64| (7000..7100).contains(&size);
    let (mut mallocs, mut frees, mut writes, mut handler_writes) = (0, 0, 0, 0);
    let mut live = HashSet::new();
    for event in &trace.events {
        match event.name.as_str() {
            "malloc" if is_ours(event.int("size")) => {
                mallocs += 1;
                assert!(live.insert((event.tid, event.int("ptr"))), "allocated twice: {event:?}");
            }
            "free" => frees += u64::from(live.remove(&(event.tid, event.int("ptr")))),
            "write" if event.int("fd") == 100 => match event.int("count") {
                // A thread's go up to 9.
                6 if event.int("ret") == 6 => handler_writes += 1,
                count => writes += u64::from(event.int("ret") == count),
            },
            _ => {}
        }
    }
    let count = |name| trace.count(name) as u64;
    [mallocs, frees, writes, handler_writes, count("mutex_lock"), count("waitpid"), 0]
}

/// `RINGTAP_TORTURE` makes it so many times longer.
#[test]
fn threads_forks_execs_and_signals_at_once_are_counted_exactly() {
    let rounds = std::env::var("RINGTAP_TORTURE").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    (0..rounds).for_each(|_| torture());
}

fn torture() {
    let folder = Folder::new();
    let program = folder.compile("torture", TORTURE, &[]);
    let tracer = Tracer::new(256);
    let counts = folder.join("counts");
    let mut command = tracer.command(&program, "");
    command.args(["3", "2000", "6", "1"]).arg(&counts);
    let (output, trace) = tracer.run(&mut command);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(trace.lost, 0);
    let (mut counted, mut traced) = (counted(&counts), traced(&trace));
    // Lengths alone do not tell a handler's writes from a thread's.
    counted[2] += std::mem::take(&mut counted[3]);
    traced[2] += std::mem::take(&mut traced[3]);
    for (name, (counted, traced)) in NAMES.iter().zip(counted.iter().zip(traced)) {
        assert_eq!(*counted, traced, "{name}");
    }
    // Those of the main program, of its six children, and of two that went on as programs with six each.
    assert!(counted[0] >= 3 * 2000 + 6 * 500 + 2 * (3 * 2000 + 6 * 500), "{counted:?}");
}

#[test]
fn without_restartable_sequences_only_what_is_refused_is_missing() {
    let folder = Folder::new();
    let program = folder.compile("torture", TORTURE, &[]);
    let tracer = Tracer::new(256);
    let counts = folder.join("counts");
    let mut command = tracer.command(&program, "malloc,free,write,mutex_lock,waitpid");
    command.args(["2", "300", "3", "0"]).arg(&counts).env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
    let (output, trace) = tracer.run(&mut command);
    assert!(output.status.success(), "{output:?}");
    let (mut counted, mut traced) = (counted(&counts), traced(&trace));
    counted[2] += std::mem::take(&mut counted[3]);
    traced[2] += std::mem::take(&mut traced[3]);
    // There a handler that interrupts its own thread's event is refused, and counted: it cannot wait for the lock.
    let mut refused = 0;
    for &cpu in &tracer.host.cpus() {
        refused += tracer.host.stats(cpu).expect("it is this process's").commit_overrun;
    }
    for (name, (counted, traced)) in NAMES.iter().zip(counted.iter().zip(traced)) {
        assert!(
            traced <= *counted && counted - traced <= refused,
            "{name}: {counted}, {traced}, {refused} refused"
        );
    }
    let missing: u64 = counted.iter().sum::<u64>() - traced.iter().sum::<u64>();
    assert!(missing <= refused, "{missing} are missing, {refused} were refused");
}
