//! The Python package: its own tests and its guide's example, in an environment with pyarrow and pandas.

mod common;

use common::{Language, Link, compile, crate_dir, has, libraries, run, scratch};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python with pyarrow and pandas: made once, below the target directory.
fn python() -> Option<PathBuf> {
    if !has("python3") {
        return None;
    }
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python-venv");
    let python = environment.join("bin/python3");
    let is_ready = || {
        let imports = Command::new(&python).args(["-c", "import pyarrow, pandas"]).output();
        imports.is_ok_and(|output| output.status.success())
    };
    // Tests run side by side.
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if !is_ready() {
            let _ = Command::new("python3").args(["-m", "venv"]).arg(&environment).output();
            let packages = ["-m", "pip", "install", "--quiet", "pyarrow", "pandas"];
            let _ = Command::new(&python).args(packages).output();
        }
    });
    if !is_ready() {
        common::skip(&format!("{} has no pyarrow and pandas", environment.display()));
        return None;
    }
    Some(python)
}

fn with_package(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.env("PYTHONPATH", crate_dir().join("../../python/src"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("RINGTAP_SOCKET");
    command.env("RINGTAP_LIBRARY", libraries().join("libringtap.so"));
    command
}

/// The command-line program.
fn command_line() -> Option<PathBuf> {
    let ringtap = std::env::current_exe().ok()?.ancestors().nth(2)?.join("ringtap");
    let is_built = ringtap.exists() || common::skip(&format!("{} is not built", ringtap.display()));
    is_built.then_some(ringtap)
}

/// A trace.dat with the events of tests/c/fields.h, by the command-line program.
fn recorded() -> Option<PathBuf> {
    let ringtap = command_line()?;
    let program = compile("fields.c", Language::C, Link::Shared)?;
    let file = scratch("recorded").join("trace.dat");
    run(Command::new(ringtap).args(["record", "-o"]).arg(&file).arg("--").arg(program));
    Some(file)
}

#[test]
fn the_packages_tests_pass() {
    let Some(python) = python() else { return };
    let mut command = with_package(&python);
    if let Some(file) = recorded() {
        command.env("RINGTAP_TRACE", file);
    }
    let output = run(command.arg(crate_dir().join("../../python/tests/test_ringtap.py")));
    println!("{}", String::from_utf8_lossy(&output.stderr));
}

/// The blocks of a language in docs/python.md, in their order.
fn blocks(language: &str) -> Vec<String> {
    let guide = std::fs::read_to_string(crate_dir().join("../../docs/python.md")).expect("it is there");
    let mark = format!("```{language}\n");
    let blocks = guide.split(mark.as_str()).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(str::to_owned).collect()
}

#[test]
fn the_guides_example_prints_what_the_guide_says() {
    let Some(python) = python() else { return };
    let output = run(with_package(&python).args(["-c", &blocks("python")[0]]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), blocks("text")[0]);
}

#[test]
fn the_guides_tables_are_of_a_file_and_of_a_program_that_runs() {
    let (Some(python), Some(ringtap)) = (python(), command_line()) else { return };
    let [_, shop, of_file, of_program] = &blocks("python")[..] else { panic!("it has four") };
    let [_, record] = &blocks("sh")[..] else { panic!("it has two") };
    let directory = scratch("tables");
    std::fs::write(directory.join("shop.py"), shop).expect("it can be written");
    let here = |program: &Path| {
        let mut command = with_package(program);
        command.current_dir(&directory);
        command
    };
    let mut shell = here(Path::new("bash"));
    let ours = [&ringtap, &python].map(|path| path.parent().expect("it lies somewhere").to_owned());
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(ours.into_iter().chain(std::env::split_paths(&others)));
    run(shell.args(["-euc", record]).env("PATH", path.expect("plain names")));
    let output = run(here(&python).args(["-c", of_file]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), blocks("text")[1]);

    let serves = "own = ringtap.Host(); own.serve('shop.sock'); own.trace()";
    let program = format!("{}\n{of_program}", shop.replace("ringtap.init()", serves));
    let output = run(here(&python).args(["-c", &program]));
    assert_eq!(String::from_utf8_lossy(&output.stdout).replace("]\n[", ", "), "[4096, 8192, 12288]\n");
}
