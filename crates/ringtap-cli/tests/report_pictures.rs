//! `ringtap report --histogram`, `--flamegraph` and `--timeline`.

mod support;
#[path = "support/synthetic.rs"]
mod synthetic;

use std::fs;
use std::path::{Path, PathBuf};
use support::{Temporary, run, said};

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

struct Files {
    temporary: Temporary,
    trace: PathBuf,
}

impl Files {
    fn new(name: &str, trace: &[u8]) -> Self {
        let temporary = Temporary::new(name);
        let file = temporary.path().join("trace.dat");
        fs::write(&file, trace).unwrap();
        Self { temporary, trace: file }
    }

    fn report(&self, options: &[&str]) -> String {
        let output = run(&[&["report"], options, &[path(&self.trace)]].concat());
        said(&output).replace(path(self.temporary.path()), "TMP")
    }

    /// The picture that an option makes.
    fn picture(&self, option: &str) -> String {
        let out = self.temporary.path().join("out.svg");
        let told = self.report(&[option, path(&out)]);
        assert!(told.starts_with("status Some(0)"), "{told}");
        fs::read_to_string(out).unwrap()
    }
}

#[test]
fn histograms_of_numbers_and_texts() {
    let files = Files::new("histogram", &synthetic::stacks());
    insta::assert_snapshot!("histogram-numbers", files.report(&["--histogram", "size"]));
    insta::assert_snapshot!("histogram-texts", files.report(&["--histogram", "what"]));
    insta::assert_snapshot!("histogram-nothing", files.report(&["--histogram", "nothing"]));
}

#[test]
fn stacks_become_a_flame_graph() {
    let files = Files::new("flamegraph", &synthetic::stacks());
    let picture = files.picture("--flamegraph");
    for title in [
        "<title>plain (10 stacks, 100.00%)</title>",
        "<title>0xff09 (10 stacks, 100.00%)</title>",
        "<title>0xff03 (5 stacks, 50.00%)</title>",
        "<title>alloc (5 stacks, 50.00%)</title>",
    ] {
        assert!(picture.contains(title), "{title}: {picture}");
    }
    let without = Files::new("flamegraph-none", &synthetic::time_line());
    let told = without.report(&["--flamegraph", "/nowhere/x.svg"]);
    assert!(told.contains("there are no stacks in the trace"), "{told}");
}

#[test]
fn a_time_line_shows_what_ran_and_what_was_lost() {
    let files = Files::new("time-line", &synthetic::time_line());
    insta::assert_snapshot!("time-line", files.picture("--timeline"));
    // However many events there are, a picture is as large as its width and rows allow.
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compliance/capture.dat");
    let large = Files::new("time-line-large", &fs::read(capture).unwrap());
    let picture = large.picture("--timeline");
    assert!(picture.len() < 200_000, "{} bytes", picture.len());
    for part in ["73876 events lost", ">sys_clock_nanosleep</text>", ">CPU 1, interrupts</text>"] {
        assert!(picture.contains(part), "{part}");
    }
}
