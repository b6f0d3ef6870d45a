//! What reading costs: GET_READER, and the walk over a page's records, ringtap's beside the kernel's own mapping.

use crate::rotation::{Contender, Sample, timed};
use anyhow::{Context as _, ensure};
use ringtap::clock::ClockId;
use ringtap::tracefs::{Instance, Tracefs};
use ringtap::{Config, Host, Item, Reader, Writer};

/// Sub-buffers in a ring that is filled and read again and again.
const PAGES: u32 = 256;
/// The kernel's sub-buffers, and ours beside them.
const SUBBUF_SIZE: u32 = 4096;
/// The text whose marker takes 32 bytes in the kernel's ring, its record header included.
const MARKER: &str = "12345678";
/// The payload whose record takes 32 bytes in ours.
const PAYLOAD: [u8; 28] = [0; 28];

/// Adds one part's time to the whole.
fn add(total: &mut Sample, part: Sample) {
    total.wall_ns += part.wall_ns;
    total.cpu_ns += part.cpu_ns;
}

fn host() -> anyhow::Result<(Host, Writer)> {
    let host = Host::new(&Config { ring_subbufs: PAGES, subbuf_size: SUBBUF_SIZE, ..Config::default() })?;
    let writer = host.writer();
    Ok((host, writer))
}

/// One GET_READER each, in process, of a page with this many events.
#[derive(Debug)]
pub struct GetReader {
    name: String,
    host: Host,
    writer: Writer,
    cpu: u32,
    /// Payload of each event.
    payload: Vec<u8>,
}

impl GetReader {
    /// Pages of `events` events, on the CPU that this thread is pinned to.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new(events: usize, cpu: u32) -> anyhow::Result<Self> {
        let (host, writer) = host()?;
        // As large as they may be for so many to fit; headers take 4 or 8 bytes.
        let payload = vec![0; ((SUBBUF_SIZE as usize - 16) / events).saturating_sub(8) / 4 * 4];
        Ok(Self { name: format!("GET_READER, {events} events on the page"), host, writer, cpu, payload })
    }
}

impl Contender for GetReader {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        let mut total = Sample { wall_ns: 0, cpu_ns: 0 };
        let per_page = (SUBBUF_SIZE as usize - 16) / (self.payload.len() + 4);
        let mut left = iterations;
        while left > 0 {
            for _ in 0..per_page * PAGES as usize {
                self.writer.write(&self.payload)?;
            }
            // The last page is still being written.
            let pages = left.min(u64::from(PAGES) - 2);
            let mut outcome = Ok(());
            add(
                &mut total,
                timed(|| {
                    for _ in 0..pages {
                        outcome = self.host.get_reader(self.cpu);
                    }
                }),
            );
            outcome?;
            left -= pages;
        }
        Ok(total)
    }
}

/// Reads a reader empty; how many records there were.
fn drain(reader: &mut Reader) -> anyhow::Result<u64> {
    let mut records = 0;
    while let Some(item) = reader.next()? {
        if let Item::Record(record) = item {
            records += 1;
            std::hint::black_box(record.ticks);
        }
    }
    Ok(records)
}

/// The walk: one record each, of 8 bytes of payload, the pages' GET_READERs included.
#[derive(Debug)]
pub struct WalkRecords {
    writer: Writer,
    reader: Reader,
    _host: Host,
}

impl WalkRecords {
    /// The name it has in the table.
    pub const NAME: &str = "record walked, 8 bytes of payload";
    const EVENTS: u64 = 200 * PAGES as u64;

    /// On the CPU that this thread is pinned to.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new(cpu: u32) -> anyhow::Result<Self> {
        let (host, writer) = host()?;
        Ok(Self { writer, reader: host.reader(cpu)?, _host: host })
    }
}

impl Contender for WalkRecords {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        let mut total = Sample { wall_ns: 0, cpu_ns: 0 };
        let mut left = iterations;
        while left > 0 {
            let events = left.min(Self::EVENTS);
            for _ in 0..events {
                self.writer.write(&[0; 8])?;
            }
            let mut read = Ok(0);
            add(&mut total, timed(|| read = drain(&mut self.reader)));
            ensure!(read? == events, "each event is read");
            left -= events;
        }
        Ok(total)
    }
}

/// One page of 32-byte records each: GET_READER and the walk.
#[derive(Debug)]
pub struct RingtapPage {
    writer: Writer,
    reader: Reader,
    _host: Host,
}

/// The same of the kernel's mapped buffer.
#[derive(Debug)]
pub struct KernelPage {
    reader: Reader,
    instance: Instance,
}

/// Records of 32 bytes on a page.
const PER_PAGE: u64 = (SUBBUF_SIZE as u64 - 16) / 32;
/// Pages filled before they are read.
const FILLED: u64 = 64;

impl RingtapPage {
    /// The name it has in the table.
    pub const NAME: &str = "page of 127 small records, ringtap";

    /// On the CPU that this thread is pinned to.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new(cpu: u32) -> anyhow::Result<Self> {
        let (host, writer) = host()?;
        Ok(Self { writer, reader: host.reader(cpu)?, _host: host })
    }
}

impl KernelPage {
    /// The name it has in the table.
    pub const NAME: &str = "page of 127 small records, kernel";

    /// On the CPU that this thread is pinned to.
    ///
    /// # Errors
    /// When there is no tracefs, no permission, or no mapping.
    pub fn new(cpu: u32) -> anyhow::Result<Self> {
        let tracefs = Tracefs::find()?;
        tracefs.check_mapping()?;
        let instance = tracefs.create_instance()?;
        instance.set_clock("mono")?;
        instance.set_sizes_kib(SUBBUF_SIZE / 1024, PAGES * SUBBUF_SIZE / 1024)?;
        instance.set_recording(true)?;
        let reader = Reader::open_kernel(instance.open_raw(cpu)?, cpu, ClockId::Mono)?;
        Ok(Self { reader, instance })
    }
}

/// Fills and reads pages until `iterations` of them were read; `fill` writes one record.
fn read_pages(
    reader: &mut Reader,
    iterations: u64,
    mut fill: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let mut total = Sample { wall_ns: 0, cpu_ns: 0 };
    let mut left = iterations;
    while left > 0 {
        let pages = left.min(FILLED);
        for _ in 0..pages * PER_PAGE {
            fill()?;
        }
        let mut read = Ok(0);
        add(&mut total, timed(|| read = drain(reader)));
        ensure!(read? == pages * PER_PAGE, "each event is read");
        left -= pages;
    }
    Ok(total)
}

impl Contender for RingtapPage {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        let writer = &self.writer;
        read_pages(&mut self.reader, iterations, || Ok(writer.write(&PAYLOAD)?))
    }
}

impl Contender for KernelPage {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        let instance = &self.instance;
        read_pages(&mut self.reader, iterations, || {
            instance.write_marker(MARKER).context("the marker is refused")
        })
    }
}
