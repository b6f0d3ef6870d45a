//! What records are decoded with: the events of one machine, and what is known of its tasks and functions.

use super::FileArgs;
use crate::decode::TextLayout;
use anyhow::{Context, Result, bail};
use ringtap::tracefs::Tracefs;
use ringtap_format::header::{PageLayout, check_header_event};
use ringtap_format::text::Sources;
use ringtap_format::trace_dat::TraceDat;
use ringtap_format::{ByteOrder, Constants, Event, Formats, Strings, Symbols, Target, Tasks};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than `header_page` and `header_event` ever have.
const MAX_HEADER_LEN: usize = 1 << 16;

/// One machine's.
pub(super) struct Group {
    pub(super) layout: PageLayout,
    pub(super) formats: Formats,
    tasks: Tasks,
    symbols: Symbols,
    strings: Strings,
}

impl Group {
    pub(super) fn sources(&self) -> Sources<'_> {
        let Self { formats, tasks, symbols, strings, .. } = self;
        Sources { formats, tasks, symbols, strings }
    }

    pub(super) const fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    pub(super) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Of a trace.dat.
    ///
    /// # Errors
    /// One of the other files cannot be read.
    pub(super) fn of_trace_dat(
        path: &Path,
        trace: &TraceDat,
        args: &FileArgs,
        layout: TextLayout,
    ) -> Result<Self> {
        let mut constants = Constants::new();
        if let Some(btf) = &args.btf {
            define(btf, &mut constants)?;
        }
        let is_trace_cmd = layout == TextLayout::TraceCmd;
        let (formats, failed) = trace.events(layout.dialect(), is_trace_cmd, constants);
        for error in failed {
            warn(format_args!("{}: {error}; its events are unknown", path.display()));
        }
        let text = |path: &Option<PathBuf>, own: &[u8]| match path {
            Some(path) => read(path),
            None => Ok(own.to_vec()),
        };
        Ok(Self {
            layout: trace.layout,
            formats,
            tasks: Tasks::parse(&text(&args.tasks, &trace.tasks)?),
            symbols: Symbols::parse(&lossy(text(&args.symbols, trace.kallsyms.as_bytes())?)),
            strings: Strings::parse(&lossy(text(&args.strings, trace.printk_formats.as_bytes())?)),
        })
    }

    /// Of dumps: by the files that were named, or by the running kernel.
    ///
    /// # Errors
    /// There are no formats, or a file that was named cannot be read.
    pub(super) fn of_dumps(args: &FileArgs, layout: TextLayout) -> Result<Self> {
        let live = match &args.formats {
            Some(_) => None,
            None => Some(Tracefs::find().context(
                "a dump needs the formats of its events; give a copy of tracefs' folder `events` with --formats",
            )?),
        };
        let root = live.as_ref().map(|tracefs| tracefs.root().to_owned());
        let events = match (&args.formats, &root) {
            (Some(folder), _) => folder.clone(),
            (None, Some(root)) => root.join("events"),
            (None, None) => bail!("no formats; give --formats"),
        };
        let text = |named: &Option<PathBuf>, own: Option<PathBuf>| match (named, own) {
            (Some(path), _) => read(path),
            // What this kernel does not tell is missed in the text only.
            (None, Some(own)) => Ok(fs::read(own).unwrap_or_default()),
            (None, None) => Ok(Vec::new()),
        };
        let of_root = |name: &str| root.as_ref().map(|root| root.join(name));
        let (pages, mut formats) = read_events(&events, layout, Constants::new(), true)?;
        let own_btf = root.is_some().then(|| PathBuf::from("/sys/kernel/btf/vmlinux"));
        let is_kernel = layout != TextLayout::TraceCmd;
        if let Some(btf) = args.btf.clone().or(own_btf.filter(|btf| is_kernel && btf.exists())) {
            // Some events name constants whose values only the kernel's types tell.
            if formats.iter().any(|event: &Event| !event.unresolved().is_empty()) || args.btf.is_some() {
                let mut constants = Constants::new();
                define(&btf, &mut constants)?;
                (_, formats) = read_events(&events, layout, constants, false)?;
            }
        }
        let own_symbols = root.is_some().then(|| PathBuf::from("/proc/kallsyms"));
        Ok(Self {
            layout: pages,
            formats,
            tasks: Tasks::parse(&text(&args.tasks, of_root("saved_cmdlines"))?),
            symbols: Symbols::parse(&lossy(text(&args.symbols, own_symbols)?)),
            strings: Strings::parse(&lossy(text(&args.strings, of_root("printk_formats"))?)),
        })
    }
}

/// Reads the folder `events`: the layout of sub-buffers and each event's format.
fn read_events(
    folder: &Path,
    layout: TextLayout,
    constants: Constants,
    warns: bool,
) -> Result<(PageLayout, Formats)> {
    let remedy = || format!("{} is no whole copy of tracefs' folder `events`", folder.display());
    let header_page = lossy(read_at_once(&folder.join("header_page")).with_context(remedy)?);
    let header_event = lossy(read_at_once(&folder.join("header_event")).with_context(remedy)?);
    let pages = PageLayout::parse(&header_page, order())
        .and_then(|pages| check_header_event(&header_event).map(|()| pages))
        .with_context(|| format!("cannot use {}", folder.display()))?;
    let mut formats = Formats::new(pages.target, layout.dialect());
    *formats.constants_mut() = constants;
    if layout == TextLayout::TraceCmd {
        formats.use_plugins();
    }
    for system in folders(folder)? {
        for event in folders(&system)? {
            let path = event.join("format");
            let Ok(text) = fs::read(&path) else { continue };
            let name = system.file_name().unwrap_or_default().to_string_lossy();
            if let Err(error) = formats.add(&name, &lossy(text))
                && warns
            {
                let (line, expected, found) = (error.line, error.expected, &error.found);
                let path = path.display();
                warn(format_args!(
                    "{path}: line {line}: expected {expected}, found {found:?}; its events are unknown"
                ));
            }
        }
    }
    if formats.is_empty() {
        bail!("{}: it has no SYSTEM/EVENT/format", remedy());
    }
    Ok((pages, formats))
}

/// A dump does not tell its byte order; it is taken for this machine's.
const fn order() -> ByteOrder {
    Target::HOST.order
}

/// The folders in a folder, by name.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut found: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    Ok(found)
}

fn define(btf: &Path, constants: &mut Constants) -> Result<()> {
    let defined = ringtap_format::btf::define(&read(btf)?, constants);
    defined.with_context(|| format!("cannot use {}", btf.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// As [`read`], of a file that the kernel hands out to the first call only.
fn read_at_once(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![0; MAX_HEADER_LEN];
    let len = File::open(path).and_then(|mut file| file.read(&mut bytes));
    bytes.truncate(len.with_context(|| format!("cannot read {}", path.display()))?);
    Ok(bytes)
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

pub(super) fn warn(what: std::fmt::Arguments<'_>) {
    anstream::eprintln!("ringtap: {what}");
}
