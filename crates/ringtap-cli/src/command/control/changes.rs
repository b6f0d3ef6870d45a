//! Several settings as one: all are made, or none.

use crate::remote::{Remote, errno};
use anyhow::{Result, anyhow, bail};
use rustix::io::Errno;

/// The file that takes filters, triggers and switches of events, all of them or none.
const RULES: &str = "event_rules";

/// Settings made so far, and what they were.
#[derive(Debug)]
pub(super) struct Changes<'r> {
    remote: &'r Remote,
    /// File, and what is to be written to it so that it says again what it said.
    undo: Vec<(String, String)>,
}

impl<'r> Changes<'r> {
    pub(super) fn new(remote: &'r Remote) -> Self {
        Self { remote, undo: Vec::new() }
    }

    /// Sets a file to a value. Where that fails, all files say again what they said before.
    pub(super) fn set(&mut self, file: &str, value: &str) -> Result<()> {
        let before = self.remote.read(file).ok();
        let made = self.write(file, value);
        // A filter that is refused takes the last one's place, as in the kernel.
        let is_changed = made.is_ok() || self.remote.read(file).ok() != before;
        if let Some(before) = before.filter(|_| is_changed) {
            let undo = undoing(file, &before, value);
            self.undo.extend(undo.into_iter().rev().map(|text| (file.to_owned(), text)));
        }
        made.inspect_err(|_| self.undo())
    }

    /// Whether these lines of the rules' file would be taken, as far as can be foreseen.
    pub(super) fn check_rules(&mut self, lines: &str) -> Result<()> {
        self.rules(&format!("try\n{lines}"))
    }

    /// Carries these lines of the rules' file out.
    pub(super) fn rules(&mut self, lines: &str) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.write(RULES, lines).inspect_err(|_| self.undo())
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let said = self.remote.read("error_log").unwrap_or_default();
        let Err(error) = self.remote.write(file, value) else { return Ok(()) };
        // The host's number for it says less.
        Err(match (self.explained(&said), errno(&error)) {
            (Some((source, why)), _) if file == RULES => anyhow!("nothing was changed; {source}: {why}"),
            (Some((_, why)), _) => anyhow!("nothing was changed; {file} cannot be '{value}': {why}"),
            (None, Some(Errno::NOENT)) => {
                anyhow!("nothing was changed; there is no file {file}: `ringtap list -o` lists the options")
            }
            (None, Some(Errno::ACCESS)) if is_about_forks(file) => {
                anyhow!(
                    "nothing was changed; the kernel does not tell the host what these threads make: it tells of a user's own where \
                     /proc/sys/kernel/perf_event_paranoid is 2 or less, and root of all; leave -c and options/event-fork out, or run \
                     `ringtap serve` as root"
                )
            }
            (None, Some(Errno::INVAL)) if file == "trace_clock" => {
                anyhow!("nothing was changed; there is no clock '{value}': `ringtap list -C` lists them")
            }
            (None, Some(Errno::OPNOTSUPP)) => {
                anyhow!(
                    "nothing was changed; {file} cannot be set: buffers in files keep the size that `ringtap serve --directory` made \
                     them with; start it with another --buffer-size or --subbuf-size"
                )
            }
            (None, Some(Errno::NOMEM)) => {
                anyhow!("nothing was changed; there is no memory for a {file} of {value}: choose less")
            }
            (None, Some(Errno::INVAL | Errno::PERM | Errno::RANGE)) if file != RULES => {
                match taken_by(file) {
                    Some(taken) => {
                        anyhow!("nothing was changed; {file} cannot be '{value}': it takes {taken}")
                    }
                    None => anyhow!(
                        "nothing was changed; {file} cannot be '{value}': see what it is with `ringtap show -f {file}`"
                    ),
                }
            }
            (None, _) => error.context(format!("nothing was changed; {file} cannot be set")),
        })
    }

    fn undo(&mut self) {
        for (file, before) in self.undo.drain(..).rev() {
            // What cannot be undone is the host's to tell: it is gone, or somebody changed it meanwhile.
            let _ = self.remote.write(&file, &before);
        }
    }

    /// What the error log says that it did not say before: who says it, and what.
    fn explained(&self, before: &str) -> Option<(String, String)> {
        let log = self.remote.read("error_log").ok().filter(|log| log != before)?;
        // "[time] source: error: what", the command, and a caret below its flaw; the last entry is the new one.
        let start = log.rfind("\n[").map_or(0, |end| end + 1);
        let (source, why) = log[start..].split_once("] ")?.1.split_once(": error: ")?;
        Some((source.to_owned(), why.trim_end().to_owned()))
    }
}

/// Whether setting this file may ask the kernel to tell of forks.
fn is_about_forks(file: &str) -> bool {
    matches!(file, "options/event-fork" | "set_event_pid" | "set_event_notrace_pid")
}

/// What a file takes, where it does not say so itself.
fn taken_by(file: &str) -> Option<&'static str> {
    match file.rsplit('/').next()? {
        "buffer_percent" => Some("0 to 100"),
        "buffer_size_kb" => Some("KiB, above 0"),
        "buffer_subbuf_size_kb" => Some("KiB: a power of two from 4 to 512"),
        "set_event_pid" | "set_event_notrace_pid" => Some("ids of threads, below 4194304"),
        "tracing_on" | "enable" => Some("0 or 1"),
        _ if file.starts_with("options/") => Some("0 or 1"),
        _ => None,
    }
}

/// Whether the host has this clock.
pub(super) fn check_clock(remote: &Remote, clock: &str) -> Result<()> {
    let clocks = remote.read("trace_clock")?;
    let mut names = clocks.split_whitespace().map(|name| name.trim_matches(['[', ']']));
    if !names.any(|name| name == clock) {
        bail!("nothing was changed; there is no clock '{clock}': `ringtap list -C` lists them");
    }
    Ok(())
}

/// What is written to a file, one after the other, so that it says this again where `value` was written to it; nothing
/// where it says so by itself.
fn undoing(file: &str, before: &str, value: &str) -> Vec<String> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let before = before.trim_end();
    let text = match name {
        // "[one] two three"
        "trace_clock" => before.split_once('[').and_then(|(_, now)| Some(now.split_once(']')?.0.to_owned())),
        // "1408 (expanded: ...)" and "X" for CPUs that differ
        "buffer_size_kb" => before.split_whitespace().next().filter(|size| *size != "X").map(str::to_owned),
        // "1*" where triggers have a say; mixed and none are not told apart again
        "enable" => {
            before.strip_suffix('*').or(Some(before)).filter(|on| matches!(*on, "0" | "1")).map(str::to_owned)
        }
        // A refused filter is shown with what is wrong with it, and is not in force.
        "filter" if before == "none" || before.contains('\n') => Some("0".to_owned()),
        "trigger" => Some(value.strip_prefix('!').map_or_else(|| format!("!{value}"), str::to_owned)),
        // Writing adds to them.
        "set_event" | "set_event_pid" | "set_event_notrace_pid" | "awaited_events" => {
            let lines = Some(before.to_owned()).filter(|lines| !lines.is_empty());
            return std::iter::once(String::new()).chain(lines).collect();
        }
        _ => Some(before.to_owned()),
    };
    text.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::undoing;

    #[test]
    fn files_are_undone_in_their_own_words() {
        let cases: [(&str, &str, &[&str]); 12] = [
            ("trace_clock", "local [mono] boot\n", &["mono"]),
            ("buffer_size_kb", "7 (expanded: 1408)\n", &["7"]),
            ("buffer_size_kb", "X\n", &[]),
            ("events/a/b/filter", "none\n", &["0"]),
            ("events/a/b/filter", "bytes > 1\n", &["bytes > 1"]),
            ("events/a/b/filter", "byte > 1\n^\nparse_error: Field not found\n", &["0"]),
            ("events/a/b/enable", "1*\n", &["1"]),
            ("events/a/enable", "X\n", &[]),
            ("events/a/b/trigger", "# Available triggers:\n", &["!new"]),
            ("set_event_pid", "1\n2\n", &["", "1\n2"]),
            ("set_event_pid", "", &[""]),
            ("tracing_on", "1\n", &["1"]),
        ];
        for (file, text, undo) in cases {
            assert_eq!(undoing(file, text, "new"), undo, "{file}");
        }
    }
}
