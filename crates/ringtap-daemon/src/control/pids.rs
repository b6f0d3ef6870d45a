//! `set_event_pid` and `set_event_notrace_pid`: lists of tasks.

use super::number;
use rustix::io::Errno;

/// The kernel's bound on what a task's number can be.
const LIMIT: u64 = 1 << 30;

/// The list's text: one to a line.
pub(super) fn text(pids: &[u32]) -> Vec<u8> {
    pids.iter().map(|pid| format!("{pid}\n")).collect::<String>().into_bytes()
}

/// The tasks that a write names.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<u32>, Errno> {
    let words = bytes.split(|&byte| byte.is_ascii_whitespace() || byte == 0).filter(|word| !word.is_empty());
    words
        .map(|word| match number::unsigned(word).map_err(|_| Errno::INVAL)? {
            pid if pid >= LIMIT => Err(Errno::PERM),
            pid => u32::try_from(pid).map_err(|_| Errno::PERM),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing() {
        assert_eq!(parse(b"3 2\n2\t0"), Ok(vec![3, 2, 2, 0]));
        assert_eq!(parse(b"5 x 6"), Err(Errno::INVAL));
        assert_eq!(parse(b"-1"), Err(Errno::INVAL));
        assert_eq!(parse(b"99999999999"), Err(Errno::PERM));
        assert_eq!(parse(b"99999999999999999999999"), Err(Errno::INVAL));
        assert_eq!(text(&[7, 8]), b"7\n8\n");
    }
}
