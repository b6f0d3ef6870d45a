//! ringtap's own contenders: one event of the usual payload, in overwrite mode, unless the name says otherwise.

use crate::guest::{self, Role};
use crate::reading::GetReader;
use crate::rotation::{Contender, Sample, timed};
use crate::worker::{self, Worker};
use crate::{PAYLOAD_LEN, cpu};
use anyhow::Context as _;
use ringtap::clock::ClockId;
use ringtap::serve::Server;
use ringtap::{Config, Host, Writer, WriterKind, attach};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::thread;

/// What all names begin with.
pub const PREFIX: &str = "ringtap";

/// Rings of the default's size in larger sub-buffers.
fn in_subbufs_of(subbuf_size: u32) -> Config {
    let default = Config::default();
    let bytes = default.subbuf_size * default.ring_subbufs;
    Config { subbuf_size, ring_subbufs: bytes / subbuf_size, ..default }
}

/// All of them, to be run on this CPU.
///
/// # Errors
/// When an instance cannot be made.
pub fn contenders(cpu: usize) -> anyhow::Result<Vec<Box<dyn Contender>>> {
    let default = Config::default;
    let contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(Writing::new("", &default())?),
        Box::new(Writing::new(", sub-buffers of 16 KiB", &in_subbufs_of(16 << 10))?),
        Box::new(Writing::new(", sub-buffers of 64 KiB", &in_subbufs_of(64 << 10))?),
        Box::new(Attached::new(cpu)?),
        Box::new(TwoThreads(Writing::new(", two threads on one CPU", &default())?)),
        Box::new(Writing::new(", clock mono", &Config { clock: Some(ClockId::Mono), ..default() })?),
        Box::new(Writing::new(", locked", &Config { writer: Some(WriterKind::Locked), ..default() })?),
        Box::new(Writing::new(", switched off", &Config { off: true, ..default() })?),
        Box::new(GetReader::new(10, u32::try_from(cpu)?)?),
        Box::new(GetReader::new(500, u32::try_from(cpu)?)?),
    ];
    Ok(contenders)
}

/// Writes events whose words change with each.
#[inline(never)]
fn write(writer: &Writer, iterations: u64) {
    for number in 0..iterations {
        let mut payload = [0; PAYLOAD_LEN];
        payload[8..16].copy_from_slice(&number.to_le_bytes());
        payload[16..].copy_from_slice(&(number ^ 7).to_le_bytes());
        // Switched off is one of the contenders.
        let _ = black_box(writer.write_array(&payload));
    }
}

struct Writing {
    name: String,
    writer: Writer,
    _host: Host,
}

impl Writing {
    fn new(name: &str, config: &Config) -> anyhow::Result<Self> {
        let host = Host::new(config).context("cannot make an instance")?;
        Ok(Self { name: format!("{PREFIX}{name}"), writer: host.writer(), _host: host })
    }
}

impl Contender for Writing {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        Ok(timed(|| write(&self.writer, iterations)))
    }
}

/// Two threads, which inherit the CPU that this one is pinned to, share the events.
struct TwoThreads(Writing);

/// How many slices they run for, so that the scheduler switches between them a few times.
const SLICES: u64 = 8;

impl Contender for TwoThreads {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        let writer = &self.0.writer;
        let half = || timed(|| write(writer, iterations * SLICES / 2)).cpu_ns;
        let mut cpu_ns = 0;
        let whole = timed(|| {
            cpu_ns = thread::scope(|scope| {
                let threads = [scope.spawn(half), scope.spawn(half)];
                threads.into_iter().map(|thread| thread.join().expect("writing does not panic")).sum()
            });
        });
        Ok(Sample { wall_ns: whole.wall_ns / SLICES, cpu_ns: cpu_ns / SLICES })
    }
}

/// A process of its own, attached to a socket that this one serves.
struct Attached {
    worker: Worker,
    _server: Server,
}

impl Attached {
    fn new(cpu: usize) -> anyhow::Result<Self> {
        let socket = socket();
        let server = Host::new(&Config::default())?.serve(&socket)?;
        let role = Role::RingtapWriter { socket, cpu };
        let name = format!("{PREFIX}, from an attached process");
        Ok(Self { worker: Worker::spawn(name, &mut guest::command(&role)?)?, _server: server })
    }
}

fn socket() -> PathBuf {
    std::env::temp_dir().join(format!("ringtap-bench-{}.sock", std::process::id()))
}

impl Contender for Attached {
    fn name(&self) -> &str {
        self.worker.name()
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        self.worker.run(iterations)
    }
}

/// The attached process: writes on request.
///
/// # Errors
/// When it cannot attach.
pub fn serve(socket: &Path, cpu: usize) -> anyhow::Result<()> {
    cpu::pin(cpu)?;
    let writer = attach::writer(socket)?;
    worker::serve(|iterations| {
        write(&writer, iterations);
        Ok(())
    })
}
