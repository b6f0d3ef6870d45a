//! What programs do that makes life hard for a library between them and the C library.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use support::{Folder, Trace, Tracer, library};

const TRAPS: &str = include_str!("traps.c");

/// Runs one of the traps, traced and not, and returns its trace.
fn trap(folder: &Folder, arguments: &[&str], code: i32) -> Trace {
    let program = folder.join("traps");
    let program = if program.exists() { program } else { folder.compile("traps", TRAPS, &["-ldl"]) };
    let plain = Command::new(&program).args(arguments).output().expect("it runs");
    assert_eq!(plain.status.code(), Some(code), "{arguments:?} alone: {plain:?}");
    let tracer = Tracer::new(64);
    let (output, trace) = tracer.run(tracer.command(&program, "").args(arguments));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    assert_eq!((&output.stdout, &output.stderr), (&plain.stdout, &plain.stderr));
    trace
}

#[test]
fn a_thread_that_is_cancelled_in_a_call_unwinds() {
    let trace = trap(&Folder::new(), &["cancel"], 0);
    assert_eq!((trace.count("barrier_wait"), trace.count("join")), (6, 3));
    assert!(trace.of("read").all(|event| event.int("count") != 1), "it never returned");
}

#[test]
fn children_of_vfork_run_and_write_nothing() {
    let trace = trap(&Folder::new(), &["children"], 0);
    let opened = |path: &str| trace.of("open").filter(|event| event.text.contains(path)).count();
    // The parent's twenty. Of the children only those that went on as programs are traced, and these open nothing.
    assert_eq!((opened("/dev/zero"), opened("/dev/null")), (20, 0));
    // Of vfork, and of clone.
    assert_eq!(
        trace.of("waitpid").filter(|event| event.int("ret") > 0 && event.int("options") == 0).count(),
        20 + 20
    );
}

#[test]
fn a_handler_may_jump_out_of_a_call() {
    let trace = trap(&Folder::new(), &["jumps"], 0);
    let is_ours = |event: &&support::Event| event.int("size") == 7777;
    assert_eq!(trace.of("malloc").filter(is_ours).count(), 50);
}

#[test]
fn errors_are_the_same_and_told() {
    let trace = trap(&Folder::new(), &["errors"], 0);
    let texts: Vec<&str> = trace.events.iter().map(|event| event.text.as_str()).collect();
    let has = |name: &str, part: &str| trace.of(name).any(|event| event.text.contains(part));
    assert!(has("open", "path= flags= mode=0 ret=-1 errno=EFAULT"), "{texts:#?}");
    assert!(has("open", "path=/no/such/file flags= mode=0 ret=-1 errno=ENOENT"), "{texts:#?}");
    assert!(has("read", "fd=-1 count=1 ret=-1 errno=EBADF"), "{texts:#?}");
    assert!(has("connect", "address=unix:/no/such/socket ret=-1 errno=ENOENT"), "{texts:#?}");
    assert!(has("posix_memalign", "ret=EINVAL"), "{texts:#?}");
    assert!(has("mutex_trylock", "ret=EBUSY"), "{texts:#?}");
    assert!(
        has("mmap", "prot=READ flags=PRIVATE|ANONYMOUS fd=-1 offset=0 ret=0xffffffffffffffff errno=EINVAL"),
        "{texts:#?}"
    );
}

#[test]
fn descriptors_are_the_programs_own() {
    let trace = trap(&Folder::new(), &["descriptors"], 0);
    let is_ours = |event: &&support::Event| event.int("size") == 7777;
    assert_eq!(
        trace.of("malloc").filter(is_ours).count(),
        2,
        "in the child, too, with all descriptors closed"
    );
}

#[test]
fn libraries_come_and_go() {
    let folder = Folder::new();
    let source = "#include <stdlib.h>\nvoid *use(void) { return malloc(7777); }\n";
    let library = folder.compile("library.so", source, &["-shared", "-fPIC"]);
    let trace = trap(&folder, &["libraries", library.to_str().expect("a plain path")], 0);
    let is_ours = |event: &&support::Event| event.int("size") == 7777;
    assert_eq!(trace.of("malloc").filter(is_ours).count(), 20);
}

#[test]
fn functions_may_be_looked_for_in_vain_before_ours_are_found() {
    let folder = Folder::new();
    // A constructor that runs before ours: the next look frees the text of the last one's error.
    let source = "#define _GNU_SOURCE\n#include <dlfcn.h>\nint found;\n\
        __attribute__((constructor)) static void look(void) {\n\
        dlsym(RTLD_DEFAULT, \"no_such_function\"); dlsym(RTLD_DEFAULT, \"nor_this_one\");\n\
        found = dlsym(RTLD_DEFAULT, \"printf\") != 0; }\n";
    let library = folder.compile("looks.so", source, &["-shared", "-fPIC", "-ldl"]);
    let main = "#include <stdlib.h>\nextern int found;\n\
        int main(void) { free(malloc(7777)); return !found; }\n";
    let program = folder.compile("looks", main, &[library.to_str().expect("a plain path")]);
    let tracer = Tracer::new(64);
    let (output, trace) = tracer.run(&mut tracer.command(&program, "malloc,free"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(trace.of("malloc").filter(|event| event.int("size") == 7777).count(), 1);
}

#[test]
fn without_restartable_sequences_programs_are_traced_as_well() {
    let folder = Folder::new();
    let program = folder.compile("traps", TRAPS, &["-ldl"]);
    let tracer = Tracer::new(64);
    for (name, code) in [("descriptors", 0), ("errors", 0), ("ends", 9)] {
        let mut command = tracer.command(&program, "");
        command.arg(name).env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
        let (output, trace) = tracer.run(&mut command);
        assert_eq!(output.status.code(), Some(code), "{name}: {output:?}");
        assert!(trace.count("open") + trace.count("malloc") > 0, "{name}");
    }
}

#[test]
fn an_exit_inside_a_signal_handler_loses_nothing() {
    let trace = trap(&Folder::new(), &["ends"], 9);
    let mallocs = trace.of("malloc").filter(|event| event.int("size") == 7777).count();
    let frees = trace.count("free");
    assert!(mallocs > 10 && frees + 2 > mallocs, "{mallocs} allocated, {frees} freed");
}

#[test]
fn a_program_with_an_allocator_of_its_own_keeps_it() {
    let folder = Folder::new();
    let allocator = include_str!("allocator.c");
    let main = "\nextern long asked, freed; int printf(const char *, ...);\n\
        int main(void) { for (int i = 0; i < 10; i++) free(malloc(7777));\n\
        return asked >= 10 && freed >= 10 ? 0 : 1; }\n";
    // In the program: it never comes by here.
    let own = folder.compile("own", &format!("{allocator}{main}"), &["-rdynamic"]);
    let tracer = Tracer::new(64);
    let (output, trace) = tracer.run(&mut tracer.command(&own, "malloc,free,write"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!((trace.count("malloc"), trace.count("free")), (0, 0));
    // In a library behind us: we stand before it, and call it.
    let behind = folder.compile("behind.so", allocator, &["-shared", "-fPIC"]);
    let main = format!("#include <stdlib.h>\n{main}");
    let program = folder.compile("program", &main, &[behind.to_str().expect("a plain path")]);
    let (output, trace) = tracer.run(&mut tracer.command(&program, "malloc,free"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(trace.of("malloc").filter(|event| event.int("size") == 7777).count(), 10);
}

#[test]
fn who_is_killed_loses_at_most_the_event_in_hand() {
    let folder = Folder::new();
    let source = "#include <stdlib.h>\n#include <unistd.h>\nint main(void) {\n\
        for (unsigned long done = 0;;) { free(malloc(7777)); done++; write(100, &done, 8); } }\n";
    let program = folder.compile("endless", source, &[]);
    let tracer = Tracer::new(256);
    for _ in 0..10 {
        let (mut ours, theirs) = std::io::pipe().expect("pipes can be made");
        let mut command = tracer.command("bash", "malloc,write");
        command.args(["-c", "exec \"$0\" 100>&1"]).arg(&program).stdout(theirs);
        let mut child = command.spawn().expect("it runs");
        drop(command);
        let mut done = 0;
        let mut bytes = [0; 8];
        for _ in 0..500 {
            std::io::Read::read_exact(&mut ours, &mut bytes).expect("it goes on");
            done = u64::from_le_bytes(bytes);
        }
        child.kill().expect("it is ours");
        let status = child.wait().expect("it is ours");
        assert_eq!(status.signal(), Some(9));
        while std::io::Read::read_exact(&mut ours, &mut bytes).is_ok() {
            done = u64::from_le_bytes(bytes);
        }
        let trace = tracer.read();
        assert_eq!(trace.lost, 0);
        let mallocs = trace.of("malloc").filter(|event| event.int("size") == 7777).count() as u64;
        let writes = trace.of("write").filter(|event| event.int("fd") == 100).count() as u64;
        assert!(mallocs == done || mallocs == done + 1, "{done} were done, {mallocs} are in the trace");
        assert!(writes == done || writes + 1 == done, "{done} were written, {writes} are in the trace");
    }
}

#[test]
fn without_a_host_programs_run_as_ever() {
    for (socket, program) in [(None, "ls"), (Some("/no/such/socket"), "ls")] {
        let mut command = Command::new(program);
        command.arg("/").env("LD_PRELOAD", library()).env_remove("RINGTAP_SOCKET");
        socket.map(|socket| command.env("RINGTAP_SOCKET", socket));
        let output = command.output().expect("it runs");
        let plain = Command::new(program).arg("/").output().expect("it runs");
        assert_eq!((output.status, output.stdout, output.stderr), (plain.status, plain.stdout, plain.stderr));
    }
}
