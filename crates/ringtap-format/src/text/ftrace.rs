//! Entries whose text in the `trace` file is made by code of the kernel's, not by their `print fmt`: those of the
//! system `ftrace`, and the entry to and exit from each system call.

use super::Sources;
use crate::dialect::Dialect;
use crate::event::Event;
use crate::out;

/// An entry that the kernel's code prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByCode {
    Marker,
    RawMarker,
    /// `trace_printk`, also of a text without arguments.
    Packed,
    Function,
    Stack,
    SystemCall,
}

impl ByCode {
    /// Which one the event of this name is.
    pub(crate) fn of(system: &str, name: &str) -> Option<Self> {
        match (system, name) {
            ("ftrace", "print") => Some(Self::Marker),
            ("ftrace", "raw_data") => Some(Self::RawMarker),
            ("ftrace", "bprint" | "bputs") => Some(Self::Packed),
            ("ftrace", "function") => Some(Self::Function),
            ("ftrace", "kernel_stack" | "user_stack") => Some(Self::Stack),
            ("syscalls", _) => Some(Self::SystemCall),
            _ => None,
        }
    }
}

/// Appends the text of such an entry; false where it lacks a field.
pub(super) fn print(
    kind: ByCode,
    event: &Event,
    record: &[u8],
    sources: &Sources<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let printed = match kind {
        ByCode::Marker => marker(event, record, sources, out),
        ByCode::RawMarker => raw(event, record, out),
        // Its name does not stand before its text.
        ByCode::Packed => event.print(record, &sources.context(), out).ok(),
        ByCode::Function => function(event, record, sources, out),
        ByCode::Stack => stack(event, record, sources, out),
        ByCode::SystemCall => system_call(event, record, out),
    };
    if printed.is_none() {
        out.truncate(start);
    }
    printed.is_some()
}

/// `sys_read(fd: 3, buf: 0x7f..)` and `sys_read -> 0x20`
fn system_call(event: &Event, record: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let target = event.target();
    out.extend_from_slice(b"sys_");
    if let Some(name) = event.name().strip_prefix("sys_exit_") {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b" -> 0x");
        out::hex(out, event.field("ret")?.int(record, target)?);
        return Some(());
    }
    out.extend_from_slice(event.name().strip_prefix("sys_enter_")?.as_bytes());
    out.push(b'(');
    let arguments = event.fields().iter().filter(|field| field.name != "__syscall_nr");
    for (place, field) in arguments.enumerate() {
        if place > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b": ");
        let value = field.int(record, target)?;
        if value >= 10 {
            out.extend_from_slice(b"0x");
        }
        out::hex(out, value);
    }
    out.push(b')');
    Some(())
}

fn symbol(address: u64, sources: &Sources<'_>, out: &mut Vec<u8>) {
    sources.symbols.print(address, false, Dialect::Kernel, out);
}

/// `trace_marker` and `trace_printk`: who wrote it, and the text.
fn marker(event: &Event, record: &[u8], sources: &Sources<'_>, out: &mut Vec<u8>) -> Option<()> {
    let target = event.target();
    let ip = event.field("ip")?.int(record, target)?;
    let text = event.field("buf")?.bytes(record, target)?;
    // Every write to trace_marker has the same address; without symbols the name is known all the same.
    match sources.symbols.resolve(ip) {
        Some(_) => symbol(ip, sources, out),
        None => out.extend_from_slice(b"tracing_mark_write"),
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(out::until_nul(text));
    Some(())
}

fn raw(event: &Event, record: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let target = event.target();
    out.extend_from_slice(b"# ");
    out::hex(out, event.field("id")?.int(record, target)?);
    out.extend_from_slice(b" buf:");
    for byte in event.field("buf")?.bytes(record, target)? {
        out.push(b' ');
        out::hex_byte(out, *byte, false);
    }
    Some(())
}

fn function(event: &Event, record: &[u8], sources: &Sources<'_>, out: &mut Vec<u8>) -> Option<()> {
    let target = event.target();
    symbol(event.field("ip")?.int(record, target)?, sources, out);
    out.extend_from_slice(b" <-");
    symbol(event.field("parent_ip")?.int(record, target)?, sources, out);
    Some(())
}

/// Return addresses up to the end of the record, or up to one with all bits set.
fn stack(event: &Event, record: &[u8], sources: &Sources<'_>, out: &mut Vec<u8>) -> Option<()> {
    let target = event.target();
    let field = event.field("caller")?;
    let callers = record.get(usize::try_from(field.offset).ok()?..)?;
    let is_user = event.name() == "user_stack";
    out.extend_from_slice(if is_user { b"<user stack trace>" } else { b"<stack trace>" });
    let end = u64::MAX.wrapping_shr(64u32.wrapping_sub(u32::from(target.long_size).wrapping_mul(8)));
    for chunk in callers.chunks_exact(usize::from(target.long_size).max(1)) {
        let address = target.uint(chunk, 0, target.long_size)?;
        if address == end || (is_user && address == 0) {
            break;
        }
        out.extend_from_slice(b"\n => ");
        if is_user {
            out.extend_from_slice(b" <");
            out::hex_wide(out, address, usize::from(target.long_size).saturating_mul(2));
            out.push(b'>');
        } else {
            symbol(address, sources, out);
        }
    }
    Some(())
}
