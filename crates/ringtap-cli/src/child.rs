//! A COMMAND that we run: held until tracing is on, watched, asked to end, and always reaped.
//!
//! ```text
//!   ringtap ── spawns ──> ringtap held -- COMMAND   stops itself
//!      │ turns tracing on for this pid              stopped
//!      └── SIGCONT ─────────────────────────────>   becomes COMMAND, by exec
//! ```
//! So not even COMMAND's first instruction is missed, and its pid is known beforehand.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// This program, even when its file was replaced meanwhile.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// How long a command may take to end by itself, after the signal that we pass on and after SIGTERM.
const PATIENCE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(3)];
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A command that we started. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts COMMAND up to, and without, its first instruction. `environment` is added to its own.
    ///
    /// # Errors
    /// The system cannot make a process.
    pub fn start_held(command: &[OsString], environment: &[(&str, OsString)]) -> Result<Self> {
        let mut held = Command::new(THIS_PROGRAM);
        held.arg0("ringtap").args(["held", "--parent", &std::process::id().to_string(), "--"]).args(command);
        held.envs(environment.iter().map(|(name, value)| (name, value)));
        let running = Self { child: held.spawn().context("cannot start a process")? };
        running.wait_until_held()?;
        Ok(running)
    }

    fn wait_until_held(&self) -> Result<()> {
        // NOWAIT: whether it stopped or died early, `Child` is the one to reap it.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let wait = || rustix::process::waitid(WaitId::Pid(self.pid()), options);
        rustix::io::retry_on_intr(wait).context("cannot wait for the command")?;
        Ok(())
    }

    /// The pid that COMMAND will have.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The same as a number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets COMMAND begin.
    ///
    /// # Errors
    /// It does not exist any more.
    pub fn begin(&self) -> Result<()> {
        rustix::process::kill_process(self.pid(), Signal::CONT).context("cannot start the command")
    }

    /// How COMMAND ended; `None` while it runs.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for the command")
    }

    /// Passes on the signal that asked us to stop, and returns at once.
    ///
    /// A signal from the terminal's keyboard has reached the command already.
    pub fn pass_on(&self, signal: i32) {
        match Signal::from_named_raw(signal) {
            Some(Signal::INT) if in_foreground() => {}
            Some(signal) => self.send(signal),
            None => {}
        }
        // One that is still held, or was stopped by job control, has to run to take it.
        self.send(Signal::CONT);
    }

    /// Waits for the end of a command that was asked to end; insists, first with SIGTERM, then with SIGKILL.
    ///
    /// # Errors
    /// The system cannot tell how it ended.
    pub fn reap(&mut self) -> Result<ExitStatus> {
        for (patience, insist) in PATIENCE.into_iter().zip([Signal::TERM, Signal::KILL]) {
            if let Some(status) = self.wait_for(patience)? {
                return Ok(status);
            }
            self.send(insist);
        }
        self.child.wait().context("cannot wait for the command")
    }

    /// How a command ended: as was seen already, else by [`reap`](Self::reap); `None` where there is none.
    ///
    /// # Errors
    /// The system cannot tell how it ended.
    pub fn status(ended: Option<ExitStatus>, command: Option<&mut Self>) -> Result<Option<ExitStatus>> {
        match (ended, command) {
            (None, Some(command)) => command.reap().map(Some),
            (ended, _) => Ok(ended),
        }
    }

    fn wait_for(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + patience;
        loop {
            match self.ended()? {
                None if Instant::now() < end => sleep(LOOK_AGAIN),
                ended => return Ok(ended),
            }
        }
    }

    fn send(&self, signal: Signal) {
        // Not reaped yet, so the pid is still its own; one that has ended takes no signal, and need not.
        let _ = rustix::process::kill_process(self.pid(), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.ended() {
            self.send(Signal::TERM);
            self.send(Signal::CONT);
            let _ = self.reap();
        }
    }
}

/// Whether the keyboard of our terminal sends its signals to our process group.
fn in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    let foreground = terminal.ok().and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
    foreground == Some(rustix::process::getpgrp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// A shell that has set its traps when this returns.
    fn shell(script: &str) -> Running {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{script}\necho ready; while :; do sleep 0.01; done")]);
        let mut child = shell.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Running { child }
    }

    #[test]
    fn a_signal_is_passed_on_and_the_command_reaped() {
        let mut polite = shell("trap 'exit 7' TERM");
        polite.pass_on(signal_hook::consts::SIGTERM);
        assert_eq!(polite.reap().unwrap().code(), Some(7));
    }

    #[test]
    fn who_ignores_the_signal_is_insisted_on() {
        let mut deaf = shell("trap '' HUP");
        let start = Instant::now();
        deaf.pass_on(signal_hook::consts::SIGHUP);
        assert_eq!(deaf.reap().unwrap().signal(), Some(signal_hook::consts::SIGTERM));
        assert!(start.elapsed() >= PATIENCE[0]);
    }

    #[test]
    fn nobody_is_left_behind() {
        let stopped = shell("");
        let pid = stopped.pid();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        drop(stopped);
        assert!(rustix::process::test_kill_process(pid).is_err(), "ended and reaped");
    }
}
