//! What can be read of a trace whose program was killed.

use crate::contender::Contender;
use anyhow::{Result, ensure};
use ringtap::{Config, Host, Item};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

/// What a reader finds.
pub struct Left {
    pub readable: u64,
    pub remark: String,
}

pub fn after_kill(contender: Contender) -> Result<Left> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("trace");
    let is_ringtap = matches!(contender, Contender::Subscriber | Contender::Layer);
    // The host is another process than the one that is killed: this one.
    let host = is_ringtap.then(host).transpose()?;
    let server = host.as_ref().map(|host| host.serve(&path)).transpose()?;
    let status =
        Command::new(std::env::current_exe()?).args(["die", contender.name()]).arg(&path).status()?;
    ensure!(status.signal() == Some(libc::SIGKILL), "{}: {status}", contender.name());
    drop(server);
    match (host, contender) {
        (Some(host), _) => in_ring(&host),
        (None, Contender::PerfettoFile) => Ok(in_perfetto(&std::fs::read(&path)?)),
        (None, Contender::Chrome) => Ok(in_chrome(&std::fs::read_to_string(&path)?)),
        (None, _) => in_lines(&path),
    }
}

/// Large enough for all events on one CPU.
fn host() -> Result<Host> {
    Ok(Host::new(&Config { subbuf_size: 65536, ring_subbufs: 256, ..Config::default() })?)
}

fn in_ring(host: &Host) -> Result<Left> {
    let (mut readable, mut lost) = (0, 0);
    for mut reader in host.readers()? {
        while let Some(item) = reader.next()? {
            match item {
                Item::Record(_) => readable += 1,
                Item::Lost(gone) => lost += gone.count.unwrap_or(0),
                _ => {}
            }
        }
    }
    Ok(Left { readable, remark: format!("{lost} lost") })
}

/// Packets of the trace with an instant event: field 11 of a packet, type 3.
fn in_perfetto(bytes: &[u8]) -> Left {
    let (mut rest, mut readable) = (bytes, 0);
    while let Some((field, packet, after)) = next_field(rest) {
        rest = after;
        let is_instant = |(field, event): (u64, &[u8])| {
            field == 11 && fields(event).any(|(field, value)| field == 9 && value == [3])
        };
        readable += u64::from(field == 1 && fields(packet).any(is_instant));
    }
    Left { readable, remark: format!("{} bytes of {} are half a packet", rest.len(), bytes.len()) }
}

fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let (field, value, rest) = next_field(bytes)?;
        bytes = rest;
        Some((field, value))
    })
}

/// The number, value and rest behind a protobuf field; a varint's value is its bytes.
fn next_field(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (tag, rest) = varint(bytes)?;
    let len = match tag & 7 {
        0 => rest.iter().position(|byte| byte & 0x80 == 0)? + 1,
        1 => 8,
        2 => {
            let (len, value) = varint(rest)?;
            let (value, rest) = value.split_at_checked(usize::try_from(len).ok()?)?;
            return Some((tag >> 3, value, rest));
        }
        5 => 4,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((tag >> 3, value, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let len = bytes.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let number = bytes[..len].iter().rev().fold(0u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
    Some((number, &bytes[len..]))
}

/// Lines that are whole objects; the file as such has to be one array.
fn in_chrome(text: &str) -> Left {
    let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
    let objects = text.lines().filter_map(|line| {
        serde_json::from_str::<serde_json::Value>(line.trim_matches(['[', ']', ','])).ok()
    });
    let readable = objects.filter(|object| object["ph"] == "i").count() as u64;
    let remark = if is_json { "the file is JSON" } else { "the file is not JSON; these are its whole lines" };
    Left { readable, remark: remark.into() }
}

fn in_lines(path: &Path) -> Result<Left> {
    let text = std::fs::read_to_string(path)?;
    let readable =
        text.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains("number=")).count();
    Ok(Left { readable: readable as u64, remark: String::new() })
}
