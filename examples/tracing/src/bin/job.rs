//! A job of several processes whose events stand in one trace.
//!
//! The first process is the host. Its workers find it by the environment, as any program does that calls
//! `ringtap_tracing::init`; one of them is killed in the middle of its work, and what it wrote is there.

use anyhow::{Context, Result};
use ringtap::attach::SOCKET_VARIABLE;
use ringtap::{Host, Item};
use std::process::Command;
use tracing::{info, info_span};

const WORKERS: u64 = 4;
const ITEMS: u64 = 1000;

fn main() -> Result<()> {
    let number = std::env::args().nth(1).map(|number| number.parse());
    let session = ringtap_tracing::init()?;
    if let Some(number) = number {
        work(number?);
        return Ok(());
    }
    let socket = session.socket().context("the job runs under another host: follow it there")?;
    let workers = (0..WORKERS).map(|number| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(number.to_string()).env(SOCKET_VARIABLE, socket).spawn()
    });
    for (number, worker) in workers.collect::<Result<Vec<_>, _>>()?.iter_mut().enumerate() {
        let status = worker.wait()?;
        info!(number, %status, "a worker ended");
    }
    let host = session.host().context("the first process is the host")?;
    println!("{} events of {} workers", count(host)?, WORKERS);
    Ok(())
}

fn work(number: u64) {
    for item in 0..ITEMS {
        info_span!("item", number, item).in_scope(|| info!(square = item * item));
        if number == 0 && item == ITEMS / 2 {
            let _ = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
        }
    }
}

/// What the rings hold.
fn count(host: &Host) -> Result<u64> {
    let mut events = 0;
    for mut reader in host.readers()? {
        while let Some(item) = reader.next()? {
            events += u64::from(matches!(item, Item::Record(_)));
        }
    }
    Ok(events)
}
