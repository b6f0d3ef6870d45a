//! Every format file of the running kernel parses, and nearly every `print fmt` compiles and evaluates.

use ringtap_format::{Context, Dialect, Event, Formats, Strings, Symbols, Target};
use std::fs;
use std::path::Path;

const EVENTS: &str = "/sys/kernel/tracing/events";

/// The running kernel's format files: system and text.
fn kernel_formats() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for system in fs::read_dir(EVENTS).into_iter().flatten().flatten() {
        for event in fs::read_dir(system.path()).into_iter().flatten().flatten() {
            if let Ok(text) = fs::read_to_string(event.path().join("format")) {
                found.push((system.file_name().to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// A record that the event's fields fill: small numbers, and dynamic arrays behind the fixed part.
fn plausible_record(event: &Event) -> Vec<u8> {
    let fixed = event.format().fields.iter().map(|field| field.offset + field.size).max().unwrap_or(8);
    let mut record: Vec<u8> = (0..fixed).map(|at| u8::try_from(at % 3).unwrap()).collect();
    record[..2].copy_from_slice(&event.id().to_le_bytes());
    for field in event.fields() {
        if let ringtap_format::format::Kind::Dynamic { relative, .. } = field.kind {
            let at = field.offset as usize;
            let base = if relative { field.offset + 4 } else { 0 };
            let place = u32::try_from(record.len()).unwrap() - base;
            record[at..at + 4].copy_from_slice(&(64 << 16 | place).to_le_bytes());
            record.extend_from_slice(&[b'a'; 63]);
            record.push(0);
        }
    }
    record.resize(record.len() + 64, 0);
    record
}

#[test]
fn all_format_files_of_the_running_kernel() {
    if !Path::new(EVENTS).is_dir() || kernel_formats().is_empty() {
        println!("skipped: no readable tracefs at {EVENTS}");
        return;
    }
    let (symbols, strings) = (Symbols::default(), Strings::default());
    for dialect in [Dialect::Kernel, Dialect::TraceCmd] {
        let mut formats = Formats::new(Target::HOST, dialect);
        for (system, text) in kernel_formats() {
            formats.add(&system, &text).unwrap_or_else(|error| panic!("{error}"));
        }
        let context = Context { symbols: &symbols, strings: &strings, hz: Some(250) };
        let mut by_fields = Vec::new();
        for event in formats.iter() {
            let mut text = Vec::new();
            let record = plausible_record(event);
            let printed = event.print(&record, &context, &mut text);
            assert!(!text.is_empty() || event.format().print_fmt.starts_with("\"\""), "{}", event.name());
            if let Some(why) = event.unprintable() {
                by_fields.push(format!("{}:{}: {why}", event.system(), event.name()));
            } else if let Err(stop) = printed {
                // Lengths in a made-up record need not fit; what is not known would not be in a real one either.
                assert!(!matches!(stop, ringtap_format::Stop::Unknown(_)), "{}: {stop}", event.name());
            }
            // A record cut anywhere is printed all the same.
            for len in 0..record.len().min(96) {
                let _ = event.print(&record[..len], &context, &mut text);
            }
        }
        println!("{dialect:?}: {} of {} events are printed field by field:", by_fields.len(), formats.len());
        for line in &by_fields {
            println!("  {line}");
        }
        let unresolved: std::collections::BTreeSet<_> = formats.iter().flat_map(Event::unresolved).collect();
        println!("  names whose values are not known: {}", unresolved.len());
        assert!(by_fields.len() * 100 < formats.len(), "1 % or more are printed field by field");
    }
}
