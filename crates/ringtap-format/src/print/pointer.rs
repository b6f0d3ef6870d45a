//! The kernel's extensions of `%p`: symbols, network addresses, UUIDs, bit masks, bytes.

use super::Dialect;
use super::eval::{Evaluator, Stop};
use super::layout::{Layout, hex_bytes};
use super::mask::Mask;
use super::program::{Pointed, PointerFormat};
use crate::out::{self, Base, Digits};
use crate::target::{ByteOrder, Target, convert};

/// Prints what `value` points to, or the address itself.
pub(super) fn print(
    evaluator: &Evaluator<'_>,
    value: Pointed,
    how: PointerFormat,
    layout: Layout,
    out: &mut Vec<u8>,
) -> Result<(), Stop> {
    let start = out.len();
    match value {
        Pointed::Address(id) => {
            let long = evaluator.target.long_size;
            let address = convert(evaluator.int(id)?, long, false);
            number(evaluator, address, how, layout, out);
        }
        Pointed::Memory(id) => {
            let bytes = evaluator.memory(id)?;
            let printed = memory(evaluator, bytes, how, layout, out);
            if printed.is_none() {
                return Err(Stop::Index);
            }
        }
    }
    let widened = !matches!(how, PointerFormat::Bits { .. } | PointerFormat::HexBytes { .. });
    if widened {
        out::widen(out, start, layout.width, layout.spec.left);
    }
    Ok(())
}

fn number(evaluator: &Evaluator<'_>, address: u64, how: PointerFormat, layout: Layout, out: &mut Vec<u8>) {
    let symbols = evaluator.context.symbols;
    match (how, layout.dialect) {
        (PointerFormat::Symbol, _) => symbols.print(address, false, layout.dialect, out),
        (PointerFormat::SymbolOffset { backtrace: false }, _) => {
            symbols.print(address, true, layout.dialect, out)
        }
        (PointerFormat::SymbolOffset { backtrace: true }, Dialect::TraceCmd) => {
            symbols.print(address, true, layout.dialect, out);
        }
        // A return address may be the first of the next function: the call stands before it.
        (PointerFormat::SymbolOffset { backtrace: true }, Dialect::Kernel) => {
            symbols.print_return(address, out);
        }
        (PointerFormat::Error, _) => match errno_name(address) {
            Some(name) => {
                out.push(b'-');
                out.extend_from_slice(name);
            }
            None => plain(evaluator, address, layout, out),
        },
        _ => plain(evaluator, address, layout, out),
    }
}

/// The address itself: all its digits in the kernel's text, as the C library writes it in trace-cmd's.
fn plain(evaluator: &Evaluator<'_>, address: u64, layout: Layout, out: &mut Vec<u8>) {
    match layout.dialect {
        Dialect::Kernel => {
            let digits = usize::from(evaluator.target.long_size).saturating_mul(2);
            out::hex_wide(out, address, digits);
        }
        Dialect::TraceCmd if address == 0 => out.extend_from_slice(b"(nil)"),
        Dialect::TraceCmd => {
            let layout = Layout { precision: None, ..layout };
            layout.number(b"0x", Digits::new(address, Base::Hex).bytes(), out);
        }
    }
}

/// `None` where there are fewer bytes than the format needs.
fn memory(
    evaluator: &Evaluator<'_>,
    bytes: &[u8],
    how: PointerFormat,
    layout: Layout,
    out: &mut Vec<u8>,
) -> Option<()> {
    let target = evaluator.target;
    match how {
        PointerFormat::Ipv4 { zeros, reversed } => ipv4(*bytes.first_chunk()?, zeros, reversed, out),
        PointerFormat::Ipv6 { colons, compressed } => ipv6(*bytes.first_chunk()?, colons, compressed, out),
        PointerFormat::Socket { compressed, port, flow, scope } => {
            return socket(bytes, target, SocketParts { compressed, port, flow, scope }, out);
        }
        PointerFormat::Mac { separator, reversed } => {
            let mut mac: [u8; 6] = *bytes.first_chunk()?;
            if reversed {
                mac.reverse();
            }
            hex_bytes(&mac, separator, out);
        }
        PointerFormat::Uuid { upper, little } => uuid(*bytes.first_chunk()?, upper, little, out),
        PointerFormat::Bits { list } => {
            let mask = Mask::new(bytes, target);
            let bits = if layout.width == 0 { mask.bits() } else { layout.width };
            if list { mask.list(bits, out) } else { mask.hex(bits, out) }
        }
        PointerFormat::HexBytes { separator } => {
            // The kernel prints one byte where no length is given and never more than 64.
            let len = layout.width.clamp(1, 64);
            hex_bytes(bytes.get(..len)?, separator, out);
        }
        PointerFormat::Escaped => {
            let len = if layout.width == 0 { bytes.len() } else { layout.width };
            escaped(bytes.get(..len)?, out);
        }
        PointerFormat::ByReference => {
            out.extend_from_slice(b"0x");
            let size = target.long_size;
            out::hex_wide(out, target.uint(bytes, 0, size)?, usize::from(size).saturating_mul(2));
        }
        PointerFormat::FourCc => four_cc(u32::try_from(target.uint(bytes, 0, 4)?).ok()?, out),
        // The address of bytes in the record has no meaning outside the kernel.
        PointerFormat::Address
        | PointerFormat::Symbol
        | PointerFormat::SymbolOffset { .. }
        | PointerFormat::Error
        | PointerFormat::Unknown => return None,
    }
    Some(())
}

fn ipv4(mut address: [u8; 4], zeros: bool, reversed: bool, out: &mut Vec<u8>) {
    if reversed {
        address.reverse();
    }
    for (place, byte) in address.iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        out::dec_wide(out, u64::from(*byte), if zeros { 3 } else { 1 }, b'0');
    }
}

fn ipv6(address: [u8; 16], colons: bool, compressed: bool, out: &mut Vec<u8>) {
    if compressed {
        return ipv6_compressed(address, out);
    }
    for (place, pair) in address.chunks_exact(2).enumerate() {
        if place > 0 && colons {
            out.push(b':');
        }
        hex_bytes(pair, None, out);
    }
}

/// RFC 5952, as the kernel does it: the first longest run of zero words becomes `::`, and mapped IPv4 addresses
/// (also of ISATAP) are written with dots.
fn ipv6_compressed(address: [u8; 16], out: &mut Vec<u8>) {
    let word = |pair: &[u8]| pair.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (front, back) = (address.get(..12).unwrap_or_default(), address.get(12..).unwrap_or_default());
    let mapped = front == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let isatap = matches!(front, [.., 0 | 2, 0, 0x5e, 0xfe]);
    let has_dots = mapped || isatap;
    let words = || address.chunks_exact(2).take(if has_dots { 6 } else { 8 }).map(word);
    let (run_start, run_len) = longest_zeros(words());
    let run_end = run_start.saturating_add(run_len);
    let mut needs_colon = false;
    for (place, word) in words().enumerate() {
        if run_len > 1 && place == run_start {
            out.extend_from_slice(if needs_colon || place == 0 { b"::" } else { b":" });
            needs_colon = false;
        }
        if run_len > 1 && (run_start..run_end).contains(&place) {
            continue;
        }
        if needs_colon {
            out.push(b':');
        }
        out::hex(out, word);
        needs_colon = true;
    }
    if has_dots {
        if needs_colon {
            out.push(b':');
        }
        if let Some(address) = back.first_chunk() {
            ipv4(*address, false, false, out);
        }
    }
}

/// Start and length of the first longest run of zeros.
fn longest_zeros(words: impl Iterator<Item = u64>) -> (usize, usize) {
    let (mut best, mut start, mut len) = ((0, 0), 0usize, 0usize);
    for (place, word) in words.enumerate() {
        if word != 0 {
            len = 0;
            continue;
        }
        if len == 0 {
            start = place;
        }
        len = len.saturating_add(1);
        if len > best.1 {
            best = (start, len);
        }
    }
    best
}

struct SocketParts {
    compressed: bool,
    port: bool,
    flow: bool,
    scope: bool,
}

/// A `struct sockaddr_in` or `sockaddr_in6`; its family stands in the writer's byte order, the rest in the network's.
fn socket(bytes: &[u8], target: Target, parts: SocketParts, out: &mut Vec<u8>) -> Option<()> {
    let network = Target { order: ByteOrder::Big, ..target };
    let port = network.uint(bytes, 2, 2);
    match target.uint(bytes, 0, 2)? {
        2 => {
            ipv4(*bytes.get(4..)?.first_chunk()?, false, false, out);
            if parts.port {
                out.push(b':');
                out::dec(out, port?);
            }
        }
        10 => {
            let address = *bytes.get(8..)?.first_chunk()?;
            let bracketed = parts.port || parts.flow || parts.scope;
            if bracketed {
                out.push(b'[');
            }
            ipv6(address, true, parts.compressed, out);
            if bracketed {
                out.push(b']');
            }
            if parts.port {
                out.push(b':');
                out::dec(out, port?);
            }
            if parts.flow {
                out.push(b'/');
                out::dec(out, network.uint(bytes, 4, 4)? & 0x0fff_ffff);
            }
            if parts.scope {
                out.push(b'%');
                out::dec(out, target.uint(bytes, 24, 4)?);
            }
        }
        _ => out.extend_from_slice(b"(einval)"),
    }
    Some(())
}

fn uuid(bytes: [u8; 16], upper: bool, little: bool, out: &mut Vec<u8>) {
    const BIG: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const LITTLE: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    for (place, from) in (if little { LITTLE } else { BIG }).into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out::hex_byte(out, bytes.get(from).copied().unwrap_or(0), upper);
    }
}

/// `%pE` without letters: what is not printable becomes an escape of C, or `\` and three octal digits.
fn escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        let escape: &[u8] = match byte {
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            11 => b"\\v",
            12 => b"\\f",
            b'\\' => b"\\\\",
            7 => b"\\a",
            27 => b"\\e",
            0 => b"\\0",
            printable if (32..127).contains(printable) => {
                out.push(*printable);
                continue;
            }
            other => {
                out.push(b'\\');
                let digits = Digits::new(u64::from(*other), Base::Oct);
                out::pad(out, b'0', 3usize.saturating_sub(digits.bytes().len()));
                out.extend_from_slice(digits.bytes());
                continue;
            }
        };
        out.extend_from_slice(escape);
    }
}

/// `%p4cc`: the characters, the byte order, the number.
fn four_cc(code: u32, out: &mut Vec<u8>) {
    let value = code & 0x7fff_ffff;
    out.extend(
        value.to_le_bytes().map(|byte| if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'.' }),
    );
    out.extend_from_slice(if code & 0x8000_0000 == 0 { b" little-endian (0x" } else { b" big-endian (0x" });
    out::hex_wide(out, u64::from(code), 8);
    out.push(b')');
}

/// The name of a pointer that is really an error number.
fn errno_name(address: u64) -> Option<&'static [u8]> {
    const NAMES: [&[u8]; 41] = [
        b"",
        b"EPERM",
        b"ENOENT",
        b"ESRCH",
        b"EINTR",
        b"EIO",
        b"ENXIO",
        b"E2BIG",
        b"ENOEXEC",
        b"EBADF",
        b"ECHILD",
        b"EAGAIN",
        b"ENOMEM",
        b"EACCES",
        b"EFAULT",
        b"ENOTBLK",
        b"EBUSY",
        b"EEXIST",
        b"EXDEV",
        b"ENODEV",
        b"ENOTDIR",
        b"EISDIR",
        b"EINVAL",
        b"ENFILE",
        b"EMFILE",
        b"ENOTTY",
        b"ETXTBSY",
        b"EFBIG",
        b"ENOSPC",
        b"ESPIPE",
        b"EROFS",
        b"EMLINK",
        b"EPIPE",
        b"EDOM",
        b"ERANGE",
        b"EDEADLK",
        b"ENAMETOOLONG",
        b"ENOLCK",
        b"ENOSYS",
        b"ENOTEMPTY",
        b"ELOOP",
    ];
    let number = usize::try_from(address.wrapping_neg()).ok()?;
    NAMES.get(number).copied().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn compressed(address: &str) -> String {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        text(|out| ipv6(address.octets(), true, true, out))
    }

    #[test]
    fn ipv6_is_compressed_as_rfc_5952_says() {
        for address in
            ["::", "::1", "1::", "fe80::1:2", "2001:db8:0:1:1:1:1:1", "1:0:0:2::3", "::ffff:1.2.3.4"]
        {
            assert_eq!(compressed(address), address);
        }
        assert_eq!(compressed("1:0:0:0:2:0:0:3"), "1::2:0:0:3");
        assert_eq!(
            compressed("fe80::5efe:10.0.0.1"),
            "fe80::5efe:10.0.0.1".replace("5efe", "0:5efe").replace("::0:", "::")
        );
    }

    #[test]
    fn sockets() {
        let all = || SocketParts { compressed: true, port: true, flow: true, scope: true };
        let v4 = [2, 0, 0, 80, 127, 0, 0, 1];
        assert_eq!(text(|out| socket(&v4, Target::LE64, all(), out).unwrap()), "127.0.0.1:80");
        let mut v6 = [0; 28];
        v6[0] = 10;
        v6[2..4].copy_from_slice(&443u16.to_be_bytes());
        v6[23] = 1;
        v6[24] = 3;
        assert_eq!(text(|out| socket(&v6, Target::LE64, all(), out).unwrap()), "[::1]:443/0%3");
        assert_eq!(text(|out| socket(&[9, 0], Target::LE64, all(), out).unwrap()), "(einval)");
        assert!(socket(&v4[..6], Target::LE64, all(), &mut Vec::new()).is_none());
    }

    #[test]
    fn uuids_of_both_orders() {
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xaf];
        assert_eq!(text(|out| uuid(bytes, false, false, out)), "00010203-0405-0607-0809-0a0b0c0d0eaf");
        assert_eq!(text(|out| uuid(bytes, true, true, out)), "03020100-0504-0706-0809-0A0B0C0D0EAF");
    }

    #[test]
    fn escapes() {
        assert_eq!(text(|out| escaped(b"a\n\\\x01\xff\0", out)), r"a\n\\\001\377\0");
    }

    #[test]
    fn error_names() {
        assert_eq!(errno_name((-22i64).cast_unsigned()), Some(&b"EINVAL"[..]));
        assert_eq!(errno_name(0), None);
        assert_eq!(errno_name(5), None);
    }
}
