//! Events that say how long something took.

use super::super::Common;
use crate::clock::{self, Since};
use crate::{Config, Host, Item, WriterKind, rseq};
use ringtap_abi::clock::ClockId;

crate::event! {
    struct Took as demo:took { a: u64, b: u64, took_ns: u32 }
}

const EVENTS: u64 = 500;

#[test]
fn the_time_since_is_told_by_the_look_that_stamps_the_event() {
    for kind in [WriterKind::Rseq, WriterKind::Locked] {
        if kind == WriterKind::Rseq && !rseq::available() {
            continue;
        }
        let host = Host::new(&Config { writer: Some(kind), ..Config::default() }).expect("memory");
        Took::declared().unregister();
        Took::register(&host).expect("nothing refuses it");
        let (writer, clock) = (host.writer(), clock::cheapest());
        let mult = writer.conversion().mult;
        let begin = clock::read(clock);
        // What just began, what has yet to, what began when the machine did.
        let since = |ticks| Since { clock, ticks, mult };
        let since = [since(begin), since(begin + (1 << 48)), Since { mult: 1 << 40, ..since(0) }];
        for number in 0..EVENTS {
            let route = Took::declared().route().expect("it is on");
            let common = Common::of_thread(route.id()).word();
            let which = number % 3;
            let mut payload = [0; 28];
            let words = [common, number, which].map(u64::to_le_bytes);
            payload[..24].copy_from_slice(words.as_flattened());
            writer.write_since_to(route, &mut payload, since[which as usize]).expect("room");
        }
        let (mut records, mut exact) = (0, 0);
        for mut reader in host.readers().expect("nobody reads") {
            while let Some(item) = reader.next().expect("it is undamaged") {
                let Item::Record(record) = item else { panic!("{item:?}") };
                let word = |at| record.payload.u64_at(at).expect("it has 28 bytes");
                let since = since[usize::try_from(word(16)).expect("0, 1 or 2")];
                let stamp = u128::from(record.ticks.saturating_sub(since.ticks));
                let ns = u32::try_from((stamp * u128::from(since.mult)) >> 32).unwrap_or(u32::MAX);
                let took = record.payload.u32_at(24).expect("it has 28 bytes");
                assert!(took <= ns, "{took} behind {ns}");
                assert!(word(16) != 1 || took == 0, "what has not begun took no time");
                assert!(word(16) != 2 || took == u32::MAX, "more than 32 bits hold");
                records += 1;
                exact += u64::from(took == ns && word(16) == 0);
            }
        }
        assert_eq!(records, EVENTS);
        // All but those that found a new page, or a new CPU.
        let is_hot = kind == WriterKind::Rseq && clock == ClockId::Cycles;
        assert!(!is_hot || exact > EVENTS / 4, "{exact}");
    }
}
