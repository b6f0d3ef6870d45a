//! What a snapshot costs the writers: their time per event while one is taken, against that before and after, within
//! one run.

use anyhow::ensure;
use clap::Parser;
use ringtap::{Config, Host};
use ringtap_benches::{cpu, guest};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Measure how much dearer events are while a snapshot of their ring is taken
#[derive(Debug, Parser)]
struct Args {
    /// MiB of the ring
    #[arg(long, default_value_t = 64)]
    mib: u32,
    /// Snapshots to take
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Nanoseconds that the writer spends between two events, besides writing
    #[arg(long, default_value_t = 0)]
    pause_ns: u64,
    /// Fail where the median ratio is higher
    #[arg(long)]
    limit: Option<f64>,
}

fn main() -> ExitCode {
    guest::main(|| run(&Args::parse()))
}

/// Events between two looks at the clocks.
const BATCH: u32 = 2000;
/// Length of the quiet time before and after each snapshot.
const QUIET: Duration = Duration::from_millis(100);

/// What the writer is measuring now.
const STOP: u32 = u32::MAX;

/// Time of the writer's events: its CPU's, and the world's.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    events: u64,
    cpu_ns: u64,
    wall_ns: u64,
}

impl Cost {
    fn per_event(self) -> (f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "the numbers are far below 2^52")]
        let [events, cpu, wall] = [self.events.max(1), self.cpu_ns, self.wall_ns].map(|number| number as f64);
        (cpu / events, wall / events)
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let ring_subbufs = args.mib * (1024 * 1024 / 4096);
    let host = Host::new(&Config { ring_subbufs, ..Config::default() })?;
    let cpu = cpu::last_allowed()?;
    let phase = AtomicU32::new(0);
    let number = u32::try_from(cpu)?;
    let costs = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(args, &host, cpu, &phase));
        // Until the ring has been round once.
        let full = u64::from(args.mib) * 1024 * 1024 / 28;
        while host.stats(number)?.written() < full {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut times = Vec::new();
        let mut missing = Vec::new();
        for round in 0..args.rounds {
            phase.store(2 * round + 1, Relaxed);
            std::thread::sleep(QUIET);
            phase.store(2 * round + 2, Relaxed);
            let began = Instant::now();
            let before = host.stats(number)?;
            host.take_snapshot(Some(number))?;
            times.push(began.elapsed());
            let stats = host.snapshot().expect("it was just taken").stats(number)?;
            missing.push(stats.overrun.saturating_sub(before.overrun));
        }
        phase.store(STOP, Relaxed);
        let costs = writer.join().expect("the writer does not panic")?;
        println!("snapshots took {times:.1?}; events overwritten before they were copied: {missing:?}");
        anyhow::Ok(costs)
    })?;
    let mut ratios: Vec<(f64, f64)> = Vec::new();
    for pair in costs[1..].chunks_exact(2) {
        let [(quiet_cpu, quiet_wall), (busy_cpu, busy_wall)] = [pair[0].per_event(), pair[1].per_event()];
        println!(
            "CPU ns per event: {quiet_cpu:6.2} quiet, {busy_cpu:6.2} during a snapshot; wall ns: {quiet_wall:6.2}, {busy_wall:6.2}"
        );
        ratios.push((busy_cpu / quiet_cpu, busy_wall / quiet_wall));
    }
    let median = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    let cpu_ratio = median(ratios.iter().map(|ratio| ratio.0).collect());
    let wall_ratio = median(ratios.iter().map(|ratio| ratio.1).collect());
    println!("median ratio: {cpu_ratio:.3} of CPU time, {wall_ratio:.3} of wall time");
    ensure!(args.limit.is_none_or(|limit| cpu_ratio <= limit), "snapshots cost the writers too much");
    Ok(())
}

/// Writes until told to stop; the cost of each phase.
fn write(args: &Args, host: &Host, cpu: usize, phase: &AtomicU32) -> anyhow::Result<Vec<Cost>> {
    cpu::pin(cpu)?;
    let writer = host.writer();
    let mut costs = vec![Cost::default(); 2 * args.rounds as usize + 1];
    let mut payload = [7; 24];
    let mut before = now();
    loop {
        let now_in = phase.load(Relaxed);
        if now_in == STOP {
            return Ok(costs);
        }
        for event in 0..BATCH {
            payload[8..12].copy_from_slice(&event.to_le_bytes());
            writer.write_array(&payload)?;
            if args.pause_ns > 0 {
                let since = Instant::now();
                while since.elapsed() < Duration::from_nanos(args.pause_ns) {}
            }
        }
        let after = now();
        // A batch that saw two phases belongs to neither.
        if phase.load(Relaxed) == now_in {
            let cost = &mut costs[now_in as usize];
            cost.events += u64::from(BATCH);
            cost.cpu_ns += after.0 - before.0;
            cost.wall_ns += after.1 - before.1;
        }
        before = after;
    }
}

/// The thread's CPU time and the world's, in nanoseconds.
fn now() -> (u64, u64) {
    let ns = |clock| {
        let time = rustix::time::clock_gettime(clock);
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
    };
    (ns(rustix::time::ClockId::ThreadCPUTime), ns(rustix::time::ClockId::Monotonic))
}
