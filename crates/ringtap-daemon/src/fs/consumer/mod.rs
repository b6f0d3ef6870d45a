//! The consuming reader of one CPU's buffer, for all who have its `trace_pipe_raw` open: they take turns.
//!
//! GET_READER hands out all that is new on a page at once. `read` and `splice` pass it on piece by piece. How far they
//! came is remembered here, and stands on the meta-page: who maps the buffer goes on there.

#![forbid(unsafe_code)]

mod image;

use image::Copied;
use ringtap::subbufs::{Frame, ReaderPage, SubbufReader};
use ringtap::{Host, HostError};
use rustix::io::Errno;

/// The errno of a host's refusal.
pub(crate) fn errno(error: &HostError) -> Errno {
    match error {
        HostError::NoSuchCpu(_) => Errno::NODEV,
        HostError::Claimed { .. } | HostError::Busy(_) => Errno::BUSY,
        HostError::Percent(_) => Errno::INVAL,
        HostError::Damaged(_) => Errno::IO,
        _ => Errno::NOMEM,
    }
}

/// What is consumed: a CPU's buffer.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) host: Host,
    pub(crate) cpu: u32,
}

/// One CPU's buffer, as it is consumed.
#[derive(Debug, Default)]
pub(crate) struct Consumer {
    /// From the first consuming call until nobody has the file open.
    reader: Option<SubbufReader>,
    /// The page that was looked at last.
    page: Option<ReaderPage>,
    /// How much of it was passed on, in data bytes.
    passed_on: u32,
}

impl Consumer {
    /// Lets others consume the buffer. Whether there is nothing to remember either.
    pub(crate) fn release(&mut self) -> bool {
        let is_done = self.page.is_none_or(|page| self.passed_on >= page.read);
        self.reader = None;
        is_done
    }

    /// The kernel's `TRACE_MMAP_IOCTL_GET_READER`: all that it hands out counts as passed on. `frame` is what the caller
    /// has mapped.
    pub(crate) fn get_reader(&mut self, source: &Source, frame: &Frame) -> Result<(), Errno> {
        if self.reader(source)?.is_in(frame) {
            if self.has_rest(source)? && self.reader(source)?.unread().map_err(|error| errno(&error))? == 0 {
                return self.pass_on(source, u32::MAX);
            }
            self.step(source)?;
            // Behind its end, the next one is read.
            if self.reader(source)?.is_in(frame) {
                return self.pass_on(source, u32::MAX);
            }
        }
        self.show(source, frame)
    }

    /// Copies what is new to memory that was replaced, for who has that mapped.
    fn show(&mut self, source: &Source, frame: &Frame) -> Result<(), Errno> {
        let image = self.read(source, frame.subbuf_size() as usize)?;
        let stats = source.host.stats(source.cpu).map_err(|error| errno(&error))?;
        match image {
            None => frame.count(&stats),
            // No mapping of this size can ever show it: whoever maps anew gets it.
            Some(image) if image.is_empty() => return Err(Errno::MSGSIZE),
            Some(image) => frame.show(&image, &stats).map_err(|error| errno(&error))?,
        }
        Ok(())
    }

    /// Records for who reads `room` bytes; `None` when there are none, and no bytes where there is no room for the first.
    pub(crate) fn read(&mut self, source: &Source, room: usize) -> Result<Option<Vec<u8>>, Errno> {
        if !self.has_rest(source)? {
            self.step(source)?;
            if !self.has_rest(source)? {
                return Ok(None);
            }
        }
        let Some(copied) = self.copy()? else { return Ok(None) };
        let image = copied.image(self.passed_on, room);
        self.pass_on(source, image.as_ref().map_or(self.passed_on, |(_, to)| *to))?;
        Ok(Some(image.map_or_else(Vec::new, |(image, _)| image)))
    }

    /// The next sub-buffer that its writers have left; `None` when there is none.
    pub(crate) fn full(&mut self, source: &Source) -> Result<Option<Vec<u8>>, Errno> {
        // Twice at most: the page at hand may be used up, or fill up meanwhile.
        for _ in 0..3 {
            let reader = self.reader(source)?;
            let failed = |error: HostError| errno(&error);
            if !reader.is_final().map_err(failed)? {
                return Ok(None);
            }
            if reader.unread().map_err(failed)? > 0 {
                self.step(source)?;
            } else if !self.has_rest(source)? {
                if !self.reader(source)?.has_full().map_err(failed)? {
                    return Ok(None);
                }
                self.step(source)?;
            } else {
                let Some(copied) = self.copy()? else { return Ok(None) };
                let image = copied.image(self.passed_on, usize::MAX);
                self.pass_on(source, copied.read)?;
                return Ok(image.map(|(image, _)| image));
            }
        }
        Ok(None)
    }

    /// Whether something that was handed out to us is yet to be passed on.
    pub(crate) fn is_holding(&self) -> bool {
        self.reader.is_some() && self.page.is_some_and(|page| self.passed_on < page.read)
    }

    /// As [`is_holding`](Self::is_holding), after a look at what the reader page is now.
    fn has_rest(&mut self, source: &Source) -> Result<bool, Errno> {
        let page = self.reader(source)?.page().map_err(|error| errno(&error))?;
        self.look(page);
        Ok(self.passed_on < page.read)
    }

    /// Notes that the reader page was passed on as far as `to`, or as far as it was handed out.
    fn pass_on(&mut self, source: &Source, to: u32) -> Result<(), Errno> {
        let Some(page) = self.page else { return Ok(()) };
        let to = to.min(page.read);
        self.passed_on = to;
        self.reader(source)?.pass_on(to).map_err(|error| errno(&error))
    }

    /// One GET_READER.
    fn step(&mut self, source: &Source) -> Result<(), Errno> {
        let reader = self.reader(source)?;
        reader.get_reader().map_err(|error| errno(&error))?;
        let page = reader.page().map_err(|error| errno(&error))?;
        self.look(page);
        Ok(())
    }

    /// Notes the reader page. A reset, or others' GET_READERs, may have brought another one.
    fn look(&mut self, page: ReaderPage) {
        let is_same = self.page.is_some_and(|known| {
            known.id == page.id && known.time_stamp == page.time_stamp && known.read <= page.read
        });
        if !is_same {
            self.passed_on = 0;
        }
        self.page = Some(page);
    }

    fn copy(&self) -> Result<Option<Copied>, Errno> {
        let (Some(reader), Some(page)) = (&self.reader, self.page) else { return Ok(None) };
        let mut bytes = vec![0; reader.subbuf_size() as usize];
        let len = rustix::io::pread(reader.memory(), &mut bytes[..], page.offset)?;
        if len < bytes.len() {
            return Err(Errno::IO);
        }
        Ok(Some(Copied { bytes, read: page.read, lost: page.lost }))
    }

    /// The reader of these buffers.
    fn reader(&mut self, source: &Source) -> Result<&SubbufReader, Errno> {
        let Source { host, cpu } = source;
        if self.reader.as_ref().is_none_or(|reader| !reader.host().is_same(host)) {
            self.reader = None;
            let reader = host.subbufs(*cpu).map_err(|error| errno(&error))?;
            let page = reader.page().map_err(|error| errno(&error))?;
            // What was handed out before belongs to who asked for it, unless the meta-page says that it was left.
            (self.passed_on, self.page) = (page.passed_on, Some(page));
            self.reader = Some(reader);
        }
        self.reader.as_ref().ok_or(Errno::IO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringtap::{Config, Host};
    use ringtap_abi::records::{Walk, Words};
    use ringtap_abi::subbuf::PageCommit;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    struct Bytes<'b>(&'b [u8]);

    impl Words for Bytes<'_> {
        fn word(&self, offset: u32) -> u32 {
            let at = offset as usize;
            u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
        }
    }

    /// A CPU's buffer whose events carry their index, and what was read of it.
    struct Stream {
        source: Source,
        consumer: Consumer,
        written: u64,
        read: u64,
        lost: u64,
    }

    impl Stream {
        fn new() -> Self {
            let host = Host::new(&Config { ring_subbufs: 16, ..Config::default() }).unwrap();
            // Not the first one, where there is another: the first one's sizes are not every CPU's.
            let allowed = sched_getaffinity(None).unwrap();
            let cpu = host.cpus().into_iter().rfind(|&cpu| allowed.is_set(cpu as usize)).unwrap();
            let mut only = CpuSet::new();
            only.set(cpu as usize);
            sched_setaffinity(None, &only).unwrap();
            let source = Source { host, cpu };
            Self { source, consumer: Consumer::default(), written: 0, read: 0, lost: 0 }
        }

        fn write(&mut self, events: u64) {
            let writer = self.source.host.writer();
            for _ in 0..events {
                let mut payload = [0; 24];
                payload[..8].copy_from_slice(&self.written.to_le_bytes());
                writer.write_array(&payload).unwrap();
                self.written += 1;
            }
        }

        fn take(&mut self, image: &[u8]) {
            let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
            let commit = PageCommit::unpack(word(8));
            if commit.is_missed() {
                assert!(commit.is_missed_stored(), "these pages have room for the number");
                self.lost += word(16 + commit.len() as usize);
            }
            let mut walk = Walk::new(word(0), commit.len());
            while let Some(record) = walk.next(&Bytes(&image[16..])).unwrap() {
                assert_eq!(word(16 + record.offset as usize), self.read + self.lost, "the event's own index");
                self.read += 1;
            }
        }

        /// What a poll would push.
        fn push(&mut self) {
            while let Some(image) = self.consumer.full(&self.source).unwrap() {
                self.take(&image);
            }
        }

        fn read(&mut self, room: usize) {
            while let Some(image) = self.consumer.read(&self.source, room).unwrap() {
                self.take(&image);
            }
        }
    }

    #[test]
    fn splice_goes_on_in_the_ring_that_replaced_its_own() {
        let mut stream = Stream::new();
        stream.write(300);
        stream.push();
        assert!((200..300).contains(&stream.read), "{}", stream.read);
        stream.source.host.set_size(None, 32).unwrap();
        // Its last sub-buffer is full, since nobody writes there.
        stream.push();
        assert_eq!(stream.read, 300);
        stream.write(300);
        stream.push();
        assert!((500..600).contains(&stream.read), "{}", stream.read);
        // One that the reader does not yet have is full, too.
        stream.write(300);
        stream.source.host.set_subbuf_size(16_384).unwrap();
        stream.write(100);
        stream.push();
        assert_eq!((stream.read, stream.lost), (900, 0));
        let watch = stream.source.host.watch(stream.source.cpu).unwrap();
        assert!(!watch.arm(50).unwrap(), "no more than the page being written");
        stream.read(4096);
        assert_eq!((stream.read, stream.lost), (1000, 0));
    }

    #[test]
    fn each_cpus_subbuffers_have_their_own_size() {
        for (before, after) in [(4096, 16_384), (16_384, 4096)] {
            let mut stream = Stream::new();
            stream.source.host.set_subbuf_size(before).unwrap();
            stream.write(500);
            stream.source.host.set_subbuf_size(after).unwrap();
            assert_eq!(stream.source.host.subbuf_size(), after);
            stream.write(500);
            stream.read(after as usize);
            assert_eq!((stream.read, stream.lost), (1000, 0), "{before} {after}");
        }
    }

    #[test]
    fn what_was_given_up_is_told() {
        let mut stream = Stream::new();
        stream.write(400);
        // Some of a page, which stays readable.
        let image = stream.consumer.read(&stream.source, 16 + 10 * 28).unwrap().unwrap();
        stream.take(&image[..]);
        let first = stream.read;
        assert!((5..=10).contains(&first), "{first}");
        for subbufs in [32, 8] {
            stream.source.host.set_size(None, subbufs).unwrap();
            stream.write(200);
        }
        stream.read(4096);
        assert_eq!(stream.read + stream.lost, stream.written);
        let stats = stream.source.host.stats(stream.source.cpu).unwrap();
        assert_eq!((stats.read_events, stats.overrun), (stream.read, stream.lost));
        assert!(stream.lost > 0 && stream.read > 200 + first, "{} {}", stream.read, stream.lost);
    }
}
