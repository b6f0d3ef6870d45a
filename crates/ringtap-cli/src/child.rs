//! A COMMAND that we run: held until tracing is on, watched, asked to end, and always reaped.
//!
//! ```text
//!   ringtap ── spawns ──> ringtap held -- COMMAND   stops itself
//!      │ turns tracing on for this pid              stopped
//!      └── SIGCONT ─────────────────────────────>   becomes COMMAND, by exec
//! ```
//! So not even COMMAND's first instruction is missed, and its pid is known beforehand.
//!
//! A signal that asks us to stop reaches COMMAND once. The keyboard, `timeout` and service managers send it to our
//! whole process group, others to us alone; who gets one cannot tell which. A witness can: a process of our group that
//! stays stopped, so that what was sent to the group is pending for it.

use crate::signals::Signals;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// This program, even when its file was replaced meanwhile.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// How long a command may take to end after SIGTERM, where we fail and nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Longer than it takes to send a signal to all processes of a group.
const DELIVERY: Duration = Duration::from_millis(20);
/// Signals that follow sooner are the same wish: `timeout` sends two.
const ONE_WISH: Duration = Duration::from_millis(250);
/// When somebody who waits for a command to end wants to know what helps.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// A command that we started. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    witness: Option<Witness>,
    /// When it was asked to end, last.
    asked: Option<Instant>,
    was_asked_by_term: bool,
    is_told: bool,
}

impl Running {
    /// Starts COMMAND up to, and without, its first instruction. `environment` is added to its own.
    ///
    /// # Errors
    /// The system cannot make a process.
    pub fn start_held(command: &[OsString], environment: &[(&str, OsString)]) -> Result<Self> {
        let mut held = held();
        held.arg("--").args(command).envs(environment.iter().map(|(name, value)| (name, value)));
        let running = Self::new(held.spawn().context("cannot start a process")?, Witness::start().ok());
        running.wait_until_held()?;
        Ok(running)
    }

    const fn new(child: Child, witness: Option<Witness>) -> Self {
        Self { child, witness, asked: None, was_asked_by_term: false, is_told: false }
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

    /// Passes on what asked us to stop: the first signal as it is, if the command has not got it already, the next as
    /// SIGTERM and then SIGKILL. How long it takes to end is the command's business: its end is traced, too.
    pub fn heed(&mut self, signals: &Signals) {
        let Some(signal) = signals.take().and_then(Signal::from_named_raw) else { return self.explain() };
        match self.asked {
            Some(last) if last.elapsed() < ONE_WISH => return,
            Some(_) if self.was_asked_by_term => self.send_to_all(Signal::KILL),
            Some(_) if signal != Signal::TERM => {
                self.send_to_all(Signal::TERM);
                self.was_asked_by_term = true;
            }
            _ => {
                self.pass_on(signal);
                self.was_asked_by_term = signal == Signal::TERM;
            }
        }
        self.asked = Some(Instant::now());
        // One that is still held, or was stopped by job control, has to run to take it.
        self.send(Signal::CONT);
    }

    fn pass_on(&self, signal: Signal) {
        if !self.witness.as_ref().is_some_and(|witness| witness.saw(signal)) {
            self.send(signal);
        }
    }

    /// Tells somebody at a terminal what we wait for.
    fn explain(&mut self) {
        if let Some(last) = self.asked
            && !self.is_told
            && last.elapsed() > IMPATIENCE
        {
            self.is_told = true;
            if std::io::stderr().is_terminal() {
                anstream::eprintln!(
                    "ringtap: the command is still running; Ctrl-C again insists, by SIGTERM and then SIGKILL"
                );
            }
        }
    }

    /// Whether it ends within our patience.
    fn ends(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while let Ok(None) = self.ended() {
            if Instant::now() >= end {
                return false;
            }
            sleep(LOOK_AGAIN);
        }
        true
    }

    /// Sends a signal to the command and all that descend from it: who insists does not mean a shell alone.
    fn send_to_all(&self, signal: Signal) {
        let descendants = descendants(self.id());
        self.send(signal);
        for pid in descendants {
            // One that ended meanwhile has left its number to nobody yet: numbers go round.
            let _ = rustix::process::kill_process(pid, signal);
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
            self.send_to_all(Signal::TERM);
            self.send(Signal::CONT);
            if !self.ends() {
                self.send_to_all(Signal::KILL);
                let _ = self.child.wait();
            }
        }
    }
}

/// The processes that descend from one that lives, as far as none in between has ended.
fn descendants(of: u32) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![of];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.into_iter().skip(1).filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "PID (NAME) STATE PARENT ...": the name may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A process of our group that nothing wakes.
#[derive(Debug)]
struct Witness {
    child: Child,
}

impl Witness {
    fn start() -> io::Result<Self> {
        let quiet = held().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child: quiet })
    }

    /// Whether a signal that reached us just now was sent to the whole group.
    fn saw(&self, signal: Signal) -> bool {
        let end = Instant::now() + DELIVERY;
        loop {
            // One that was sent before it had stopped has ended it.
            let pending = pending(self.child.id()).unwrap_or(u64::MAX);
            if pending & (1 << (signal.as_raw() - 1)) != 0 {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            sleep(LOOK_AGAIN / 5);
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program as a process that stops itself.
fn held() -> Command {
    let mut held = Command::new(THIS_PROGRAM);
    held.arg0("ringtap").args(["held", "--parent", &std::process::id().to_string()]);
    held
}

/// The signals that a process was sent and has not taken, the lowest bit for signal 1; `None` where it has ended.
fn pending(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let is_alive = !status.contains("State:\tZ");
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).filter(|_| is_alive)?;
    u64::from_str_radix(pending.trim(), 16).ok()
}

/// Why there is no program of this name to be run, as far as can be seen beforehand.
///
/// # Errors
/// It is not there, or is none.
pub fn look_for(program: &OsStr) -> io::Result<()> {
    let access = |path: &Path| {
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?;
        if path.is_dir() { Err(rustix::io::Errno::ACCESS.into()) } else { Ok(()) }
    };
    if program.as_bytes().contains(&b'/') {
        return access(Path::new(program));
    }
    // What a search without PATH finds is the system's business.
    let Some(folders) = std::env::var_os("PATH") else { return Ok(()) };
    let mut found = std::env::split_paths(&folders).map(|folder| access(&folder.join(program)));
    let missing = || io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error());
    if found.any(|found| found.is_ok()) { Ok(()) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// A shell that has set its traps when this returns.
    fn shell(script: &str) -> Running {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{script}\necho ready; while :; do sleep 0.01; done")]);
        let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Running::new(child, None)
    }

    #[test]
    fn a_signal_is_passed_on_and_the_command_reaped() {
        let mut polite = shell("trap 'exit 7' TERM");
        polite.pass_on(Signal::TERM);
        assert!(polite.ends());
        assert_eq!(polite.ended().unwrap().unwrap().code(), Some(7));
    }

    #[test]
    fn nobody_is_left_behind() {
        let stopped = shell("");
        let pid = stopped.pid();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        drop(stopped);
        assert!(rustix::process::test_kill_process(pid).is_err(), "ended and reaped");
    }

    #[test]
    fn who_insists_ends_what_a_shell_started_too() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' INT; sleep 600 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = io::BufReader::new(child.stdout.take().unwrap());
        io::BufRead::read_line(&mut lines, &mut said).unwrap();
        let sleep = Pid::from_raw(said.trim().parse().unwrap()).unwrap();
        let running = Running::new(child, None);
        assert_eq!(descendants(running.id()), [sleep]);
        running.send_to_all(Signal::KILL);
        drop(running);
        // It was the other end of the pipe's last owner.
        assert_eq!(io::Read::read_to_end(&mut lines, &mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn what_is_pending_is_seen() {
        let mut child = Command::new("env").args(["--default-signal=INT", "sleep", "60"]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
        assert_eq!(pending(child.id()), Some(0));
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        assert_eq!(pending(child.id()), Some(1 << (Signal::INT.as_raw() - 1)));
        rustix::process::kill_process(pid, Signal::CONT).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
        assert_eq!(pending(child.id()), None);
    }

    #[test]
    fn programs_are_looked_for() {
        for there in ["sh", "/bin/sh"] {
            look_for(OsStr::new(there)).unwrap();
        }
        for missing in ["no-such-command", "/no/such", "/etc/passwd", "/tmp"] {
            look_for(OsStr::new(missing)).unwrap_err();
        }
    }
}
