//! Programs that do not end: shows what their threads are at before they are killed.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Runs a command, whose processes stay in its group. Where they have not all ended in time, they are killed, and the error
/// shows all their threads.
pub(crate) fn output_within(command: &mut Command, patience: Duration) -> Result<Output, String> {
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it runs");
    let group = child.id();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    match receive.recv_timeout(patience) {
        Ok(output) => Ok(output.expect("it can be waited for")),
        Err(_) => {
            let threads = threads_of(group);
            // SAFETY: a signal for a group whose first process was not waited for, or has left others of the group.
            unsafe { libc::kill(-group.cast_signed(), libc::SIGKILL) };
            // They have let go of the pipes.
            let end = if receive.recv_timeout(patience).is_ok() { "was killed" } else { "cannot be killed" };
            Err(format!("it has not ended in {patience:?}, and {end}\n{threads}"))
        }
    }
}

/// Each thread's state, CPU time and system call, twice, so that the busy ones are seen; and where each is, if there is gdb.
fn threads_of(group: u32) -> String {
    let pids = said(Command::new("pgrep").args(["-g", &group.to_string()]));
    let list = pids.split_whitespace().collect::<Vec<_>>().join(",");
    let columns = "pid,ppid,lwp,stat,time,wchan:20,comm";
    let states = || said(Command::new("ps").args(["-L", "-o", columns, "-p", &list]));
    let mut shown = states();
    for pid in pids.split_whitespace() {
        let mut gdb = Command::new("timeout");
        gdb.args(["-k", "1", "20", "gdb", "-batch", "-ex", "thread apply all bt 25", "-p", pid]);
        let backtraces = said(&mut gdb);
        let lines = backtraces.lines().filter(|line| line.starts_with('#') || line.starts_with("Thread "));
        shown.push_str(&format!("\nprocess {pid}\n{}\n", lines.collect::<Vec<_>>().join("\n")));
    }
    shown + &states()
}

/// What a tool prints; nothing where there is none.
fn said(tool: &mut Command) -> String {
    tool.output()
        .map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}
