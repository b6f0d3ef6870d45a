//! What one process measures, or leaves behind.

use crate::contender::Contender;
use anyhow::Result;
use ringtap_tracing::Session;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use tracing::{info, info_span};

/// For how long one figure is measured. Longer, and those who write to files would be measured by the disk.
const TIME: Duration = Duration::from_millis(250);
const BATCH: u32 = 1000;

/// The median over batches, in nanoseconds a round.
fn ns(mut round: impl FnMut(u64)) -> f64 {
    (0..BATCH.into()).for_each(&mut round);
    let (start, mut batches) = (Instant::now(), Vec::new());
    while start.elapsed() < TIME {
        let before = Instant::now();
        (0..u64::from(BATCH)).for_each(&mut round);
        batches.push(before.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH));
    }
    batches.sort_by(f64::total_cmp);
    batches[batches.len() / 2]
}

/// The callsite that is switched off. Never inlined, so that there is one.
#[inline(never)]
fn off(n: u64) {
    info!(name: "off", a = n, b = 2u64, c = 3u64);
}

/// Prints the figures as JSON.
pub fn time(contender: Contender) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let guard = contender.start(&directory.path().join("trace"))?;
    let mut figures = serde_json::json!({});
    if contender != Contender::Nobody {
        figures["event"] = ns(|n| info!(a = black_box(n), b = black_box(2u64), c = black_box(3u64))).into();
        figures["text"] = ns(|n| info!(a = black_box(n), "a request of {} bytes", black_box(n))).into();
        figures["span"] = ns(|_| drop(info_span!("work").entered())).into();
        figures["span_field"] = ns(|n| drop(info_span!("work_on", n = black_box(n)).entered())).into();
    }
    if let Some(session) = guard.downcast_ref::<Session>() {
        off(1);
        assert_eq!(session.switch("*:off", false), 1);
        figures["off"] = ns(|n| off(black_box(n))).into();
    } else if contender == Contender::Nobody {
        figures["off"] = ns(|n| off(black_box(n))).into();
    }
    let clock = ringtap::clock::cheapest();
    figures["clock"] = ns(|_| {
        black_box(ringtap::clock::read(clock));
    })
    .into();
    println!("{figures}");
    Ok(())
}

/// Writes events, and is dead right behind the last one.
pub fn die(contender: Contender, path: &Path, events: u64) -> Result<()> {
    let guard = contender.start(path)?;
    for number in 0..events {
        info!(number, square = number * number, odd = number % 2 == 1);
    }
    // SAFETY: ends this process, which is what is wanted.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    drop(guard);
    unreachable!("nothing outlives SIGKILL")
}
