//! The kernel's own entries, of the system `ftrace`: their text in the `trace` file is made by code, not by their
//! `print fmt`.

use super::Sources;
use crate::event::Event;
use crate::out;
use crate::print::Dialect;

/// Appends the text of an entry of ftrace; false where it has none of its own.
pub(super) fn print(event: &Event, record: &[u8], sources: &Sources<'_>, out: &mut Vec<u8>) -> bool {
    if event.system() != "ftrace" {
        return false;
    }
    let printed = match event.name() {
        "print" => marker(event, record, sources, out),
        "raw_data" => raw(event, record, out),
        "function" => function(event, record, sources, out),
        "kernel_stack" | "user_stack" => stack(event, record, sources, out),
        _ => None,
    };
    printed.is_some()
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
