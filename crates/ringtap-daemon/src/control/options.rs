//! The trace options: switches of an instance, by the kernel's names.

use rustix::io::Errno;

/// One option.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) default: bool,
    /// Whether only the top instance has a file for it.
    pub(crate) top_only: bool,
}

const fn flag(name: &'static str, default: bool) -> Flag {
    Flag { name, default, top_only: false }
}

const fn top_flag(name: &'static str, default: bool) -> Flag {
    Flag { name, default, top_only: true }
}

/// All options, in the order of `trace_options`.
pub(crate) const FLAGS: &[Flag] = &[
    flag("print-parent", true),
    flag("sym-offset", false),
    flag("sym-addr", false),
    flag("verbose", false),
    flag("raw", false),
    flag("hex", false),
    flag("bin", false),
    flag("block", false),
    flag("fields", false),
    top_flag("trace_printk", true),
    flag("annotate", true),
    flag("userstacktrace", false),
    flag("sym-userobj", false),
    top_flag("printk-msg-only", false),
    flag("context-info", true),
    flag("latency-format", false),
    top_flag("record-cmd", true),
    flag("record-tgid", false),
    flag("overwrite", true),
    flag("disable_on_free", false),
    flag("irq-info", true),
    flag("markers", true),
    flag("event-fork", false),
    flag("trace_printk_dest", false),
    flag("copy_trace_marker", false),
    flag("pause-on-trace", false),
    flag("hash-ptr", true),
    flag("function-trace", true),
    flag("function-fork", false),
    flag("stacktrace", false),
    flag("test_nop_accept", false),
    flag("test_nop_refuse", false),
];

/// The bits of the options that something here asks for.
pub(crate) mod bit {
    use super::FLAGS;

    pub(crate) const ANNOTATE: u64 = of("annotate");
    pub(crate) const BIN: u64 = of("bin");
    pub(crate) const BLOCK: u64 = of("block");
    pub(crate) const CONTEXT_INFO: u64 = of("context-info");
    pub(crate) const COPY_TRACE_MARKER: u64 = of("copy_trace_marker");
    pub(crate) const DISABLE_ON_FREE: u64 = of("disable_on_free");
    pub(crate) const EVENT_FORK: u64 = of("event-fork");
    pub(crate) const FIELDS: u64 = of("fields");
    pub(crate) const HEX: u64 = of("hex");
    pub(crate) const IRQ_INFO: u64 = of("irq-info");
    pub(crate) const LATENCY_FORMAT: u64 = of("latency-format");
    pub(crate) const MARKERS: u64 = of("markers");
    pub(crate) const OVERWRITE: u64 = of("overwrite");
    pub(crate) const RAW: u64 = of("raw");
    pub(crate) const RECORD_TGID: u64 = of("record-tgid");
    pub(crate) const TEST_NOP_REFUSE: u64 = of("test_nop_refuse");
    pub(crate) const TRACE_PRINTK_DEST: u64 = of("trace_printk_dest");
    pub(crate) const VERBOSE: u64 = of("verbose");

    /// The bit of the option of this name, which there is.
    const fn of(name: &str) -> u64 {
        let mut place = 0;
        while !is(FLAGS[place].name.as_bytes(), name.as_bytes()) {
            place += 1;
        }
        1 << place
    }

    const fn is(one: &[u8], other: &[u8]) -> bool {
        let mut at = 0;
        while at < one.len() && at < other.len() && one[at] == other[at] {
            at += 1;
        }
        at == one.len() && at == other.len()
    }
}

/// The options that are on at first. `trace_printk_dest` is the top instance's.
pub(super) fn defaults(is_top: bool) -> u64 {
    let on = FLAGS.iter().enumerate().filter(|(_, flag)| flag.default);
    let on = on.fold(0, |bits, (place, _)| bits | 1 << place);
    if is_top { on | bit::TRACE_PRINTK_DEST } else { on }
}

/// The text of `trace_options`.
pub(super) fn text(bits: u64) -> Vec<u8> {
    let line = |(place, flag): (usize, &Flag)| {
        let no = if bits & 1 << place == 0 { "no" } else { "" };
        format!("{no}{}\n", flag.name)
    };
    FLAGS.iter().enumerate().map(line).collect::<String>().into_bytes()
}

/// Bytes that a write to `trace_options` may have.
const LINE: usize = 63;

/// What a write to `trace_options` asks for: the option's place, and whether it shall be on.
pub(super) fn parse(bytes: &[u8]) -> Result<(usize, bool), Errno> {
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::INVAL)?;
    if text.len() > LINE {
        return Err(Errno::INVAL);
    }
    let text = text.split('\0').next().unwrap_or_default().trim();
    let (name, on) = match text.strip_prefix("no") {
        Some(name) => (name, false),
        None => (text, true),
    };
    let place = FLAGS.iter().position(|flag| flag.name == name).ok_or(Errno::INVAL)?;
    Ok((place, on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_on_a_kernel() {
        assert_eq!(parse(b" irq-info \n").map(|(place, on)| (FLAGS[place].name, on)), Ok(("irq-info", true)));
        assert_eq!(parse(b"noverbose").map(|(place, on)| (FLAGS[place].name, on)), Ok(("verbose", false)));
        for bad in ["", "foo", "nofoo", "overwrit"] {
            assert_eq!(parse(bad.as_bytes()), Err(Errno::INVAL));
        }
        assert_eq!(parse(format!("{:64}", "raw").as_bytes()), Err(Errno::INVAL));
        let lines = String::from_utf8(text(defaults(true))).unwrap();
        assert!(lines.starts_with("print-parent\nnosym-offset\n") && lines.contains("\ntrace_printk_dest\n"));
        assert!(text(defaults(false)).windows(21).any(|line| line == b"\nnotrace_printk_dest\n"));
    }
}
