//! The examples in docs/preload.md and docs/probes.md, run as they stand there.

mod support;

use ringtap::tracefs::Tracefs;
use std::path::Path;
use std::process::Command;
use support::{Temporary, said};

/// The first block of a language on a page.
fn block<'p>(page: &'p str, language: &str) -> &'p str {
    let begin =
        page.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("no {language} block")).1;
    begin.split_once("```").unwrap().0
}

/// What a line says, whatever its numbers are.
fn shape(line: &str) -> String {
    let mut words = Vec::new();
    for word in line.split(' ') {
        let name = word.split('=').next().unwrap_or(word);
        let bare = word.trim_matches(['(', ')']);
        let is_address = bare.len() > 8 && bare.chars().all(|c| c.is_ascii_hexdigit());
        let is_number = bare.starts_with(|c: char| c.is_ascii_digit()) || is_address;
        words.push(if is_number { "N" } else { name });
    }
    words.join(" ")
}

/// Runs a page's example, and looks for its lines.
fn runs_as_shown(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let page_text = std::fs::read_to_string(&path).unwrap();
    let temporary = Temporary::new(&format!("page-{}", page.trim_end_matches(".md")));
    std::fs::write(temporary.path().join("program.c"), block(&page_text, "c")).unwrap();
    let folder = Path::new(env!("CARGO_BIN_EXE_ringtap")).parent().unwrap();
    let search = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-euc", block(&page_text, "sh")]).current_dir(temporary.path()).env("PATH", search);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let shapes: Vec<_> = text.lines().map(shape).collect();
    for line in block(&page_text, "text").lines() {
        let wanted = shape(line);
        assert!(shapes.iter().any(|shape| shape.ends_with(&wanted)), "{line}: {wanted}\n{text}");
    }
}

#[test]
fn the_page_about_preloading_is_true() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "ringtap-preload"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
    runs_as_shown("preload.md");
}

#[test]
fn the_page_about_probes_is_true() {
    let usable =
        Tracefs::find().and_then(|tracefs| tracefs.check_mapping().and_then(|()| tracefs.check_uprobes()));
    match usable {
        Ok(()) => runs_as_shown("probes.md"),
        Err(error) => println!("skipped, as it needs the live kernel: {error}"),
    }
}
