//! What the macros declare, against what stands in the ring and what trace-cmd makes of it.

mod layout;
mod pages;
mod register;
mod since;
mod trace_cmd;

use super::{Register, Text};
use crate::{Config, Host};
use std::convert::Infallible;
use std::sync::{LazyLock, Mutex};

crate::symbols! {
    /// Where the bytes came from.
    pub(super) enum Source: u16 { Disk = 0, Cache = 7 => "page cache", Network = 0x8000 }
}

crate::symbols! {
    pub(super) flags Access: u32 { READ = 1, WRITE = 2 => "write", APPEND = 0x400 }
}

crate::event! {
    /// A field of every fixed kind, ordered so that there is padding.
    pub(super) struct Fixed as demo:fixed {
        tiny: u8,
        word: u16,
        count: u32,
        bytes: u64,
        size: usize,
        minus: i8,
        minus_two: i16,
        minus_three: i32,
        minus_four: i64,
        distance: isize,
        ok: bool,
        ratio: f32,
        load: f64,
        at: *const u8,
        source: Source,
        access: Access,
        mac: [u8; 6],
        regs: [u32; 3],
        steps: [i64; 2],
        comm: Text<16>,
        last: u8,
    }
}

impl Fixed {
    fn sample() -> Self {
        Self {
            tiny: 200,
            word: 60_000,
            count: 4_000_000_000,
            bytes: u64::MAX - 1,
            size: 1 << 40,
            minus: -1,
            minus_two: -20_000,
            minus_three: -2_000_000_000,
            minus_four: i64::MIN,
            distance: -3,
            ok: true,
            ratio: 1.5,
            load: -0.25,
            at: std::ptr::without_provenance(0xffff_8000_1234_5678),
            source: Source::Cache,
            access: Access::READ | Access::APPEND,
            mac: [2, 0, 0x5e, 0x10, 0xff, 1],
            regs: [1, 0xdead_beef, 3],
            steps: [-1, 5],
            comm: Text::new("worker/0"),
            last: 9,
        }
    }
}

crate::event! {
    /// Strings and slices between fixed fields.
    struct Dynamic<'e> as demo:dynamic {
        id: u16,
        path: &'e str,
        data: &'e [u8],
        numbers: &'e [u32],
        times: &'e [i64],
        empty: &'e str,
        tail: u64,
    }
}

impl Dynamic<'static> {
    fn sample() -> Self {
        Self {
            id: 3,
            path: "/etc/höst",
            data: &[0xca, 0xfe, 0],
            numbers: &[1, 0xffff_ffff],
            times: &[-1, 2],
            empty: "",
            tail: 77,
        }
    }
}

crate::event! {
    struct Told<'e> as demo:told { peer: &'e str, r#type: u16, sent: u64, source: Source }
    print "to %s:%u, \"%llu\" bytes\t%d%% %s", peer, r#type, sent, "(int)(REC->sent >> 2)", source;
}

crate::event! {
    struct Bare as demo:bare {}
}

/// Gives ids in the order of asking, as an instance does.
#[derive(Debug)]
struct Ids {
    first: u16,
    /// Names and format texts; the index is the distance from the first id.
    known: Mutex<Vec<(String, String)>>,
}

impl Ids {
    fn from(first: u16) -> Self {
        Self { first, known: Mutex::default() }
    }
}

/// The instance that these tests' events belong to.
static IDS: LazyLock<Ids> = LazyLock::new(|| Ids::from(2000));

impl Register for Ids {
    type Error = Infallible;

    fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, Infallible> {
        let (name, mut known) = (format!("{system}:{name}"), self.known.lock().expect("no panic while held"));
        let index = known.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
            known.push((name, format.to_owned()));
            known.len() - 1
        });
        assert_eq!(known[index].1, format);
        Ok(self.first + u16::try_from(index).expect("few events"))
    }
}

fn host() -> Host {
    Host::new(&Config { ring_subbufs: 8, ..Config::default() }).expect("memory for a small instance")
}
