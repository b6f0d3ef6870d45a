//! How another process ended, also where it is no child of this one.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::{fs, io};

/// A process, held so that its number means no other one.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

/// The first version of the kernel's `struct pidfd_info`.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    /// pid, tgid, ppid, and four users and groups.
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<PidfdInfo>() == 64);

/// `_IOWR(0xff, 11, struct pidfd_info)`
const PIDFD_GET_INFO: u32 = 0xc040_ff0b;
/// Asks for `exit_code`; in the answer, it is there.
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// The place of the state in `/proc/PID/stat`, behind the name.
const STATE: usize = 0;
/// That of the wait status.
const EXIT_CODE: usize = 49;

impl Process {
    /// Holds the process of this number.
    ///
    /// # Errors
    /// There is none, or the kernel is older than 5.3.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pid, pidfd: pidfd_open(number, PidfdFlags::empty())? })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended. Its descriptor becomes readable then.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// How it ended; `None` while it runs, and where the kernel does not tell: before Linux 6.15 it does so only until
    /// the process's parent has asked.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        if !self.has_ended() {
            return None;
        }
        // Its parent may ask between the first two: then the third knows.
        let status = self.reaped_status().or_else(|| self.zombie_status()).or_else(|| self.reaped_status());
        status.map(ExitStatus::from_raw)
    }

    fn reaped_status(&self) -> Option<i32> {
        let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
        // SAFETY: the request's number states the struct's size; the kernel writes no more than that.
        let done = unsafe { libc::ioctl(self.pidfd.as_raw_fd(), PIDFD_GET_INFO.into(), &raw mut info) };
        (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
    }

    fn zombie_status(&self) -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let is_zombie = matches!(fields.nth(STATE)?, "Z" | "X");
        fields.nth(EXIT_CODE - STATE - 1)?.parse().ok().filter(|_| is_zombie)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn ended(script: &str) -> (Process, std::process::Child) {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", script]).stdin(Stdio::piped()).spawn().expect("a shell");
        let process = Process::open(child.id()).expect("it waits for its input");
        assert!(!process.has_ended() && process.status().is_none());
        drop(child.stdin.take());
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).expect("a pidfd can be polled");
        (process, child)
    }

    #[test]
    fn the_end_is_told_before_and_after_the_parent_asks() {
        for (script, signal, code) in
            [("read x; exit 7", None, Some(7)), ("read x; kill -SEGV $$", Some(libc::SIGSEGV), None)]
        {
            let (process, mut child) = ended(script);
            let seen = process.status().expect("a zombie tells");
            assert_eq!((seen.signal(), seen.code()), (signal, code));
            let waited = child.wait().expect("a child can be waited for");
            assert_eq!((waited.signal(), waited.code()), (signal, code));
            match process.status() {
                Some(after) => assert_eq!((after.signal(), after.code()), (signal, code)),
                None => println!("skipped the half: this kernel does not tell of who was waited for"),
            }
        }
    }

    #[test]
    fn nobody_has_an_impossible_number() {
        assert!(Process::open(0).is_err() && Process::open(u32::MAX).is_err());
    }
}
