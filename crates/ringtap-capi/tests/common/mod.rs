//! Compiles the tests' C and C++ programs against the library and the header, and runs them.

#![allow(dead_code, reason = "each test uses a part of it")]

mod watchdog;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
pub(crate) use watchdog::output_within;

/// Warnings are errors, in C and in C++.
const STRICT: [&str; 6] = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-pthread"];

/// The language that a program is compiled as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Cpp,
}

/// What a program is linked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Shared,
    Static,
    /// The program is itself a shared library, linked with ours.
    Plugin,
}

/// Whether a tool is there; says what is skipped where it is not.
pub(crate) fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    found || skip(&format!("there is no {tool}"))
}

/// Says why a test is skipped; `false`. In CI nothing is missing.
pub(crate) fn skip(why: &str) -> bool {
    assert!(std::env::var_os("RINGTAP_SKIP_NOTHING").is_none(), "{why}");
    println!("skipped: {why}");
    false
}

pub(crate) fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo put what it built for these tests.
fn built() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    program.parent().expect("it lies in deps").to_owned()
}

/// A directory with the libraries under the names that programs are linked with.
pub(crate) fn libraries() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = scratch("lib");
        let shared = built().join("libringtap_c.so");
        assert!(shared.exists(), "cargo builds {} for these tests", shared.display());
        for name in ["libringtap.so", "libringtap.so.0"] {
            std::os::unix::fs::symlink(&shared, directory.join(name)).expect("links can be made");
        }
        // Of several, from builds with other settings, the last.
        let is_static = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libringtap_c") && name.ends_with(".a")
        };
        let all =
            std::fs::read_dir(built()).expect("it can be read").filter_map(|entry| Some(entry.ok()?.path()));
        let built_at = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
        let archive = all.filter(is_static).max_by_key(built_at).expect("cargo builds it, too");
        std::os::unix::fs::symlink(archive, directory.join("libringtap.a")).expect("links can be made");
        directory
    })
}

/// An empty directory of this test process.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("capi-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("it can be made");
    directory
}

/// Compiles a program of tests/c; `None` where there is no compiler.
pub(crate) fn compile(source: &str, language: Language, link: Link) -> Option<PathBuf> {
    compile_with(&crate_dir().join("tests/c").join(source), language, link, &["-O1"])
}

pub(crate) fn compile_with(source: &Path, language: Language, link: Link, more: &[&str]) -> Option<PathBuf> {
    let (compiler, options) = match language {
        Language::C => ("gcc", ["-x", "c", "-std=gnu11"]),
        Language::Cpp => ("g++", ["-x", "c++", "-std=c++17"]),
    };
    if !has(compiler) {
        return None;
    }
    let stem = source.file_stem().expect("it has a name").to_string_lossy();
    let program = libraries().join(format!("{stem}-{language:?}-{link:?}"));
    // Tests run side by side, and share programs.
    static COMPILED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if compiled.contains(&program) {
        return Some(program);
    }
    let mut command = Command::new(compiler);
    command.args(options).args(STRICT).args(more).arg("-I").arg(crate_dir().join("include"));
    if link == Link::Plugin {
        command.args(["-fPIC", "-shared"]);
    }
    command.arg(source).args(["-x", "none", "-o"]).arg(&program);
    match link {
        Link::Static => command.arg(libraries().join("libringtap.a")).args(["-ldl", "-lm"]),
        _ => {
            let libraries = libraries().display();
            command.args([&format!("-L{libraries}"), "-lringtap", &format!("-Wl,-rpath,{libraries}")])
        }
    };
    let output = command.output().expect("the compiler runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?}:\n{said}");
    compiled.push(program.clone());
    Some(program)
}

/// Runs a program to its end; that is its success.
pub(crate) fn run(command: &mut Command) -> Output {
    // A program that hangs is a failure of its own, long before CI's patience ends.
    let output = output_within(command, Duration::from_secs(240));
    let output = output.unwrap_or_else(|stuck| panic!("{command:?}: {stuck}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output
}

/// A program under valgrind, which fails it on an error, and on memory lost if `leaks`.
pub(crate) fn under_valgrind(program: &Path, leaks: bool) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["-q", "--error-exitcode=99", "--trace-children=yes"]);
    if leaks {
        command.args(["--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]);
        command.args(["--show-leak-kinds=definite,indirect"]);
    } else {
        command.arg("--leak-check=no");
    }
    command.arg(program);
    command
}
