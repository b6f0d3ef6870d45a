//! Child processes that may hang.

use anyhow::Context as _;
use std::ffi::OsStr;
use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at a child.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits for a child; `None` when it still runs after `limit`.
///
/// # Errors
/// When the kernel refuses to wait.
pub fn wait_within(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= end {
            return Ok(status);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What became of a command.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit status; `None` when it hung and was killed.
    pub status: Option<ExitStatus>,
    /// What it printed, on stdout and stderr.
    pub output: String,
    /// How long it ran.
    pub took: Duration,
}

impl Finished {
    /// Whether it ended by itself and without an error.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Its last words, for an error message.
    #[must_use]
    pub fn last_line(&self) -> &str {
        self.output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no output")
    }
}

/// Runs a command to its end, or kills it after `limit`.
///
/// # Errors
/// When it cannot be started.
pub fn run_within(command: &mut Command, limit: Duration) -> anyhow::Result<Finished> {
    let started = Instant::now();
    let (mut printed, ours) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(ours.try_clone()?).stderr(ours);
    let mut child =
        command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    // The command holds our ends of the pipe, which would otherwise never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    thread::scope(|scope| {
        let output = scope.spawn(move || {
            let mut output = Vec::new();
            // Whatever was read until the end, or until an error, is what there is to show.
            let _ = printed.read_to_end(&mut output);
            String::from_utf8_lossy(&output).into_owned()
        });
        let status = wait_within(&mut child, limit)?;
        if status.is_none() {
            child.kill().and_then(|()| child.wait())?;
        }
        let output = output.join().unwrap_or_default();
        Ok(Finished { status, output, took: started.elapsed() })
    })
}

/// The first of `programs` that is not to be found in `PATH`.
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| {
        std::env::split_paths(&path).any(|folder| folder.join(OsStr::new(**program)).is_file())
    };
    programs.iter().find(|program| !is_there(program)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_in_time_is_reported_whole() {
        let finished = run_within(
            Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]),
            Duration::from_secs(20),
        )
        .unwrap();
        assert_eq!(finished.status.unwrap().code(), Some(3));
        assert_eq!(finished.output, "out\nerr\n");
        assert_eq!(finished.last_line(), "err");
    }

    #[test]
    fn what_hangs_is_killed() {
        let finished = run_within(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap();
        assert_eq!(finished.status, None);
        assert!(!finished.is_success() && finished.took < Duration::from_secs(20));
    }

    #[test]
    fn a_missing_program_is_named() {
        assert_eq!(missing(&["sh", "no-such-program-anywhere"]), Some("no-such-program-anywhere"));
        assert_eq!(missing(&["sh"]), None);
    }
}
