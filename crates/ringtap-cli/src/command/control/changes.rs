//! Several settings as one: all are made, or none.

use crate::remote::{Remote, errno};
use anyhow::{Context, Result, anyhow};
use rustix::io::Errno;

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
        self.write(file, value)?;
        if let Some(before) = before.and_then(|before| undoing(file, &before)) {
            self.undo.push((file.to_owned(), before));
        }
        Ok(())
    }

    /// Adds a line to a file of several.
    pub(super) fn add(&mut self, file: &str, line: &str, undo: &str) -> Result<()> {
        self.write(file, line)?;
        self.undo.push((file.to_owned(), undo.to_owned()));
        Ok(())
    }

    fn write(&mut self, file: &str, value: &str) -> Result<()> {
        let said = self.remote.read("error_log").unwrap_or_default();
        let Err(error) = self.remote.write(file, value) else { return Ok(()) };
        for (file, before) in self.undo.drain(..).rev() {
            // What cannot be undone is the host's to tell: it is gone, or somebody changed it meanwhile.
            let _ = self.remote.write(&file, &before);
        }
        let why = match errno(&error) {
            Some(Errno::INVAL) => self.explained(&said),
            _ => None,
        };
        let error = match why {
            // The host's number for it says less.
            Some(why) => anyhow!(why),
            None => error,
        };
        Err(error).with_context(|| format!("nothing was changed; {file} cannot be '{value}'"))
    }

    /// What the error log says that it did not say before.
    fn explained(&self, before: &str) -> Option<String> {
        let log = self.remote.read("error_log").ok()?;
        let new = if log.len() > before.len() && log.starts_with(before) {
            &log[before.len()..]
        } else {
            log.as_str()
        };
        // "[time] source: error: what" then the command, and a caret below its flaw.
        let last = new.rsplit_once("error: ").map_or(new, |(_, last)| last);
        let last = last.trim_end();
        (!last.is_empty() && log != before).then(|| last.to_owned())
    }
}

/// What is written to a file so that it says this again; `None` where it says so by itself.
fn undoing(file: &str, text: &str) -> Option<String> {
    let name = file.rsplit('/').next().unwrap_or(file);
    match name {
        // "[one] two three"
        "trace_clock" => text.split_once('[')?.1.split_once(']').map(|(now, _)| now.to_owned()),
        // "1408 (expanded: ...)" and "X" for CPUs that differ
        "buffer_size_kb" => text.split_whitespace().next().filter(|size| *size != "X").map(str::to_owned),
        "filter" if text.trim() == "none" => Some("0".to_owned()),
        _ => Some(text.trim_end().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::undoing;

    #[test]
    fn files_are_undone_in_their_own_words() {
        let cases = [
            ("trace_clock", "local [mono] boot\n", Some("mono")),
            ("buffer_size_kb", "7 (expanded: 1408)\n", Some("7")),
            ("buffer_size_kb", "X\n", None),
            ("events/a/b/filter", "none\n", Some("0")),
            ("events/a/b/filter", "bytes > 1\n", Some("bytes > 1")),
            ("tracing_on", "1\n", Some("1")),
        ];
        for (file, text, undo) in cases {
            assert_eq!(undoing(file, text).as_deref(), undo, "{file}");
        }
    }
}
