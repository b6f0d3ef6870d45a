//! Where sub-buffers go: to the file at once, or through a thread that compresses them.

use super::files::{Files, Written, write_at};
use anyhow::{Result, anyhow};
use ringtap_format::trace_dat::Descriptions;
use std::mem;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

/// Chunks under way to the thread: when it falls behind, the buffers fill up, and tell what they lose.
const QUEUE: usize = 64;

enum Message {
    Pages(usize, Vec<u8>),
    Commit,
    Describe(Box<Descriptions>),
    Rotate,
    Resize(u32),
}

/// Takes sub-buffers.
pub(super) enum Sink {
    /// Writes them from where they lie.
    Here(Box<Files>),
    /// Copies them for the thread.
    Behind(Behind),
}

/// The thread that compresses and writes.
pub(super) struct Behind {
    to: Option<SyncSender<Message>>,
    /// Vectors to be used again.
    spare: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<Result<Written>>>,
    rotate_at: Option<u64>,
    /// Bytes sent since the last rotation, before they are compressed.
    sent: u64,
    page_size: u32,
    /// A file has ended and was not told of what is learnt late.
    has_rotated: bool,
}

impl Sink {
    /// Writes to `files`, here or behind.
    ///
    /// # Errors
    /// There can be no thread.
    pub(super) fn new(mut files: Files, compresses: bool, rotate_at: Option<u64>) -> Result<Self> {
        if !compresses {
            return Ok(Self::Here(Box::new(files)));
        }
        let page_size = files.page_size();
        let (to, from) = mpsc::sync_channel(QUEUE);
        let (back, spare) = mpsc::channel();
        let work = move || {
            for message in from {
                match message {
                    Message::Pages(lane, pages) => {
                        files.add_packed(lane, &pages)?;
                        // Nobody is left to use it again: then it goes.
                        let _ = back.send(pages);
                    }
                    Message::Commit => files.commit()?,
                    Message::Describe(descriptions) => files.describe(*descriptions)?,
                    Message::Rotate => files.rotate()?,
                    Message::Resize(page_size) => files.resize(page_size)?,
                }
            }
            files.finish()
        };
        let thread = std::thread::Builder::new().name("compress".into()).spawn(work)?;
        let (to, thread) = (Some(to), Some(thread));
        Ok(Self::Behind(Behind { to, spare, thread, rotate_at, sent: 0, page_size, has_rotated: false }))
    }

    /// Adds whole sub-buffers of a lane.
    ///
    /// # Errors
    /// The disk is full, or cannot be written to.
    pub(super) fn add(&mut self, lane: usize, pages: Vec<u8>) -> Result<()> {
        match self {
            Self::Here(files) => {
                files.add(lane, pages.len() as u64, |file, place| write_at(file, &pages, place))
            }
            Self::Behind(behind) => behind.add(lane, pages),
        }
    }

    /// Makes all that was added count, and begins another file where this one is long enough.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn commit(&mut self, rotate_at: Option<u64>) -> Result<()> {
        match self {
            Self::Here(files) => {
                files.commit()?;
                if rotate_at.is_some_and(|limit| files.len() >= limit) {
                    files.rotate()?;
                }
                Ok(())
            }
            Self::Behind(behind) => {
                behind.send(Message::Commit)?;
                if behind.rotate_at.is_some_and(|limit| behind.sent >= limit) {
                    behind.rotate()?;
                }
                Ok(())
            }
        }
    }

    /// As [`Files::describe`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn describe(&mut self, descriptions: Descriptions) -> Result<()> {
        match self {
            Self::Here(files) => files.describe(descriptions),
            Self::Behind(behind) => behind.send(Message::Describe(Box::new(descriptions))),
        }
    }

    /// As [`Files::rotate`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn rotate(&mut self) -> Result<()> {
        match self {
            Self::Here(files) => files.rotate(),
            Self::Behind(behind) => behind.rotate(),
        }
    }

    /// Whether a file has ended since the last time, and waits to be described.
    pub(super) fn take_rotated(&mut self) -> bool {
        match self {
            Self::Here(files) => files.has_ended(),
            Self::Behind(behind) => mem::take(&mut behind.has_rotated),
        }
    }

    /// As [`Files::finish`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn finish(self) -> Result<Written> {
        match self {
            Self::Here(files) => files.finish(),
            Self::Behind(mut behind) => behind.finish(),
        }
    }
}

impl Behind {
    /// An empty vector.
    pub(super) fn vector(&self) -> Vec<u8> {
        let mut vector = self.spare.try_recv().unwrap_or_default();
        vector.clear();
        vector
    }

    /// As [`Files::page_size`].
    pub(super) fn page_size(&self) -> u32 {
        self.page_size
    }

    /// As [`Files::resize`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn resize(&mut self, page_size: u32) -> Result<()> {
        (self.page_size, self.sent, self.has_rotated) = (page_size, 0, true);
        self.send(Message::Resize(page_size))
    }

    fn rotate(&mut self) -> Result<()> {
        (self.sent, self.has_rotated) = (0, true);
        self.send(Message::Rotate)
    }

    /// Gives sub-buffers of a lane to the thread.
    ///
    /// # Errors
    /// It could not write the ones before.
    pub(super) fn add(&mut self, lane: usize, pages: Vec<u8>) -> Result<()> {
        self.sent += u64::try_from(pages.len())?;
        self.send(Message::Pages(lane, pages))
    }

    fn send(&mut self, message: Message) -> Result<()> {
        match &self.to {
            Some(to) if to.send(message).is_ok() => Ok(()),
            // It ended, and says why.
            _ => self.finish().map(|_| ()),
        }
    }

    fn finish(&mut self) -> Result<Written> {
        drop(mem::take(&mut self.to));
        let thread = self.thread.take().ok_or_else(|| anyhow!("the file cannot be written any more"))?;
        thread.join().map_err(|_| anyhow!("the thread that compresses has failed"))?
    }
}
