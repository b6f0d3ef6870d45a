//! The other ways in which the kernel's `trace` prints an entry: its options `fields`, `raw`, `hex` and `bin`.
//!
//! What a column means and which option wins was seen on Linux 6.18: `hex`, then `bin`, then `raw`, then `fields`. Events
//! that applications declare have more kinds of fields than its own; those are printed as whole as they can be.

use super::{Common, Entry, TraceText, ftrace};
use crate::event::Event;
use crate::format::{Field, Kind};
use crate::out;
use crate::print::fields;
use crate::target::Target;

/// How entries are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As their events say.
    #[default]
    Text,
    /// The value of each field, whatever the event's `print fmt` says.
    Fields,
    /// Numbers of the task, the CPU and the time; of an event only which one it is.
    Raw,
    /// The same, in hexadecimal digits.
    Hex,
    /// The same, as the machine has them in memory.
    Bin,
}

impl TraceText<'_> {
    /// Appends an entry as one of the styles has it, other than [`Style::Text`]. Without `context` the numbers in front are
    /// left out.
    pub(super) fn styled(&self, style: Style, context: bool, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let common = Common::of(entry.record, self.sources.formats.target());
        let event = self.sources.formats.by_id(common.id);
        match style {
            Style::Text => {}
            Style::Fields => all_fields(event, common, entry.record, out),
            Style::Raw => {
                if context {
                    out::signed(out, common.pid.into());
                    out.push(b' ');
                    out::dec(out, entry.cpu.into());
                    out.push(b' ');
                    out::dec(out, entry.time);
                    out.push(b' ');
                }
                if !self.raw_marker(event, entry.record, out) {
                    kind(common, out);
                }
            }
            Style::Hex => {
                if context {
                    out::hex_wide(out, u64::from(common.pid.cast_unsigned()), 8);
                    out.push(b' ');
                    out::hex_wide(out, entry.cpu.into(), 8);
                    out.push(b' ');
                    out::hex_wide(out, entry.time, 16);
                    out.push(b' ');
                }
                kind(common, out);
                out.push(b'\n');
            }
            Style::Bin => {
                if context {
                    out.extend_from_slice(&common.pid.to_le_bytes());
                    out.extend_from_slice(&entry.cpu.to_le_bytes());
                    out.extend_from_slice(&entry.time.to_le_bytes());
                }
                kind(common, out);
            }
        }
    }

    /// What was written to a `trace_marker`, behind its address or number; false for other events.
    fn raw_marker(&self, event: Option<&Event>, record: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(event) = event else { return false };
        let start = out.len();
        let printed = match event.by_code() {
            Some(ftrace::ByCode::Marker) => marker(event, record, out).is_some(),
            Some(code @ ftrace::ByCode::RawMarker) => ftrace::print(code, event, record, &self.sources, out),
            _ => false,
        };
        if !printed {
            out.truncate(start);
        } else if out.last() != Some(&b'\n') {
            out.push(b'\n');
        }
        printed
    }
}

fn marker(event: &Event, record: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let target = event.target();
    out.extend_from_slice(b"# ");
    out::hex(out, event.field("ip")?.int(record, target)?);
    out.push(b' ');
    out.extend_from_slice(out::until_nul(event.field("buf")?.bytes(record, target)?));
    Some(())
}

/// `type: 261`
fn kind(common: Common, out: &mut Vec<u8>) {
    out.extend_from_slice(b"type: ");
    out::dec(out, common.id.into());
    out.push(b'\n');
}

/// `name: field=0xa (10) other=text`. The kernel's own entries are not made of fields.
fn all_fields(event: Option<&Event>, common: Common, record: &[u8], out: &mut Vec<u8>) {
    let Some(event) = event.filter(|event| event.system() != "ftrace") else {
        out.extend_from_slice(b"UNKNOWN TYPE ");
        out::dec(out, common.id.into());
        return out.push(b'\n');
    };
    out.extend_from_slice(event.name().as_bytes());
    out.push(b':');
    for field in event.fields() {
        out.push(b' ');
        out.extend_from_slice(field.name.as_bytes());
        out.push(b'=');
        if number(field, record, event.target(), out).is_none() {
            fields::value(field, record, event.target(), out);
        }
    }
    out.push(b'\n');
}

/// A number in both bases; `None` for what is none.
fn number(field: &Field, record: &[u8], target: Target, out: &mut Vec<u8>) -> Option<()> {
    if !matches!(field.kind, Kind::Int | Kind::Bits { .. } | Kind::Pointer) {
        return None;
    }
    let value = field.int(record, target)?;
    // As wide as the field is: the sign does not go further.
    let bits = field.size.saturating_mul(8).clamp(8, 64);
    let unsigned = value & u64::MAX.checked_shr(64u32.saturating_sub(bits)).unwrap_or(u64::MAX);
    if field.size > 1 {
        out.extend_from_slice(b"0x");
        out::hex(out, unsigned);
        out.push(b' ');
    } else if let Ok(letter @ b' '..=b'~') = u8::try_from(unsigned) {
        out.extend_from_slice(&[b'\'', letter, b'\'']);
    }
    out.push(b'(');
    match (field.size, u32::try_from(unsigned)) {
        (4, Ok(unsigned)) => out::signed(out, unsigned.cast_signed().into()),
        (8, _) => out::signed(out, unsigned.cast_signed()),
        _ => out::dec(out, unsigned),
    }
    out.push(b')');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Columns, Sources};
    use crate::{Dialect, Formats, Strings, Symbols, Tasks};

    const COMMON: &str = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n";

    fn printed(style: Style, context: bool, record: &[u8]) -> Vec<u8> {
        let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
        let print = format!(
            "name: print\nID: 5\nformat:\n{COMMON}\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n\
             \tfield:char buf[];\toffset:16;\tsize:0;\tsigned:0;\n\nprint fmt: \"\"\n"
        );
        let signal = format!(
            "name: signal_generate\nID: 261\nformat:\n{COMMON}\tfield:int sig;\toffset:8;\tsize:4;\tsigned:1;\n\
             \tfield:int code;\toffset:12;\tsize:4;\tsigned:1;\n\tfield:char comm[8];\toffset:16;\tsize:8;\tsigned:0;\n\
             \tfield:void * at;\toffset:24;\tsize:8;\tsigned:0;\n\tfield:u16 port;\toffset:32;\tsize:2;\tsigned:0;\n\
             \tfield:bool fast;\toffset:34;\tsize:1;\tsigned:0;\n\nprint fmt: \"sig=%d\", REC->sig\n"
        );
        formats.add("ftrace", &print).unwrap();
        formats.add("signal", &signal).unwrap();
        let (tasks, symbols, strings) = (Tasks::default(), Symbols::default(), Strings::default());
        let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
        let mut out = Vec::new();
        let columns = Columns { style, context, ..Columns::default() };
        let entry = Entry { cpu: 1, time: 23_985_961_830_628, record };
        TraceText { sources, in_ns: true }.entry_of(columns, None, &entry, &mut out);
        out
    }

    fn signal() -> Vec<u8> {
        let mut record = vec![5, 1, 0, 1];
        record.extend_from_slice(&12943i32.to_le_bytes());
        record.extend_from_slice(&10i32.to_le_bytes());
        record.extend_from_slice(&(-6i32).to_le_bytes());
        record.extend_from_slice(b"bash\0\0\0\0");
        record.extend_from_slice(&0xffff_8886_27d2_7de8u64.to_le_bytes());
        record.extend_from_slice(&2048u16.to_le_bytes());
        record.push(1);
        record
    }

    fn marker() -> Vec<u8> {
        let mut record = vec![5, 0, 0, 1];
        record.extend_from_slice(&12947i32.to_le_bytes());
        record.extend_from_slice(&0xffff_ffff_8149_895au64.to_le_bytes());
        record.extend_from_slice(b"hello\n\0");
        record
    }

    #[test]
    fn lines_seen_on_a_kernel() {
        let text = |style, record: &[u8]| String::from_utf8(printed(style, true, record)).unwrap();
        assert_eq!(
            text(Style::Fields, &signal()),
            "           <...>-12943   [001] ....1 23985.961831: signal_generate: sig=0xa (10) code=0xfffffffa (-6) comm=bash \
             at=0xffff888627d27de8 (-131365201609240) port=0x800 (2048) fast=(1)\n"
                .replace("....1", "...1.")
        );
        assert!(text(Style::Fields, &marker()).ends_with(": UNKNOWN TYPE 5\n"));
        assert_eq!(text(Style::Raw, &signal()), "12943 1 23985961830628 type: 261\n");
        assert_eq!(text(Style::Raw, &marker()), "12947 1 23985961830628 # ffffffff8149895a hello\n");
        assert_eq!(text(Style::Hex, &signal()), "0000328f 00000001 000015d0aabc08e4 type: 261\n\n");
    }

    #[test]
    fn without_context_the_numbers_are_left_out() {
        assert_eq!(printed(Style::Raw, false, &signal()), b"type: 261\n");
        assert_eq!(printed(Style::Hex, false, &marker()), b"type: 5\n\n");
        assert!(printed(Style::Fields, false, &signal()).starts_with(b"signal_generate: sig=0xa (10) "));
    }

    #[test]
    fn binary_numbers_are_as_in_memory() {
        let bytes = printed(Style::Bin, true, &signal());
        assert_eq!(bytes[..16], [0x8f, 0x32, 0, 0, 1, 0, 0, 0, 0xe4, 8, 0xbc, 0xaa, 0xd0, 0x15, 0, 0]);
        assert_eq!(&bytes[16..], b"type: 261\n");
    }
}
