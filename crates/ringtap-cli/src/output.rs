//! The standard output: colours where a person looks, and an end when nobody reads any more.

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::{error, fmt};

/// Headings.
pub const HEADING: Style = Style::new().bold();
/// Names of events.
pub const EVENT: Style = AnsiColor::Cyan.on_default();
/// Times, CPUs and other surroundings.
pub const FAINT: Style = Style::new().dimmed();
/// Losses.
pub const LOSS: Style = AnsiColor::Red.on_default().bold();

/// Bytes gathered before they are written.
const BUFFER_LEN: usize = 1 << 16;

/// The standard output, buffered. Styles written to it vanish where they are not wanted: no terminal,
/// `NO_COLOR`, `TERM=dumb`, or `--color never`.
#[derive(Debug)]
pub struct Output {
    stream: BufWriter<AutoStream<Stdout>>,
    is_terminal: bool,
    is_coloured: bool,
    can_redraw: bool,
}

impl Output {
    /// The process's standard output.
    #[must_use]
    pub fn stdout(color: ColorChoice) -> Self {
        let stdout = io::stdout();
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = stdout.is_terminal();
        let choice = match color {
            ColorChoice::Auto => AutoStream::choice(&stdout),
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        };
        let stream = AutoStream::new(stdout, choice);
        let is_coloured = stream.current_choice() != anstream::ColorChoice::Never;
        let can_redraw = is_terminal && !is_dumb;
        Self { stream: BufWriter::with_capacity(BUFFER_LEN, stream), is_terminal, is_coloured, can_redraw }
    }

    /// Whether a person may be looking.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Whether styles are of any use.
    #[must_use]
    pub fn is_coloured(&self) -> bool {
        self.is_coloured
    }

    /// Whether it is a terminal on which lines can be drawn over.
    #[must_use]
    pub fn can_redraw(&self) -> bool {
        self.can_redraw
    }

    /// Writes one line of JSON.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        // As an `io::Error` again, since serde_json's does not name its source.
        serde_json::to_writer(&mut *self, value).map_err(io::Error::from)?;
        writeln!(self)
    }

    /// Writes what holds no styles of ours, byte for byte.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn write_as_is(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush()?;
        // Past the filter, which would search every byte for colours.
        io::stdout().write_all(bytes).map_err(ReaderGone::recognise)
    }

    /// Moves up to the first of the last `lines` lines, and clears from there.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn erase_lines(&mut self, lines: usize) -> io::Result<()> {
        self.flush()?;
        // Past the filter, which takes this for a colour and drops it where colours are not wanted.
        write!(io::stdout(), "\x1b[{lines}A\x1b[J").map_err(ReaderGone::recognise)
    }

    /// Rows of the terminal; `None` where there is none or it does not tell.
    #[must_use]
    pub fn rows(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
        Some(usize::from(size.ws_row)).filter(|&rows| rows > 0)
    }

    /// Its columns, likewise.
    #[must_use]
    pub fn columns(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes).map_err(ReaderGone::recognise)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().map_err(ReaderGone::recognise)
    }
}

/// The reader of our output closed its end. It has seen enough, so this is no failure; a broken pipe or
/// socket of any other kind is one.
#[derive(Debug)]
pub struct ReaderGone;

impl ReaderGone {
    fn recognise(error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return io::Error::new(io::ErrorKind::BrokenPipe, Self);
        }
        io::Error::new(error.kind(), format!("cannot write the standard output: {error}"))
    }

    /// Whether this is what ended the run.
    #[must_use]
    pub fn caused(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| {
            let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            inner.is_some_and(|inner| inner.is::<Self>())
        })
    }
}

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl error::Error for ReaderGone {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn only_our_own_output_ends_in_peace() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let ours = Err::<(), _>(ReaderGone::recognise(broken())).context("print").unwrap_err();
        let other = Err::<(), _>(broken()).context("ask the host").unwrap_err();
        assert!(ReaderGone::caused(&ours));
        assert!(!ReaderGone::caused(&other));
    }
}
