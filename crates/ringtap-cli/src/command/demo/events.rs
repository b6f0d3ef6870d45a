//! What the demo's workers trace, as typed events.

use super::work;
use anyhow::{Context, Result};
use ringtap::Writer;
use ringtap::attach::Connection;
use ringtap::event::{EventError, Register};
use std::borrow::Cow;
use std::path::Path;

ringtap::event! {
    /// A folder's entries were listed.
    pub struct DirRead<'a> as demo:dir_read {
        entries: u64,
        path: &'a str,
    }
    print "%s entries=%llu", path, entries;
}

ringtap::event! {
    /// A file was opened.
    pub struct FileOpen<'a> as demo:file_open {
        size: u64,
        path: &'a str,
    }
    print "%s size=%llu", path, size;
}

ringtap::event! {
    /// A piece of a file was read: 24 bytes, like most events of programs that have many.
    pub struct FileRead as demo:file_read {
        bytes: u32,
        took_ns: u32,
        offset: u64,
    }
    print "bytes=%u offset=%llu took_ns=%u", bytes, offset, took_ns;
}

ringtap::event! {
    /// The end of a file was reached.
    pub struct FileHashed as demo:file_hashed {
        bytes: u64,
        lines: u64,
        words: u64,
        hash: u64,
    }
    print "bytes=%llu lines=%llu words=%llu hash=%016llx", bytes, lines, words, hash;
}

ringtap::event! {
    /// A file has the content of one that was read before.
    pub struct DuplicateFound<'a> as demo:duplicate_found {
        path: &'a str,
        first: &'a str,
    }
    print "%s is a copy of %s", path, first;
}

ringtap::event! {
    /// A file or folder could not be read.
    pub struct Skipped<'a> as demo:skipped {
        errno: i32,
        path: &'a str,
    }
    print "%s errno=%d", path, errno;
}

/// Where a worker's events go.
#[derive(Debug)]
pub struct Tracer {
    writer: Writer,
    /// Events that are in the ring.
    pub written: u64,
}

impl Tracer {
    /// Registers the events with a host and attaches to its buffers.
    ///
    /// # Errors
    /// The host refuses, or is gone.
    pub fn attach(connection: &Connection) -> Result<Self> {
        register(connection)?;
        let writer = connection.writer().context("cannot attach to the demo's buffers")?;
        Ok(Self { writer, written: 0 })
    }

    /// Traces what was done.
    pub fn trace(&mut self, event: &work::Event<'_>) {
        let writer = &self.writer;
        let result = match *event {
            work::Event::DirRead { path, entries } => {
                DirRead { entries, path: &text(path) }.try_write(writer)
            }
            work::Event::FileOpen { path, size } => FileOpen { size, path: &text(path) }.try_write(writer),
            work::Event::FileRead { offset, bytes, took_ns } => {
                FileRead { bytes, took_ns, offset }.try_write(writer)
            }
            work::Event::FileHashed { hash, lines, words, bytes } => {
                FileHashed { bytes, lines, words, hash }.try_write(writer)
            }
            work::Event::DuplicateFound { path, first } => {
                DuplicateFound { path: &text(path), first: &text(first) }.try_write(writer)
            }
            work::Event::Skipped { path, errno } => Skipped { errno, path: &text(path) }.try_write(writer),
        };
        self.written += u64::from(result.is_ok());
    }
}

fn register(with: &impl Register) -> Result<(), EventError> {
    DirRead::register(with)?;
    FileOpen::register(with)?;
    FileRead::register(with)?;
    FileHashed::register(with)?;
    DuplicateFound::register(with)?;
    Skipped::register(with)?;
    Ok(())
}

/// A path as text; bytes that are none are shown as the replacement character.
fn text(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}
