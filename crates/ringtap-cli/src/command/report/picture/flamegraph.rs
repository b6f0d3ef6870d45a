//! `--flamegraph OUT`: the stacks that were recorded, as a picture whose widths are how often.

use super::super::{FileArgs, What, visit};
use anyhow::{Context, Result, bail};
use ringtap_format::text::{Common, Sources};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Most different stacks; what else there is is counted as one.
const MAX_STACKS: usize = 1 << 18;

/// Draws the stacks; what was damaged.
///
/// # Errors
/// There are none, the picture cannot be written, or those of [`visit`].
pub(in crate::command::report) fn flamegraph(files: &FileArgs, out: &Path) -> Result<Option<String>> {
    let mut stacks: HashMap<String, u64> = HashMap::new();
    // The event before a stack on the same CPU is what the stack was taken for.
    let mut before: HashMap<(u32, u32), String> = HashMap::new();
    let damage = visit(
        files,
        |item| {
            let What::Record(record) = item.what else { return Ok(()) };
            let Some(event) = item.sources.formats.of_record(record) else { return Ok(()) };
            let place = (item.group, item.cpu);
            if !matches!((event.system(), event.name()), ("ftrace", "kernel_stack" | "user_stack")) {
                let name = before.entry(place).or_default();
                name.clear();
                name.push_str(event.name());
                return Ok(());
            }
            if let Some(stack) = stack(&item.sources, record, before.get(&place).map_or("", String::as_str)) {
                let stack = if stacks.len() < MAX_STACKS { stack } else { "others".to_owned() };
                *stacks.entry(stack).or_default() += 1;
            }
            Ok(())
        },
        |_, _| {},
    )?;
    if stacks.is_empty() {
        bail!(
            "there are no stacks in the trace; record with `trace-cmd record -T`, or the option `stacktrace`"
        );
    }
    let mut lines: Vec<String> = stacks.iter().map(|(stack, count)| format!("{stack} {count}")).collect();
    lines.sort_unstable();
    let shown = out.display();
    let file = File::create(out).with_context(|| format!("cannot make {shown}"))?;
    let mut options = inferno::flamegraph::Options::default();
    options.title = "Stacks".to_owned();
    options.count_name = "stacks".to_owned();
    let drawn =
        inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), BufWriter::new(file));
    drawn.with_context(|| format!("cannot draw {shown}"))?;
    Ok(damage)
}

/// The task, its functions from the outermost to the innermost, and the event; joined by semicolons.
fn stack(sources: &Sources<'_>, record: &[u8], before: &str) -> Option<String> {
    let event = sources.formats.of_record(record)?;
    let target = event.target();
    let start = usize::try_from(event.field("caller")?.offset).ok()?;
    let task = sources.tasks.name(Common::of(record, target).pid);
    let mut frames = vec![clean(&String::from_utf8_lossy(task))];
    let end = u64::MAX >> (64 - u32::from(target.long_size) * 8);
    let callers = record.get(start..)?.chunks_exact(usize::from(target.long_size));
    let addresses = callers.filter_map(|chunk| target.uint(chunk, 0, target.long_size));
    let mut inner: Vec<String> = addresses
        .take_while(|&address| address != end && address != 0)
        .map(|address| match sources.symbols.resolve(address) {
            Some(symbol) => clean(symbol.name),
            None => format!("{address:#x}"),
        })
        .collect();
    inner.reverse();
    frames.append(&mut inner);
    if !before.is_empty() {
        frames.push(clean(before));
    }
    Some(frames.join(";"))
}

/// A frame's name without what separates frames.
fn clean(name: &str) -> String {
    name.replace([';', ' ', '\n', '\r'], "_")
}
