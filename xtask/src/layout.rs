//! The shared memory's offsets, as a text file under version control.

use anyhow::{Context, Result, bail};
use ringtap_abi::Geometry;
use ringtap_abi::clock::ClockWords;
use ringtap_abi::control::Header;
use ringtap_abi::meta::{
    ChainWords, Desc, HostWords, Identity, KernelMeta, MetaPage, Switches, VERSION, WakeWords, WriterWords,
};
use ringtap_abi::subbuf::SubbufHeader;
use ringtap_abi::switchboard::{self, CpuWords, Entry, FormatHead, Head, Task};
use std::fmt::Write;
use std::path::Path;

/// Prints a struct's size and its fields' offsets.
macro_rules! fields {
    ($text:ident, $type:ident { $($field:ident),* $(,)? }) => {{
        writeln!($text, "\n{} ({} bytes, aligned to {})", stringify!($type), size_of::<$type>(), align_of::<$type>())?;
        $(writeln!($text, "{:6}  {}", std::mem::offset_of!($type, $field), stringify!($field))?;)*
    }};
}

fn text() -> Result<String> {
    let mut text = format!("Made by `cargo xtask layout` from ringtap-abi. Layout version {VERSION}.\n");
    fields!(text, MetaPage { kernel, identity, switches, writer, wake, host, clock, chain });
    fields!(
        text,
        KernelMeta {
            meta_page_size,
            meta_struct_len,
            subbuf_size,
            nr_subbufs,
            reader_lost_events,
            reader_id,
            reader_read,
            flags,
            entries,
            overrun,
            read,
            pages_lost,
            pages_touched,
        }
    );
    fields!(text, Identity { magic, version, cpu, writer_kind });
    fields!(text, Switches { state, wake_any, wake_at });
    fields!(text, WriterWords { tail, lock, dropped, refused, counter });
    fields!(text, WakeWords { wakes });
    fields!(text, HostWords { reader, next_index, base_index, read, read_bytes, kicks, origin });
    fields!(text, ClockWords { id });
    fields!(text, ChainWords { rank, is_first, overrun, read, dropped, refused, next, is_given_up });
    fields!(text, Desc { w, stamp, first });
    fields!(text, SubbufHeader { time_stamp, commit });
    fields!(text, Header { kind, cpu, value });
    fields!(text, Head { magic, version, generation, host_id, formats_len, settings, new_events });
    fields!(text, Entry { epoch, name_len, name, buffer_percent, lineage });
    fields!(text, CpuWords { unheard, newest, made });
    fields!(text, Task { ids, comm });
    fields!(text, FormatHead { len, id });
    writeln!(text, "\nswitchboard ({} bytes, version {})", switchboard::LEN, switchboard::VERSION)?;
    for (offset, part) in [
        (switchboard::INSTANCES_OFFSET, "instances"),
        (switchboard::TASKS_OFFSET, "tasks"),
        (switchboard::WORDS_OFFSET, "words"),
        (switchboard::SETTINGS_OFFSET, "settings"),
        (switchboard::RULES_OFFSET, "rules"),
        (switchboard::CPUS_OFFSET, "cpus"),
        (switchboard::FORMATS_OFFSET, "formats"),
    ] {
        writeln!(text, "{offset:8}  {part}")?;
    }
    writeln!(text, "\nsub-buffer size  ring  slots at  descs at  meta_struct_len  meta_page_size  mapping")?;
    for (size, ring) in [(4096, 2), (4096, 354), (16_384, 88), (65_536, 1024), (524_288, 65_535)] {
        let geometry = Geometry::new(size, ring)?;
        writeln!(
            text,
            "{size:15}  {ring:4}  {:8}  {:8}  {:15}  {:14}  {}",
            geometry.slots_offset(),
            geometry.descs_offset(),
            geometry.meta_struct_len(),
            geometry.meta_page_size(),
            geometry.map_len(),
        )?;
    }
    Ok(text)
}

/// Writes the file, or compares it.
pub(crate) fn run(check: bool) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("layout.txt");
    let text = text()?;
    if !check {
        return std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()));
    }
    let written =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    if written != text {
        bail!(
            "the shared memory's layout changed: run `cargo xtask layout`, look at the difference, and raise VERSION"
        );
    }
    Ok(())
}
