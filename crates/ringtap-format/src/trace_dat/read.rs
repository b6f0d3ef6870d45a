//! The descriptions of a trace.dat: what stands before, between and behind its sub-buffers.

use super::compression::Compression;
use super::raw::{COMPRESSED, MAGIC, SECTION_HEADER_LEN, option};
use super::source::{ReadAt, read_full};
use super::{Buffer, Clock, CpuData, TraceDat, TraceDatError, TscToNs};
use crate::header::PageLayout;
use crate::target::{ByteOrder, Target};
use std::collections::BTreeSet;

/// Most systems, events or CPUs that a file may claim.
const MAX_COUNT: u64 = 1 << 16;
/// Most bytes of a section of descriptions, and of all that stands before the data of a version 6.
const MAX_SECTION: u64 = 1 << 29;
/// First guess at how long the descriptions of a version 6 are.
const START_LEN: u64 = 1 << 22;
/// Most rows of options.
const MAX_ROWS: usize = 1 << 10;
/// Longest header of a file.
const MAX_HEADER: usize = 1 << 10;

/// Reads the descriptions of any version.
pub(super) fn open(source: &impl ReadAt) -> Result<TraceDat, TraceDatError> {
    let len = source.size().map_err(|error| TraceDatError::io(0, &error))?;
    let mut start = vec![0; MAX_HEADER];
    let got = read_full(source, &mut start, 0).map_err(|error| TraceDatError::io(0, &error))?;
    start.truncate(got);
    let mut reader = Reader::new(&start, 0, Target::LE64);
    reader.tag(MAGIC, "the magic bytes of trace.dat")?;
    match reader.name("the version")? {
        "6" => open_6(source, len),
        "7" => {
            let target = reader.machine()?;
            reader.number(4, "the page size")?;
            let place = reader.place();
            let name = reader.name("the compression's name")?;
            let compression = Compression::from_name(name).ok_or(TraceDatError::Expected {
                offset: place,
                expected: "a compression: none, zstd or zlib",
            })?;
            reader.name("the compression's version")?;
            let first = reader.number(8, "the place of the options")?;
            Sections { source, len, target, compression }.read(first)
        }
        _ => {
            let offset = u64::try_from(MAGIC.len()).unwrap_or(0);
            Err(TraceDatError::Expected { offset, expected: "version 6 or 7" })
        }
    }
}

/// Version 6: one stretch of descriptions, whose length nobody tells.
fn open_6(source: &impl ReadAt, len: u64) -> Result<TraceDat, TraceDatError> {
    let (mut bytes, mut wanted) = (Vec::new(), START_LEN);
    loop {
        let size = wanted.min(len);
        bytes.resize(usize::try_from(size).unwrap_or(0), 0);
        let got = read_full(source, &mut bytes, 0).map_err(|error| TraceDatError::io(0, &error))?;
        bytes.truncate(got);
        match parse_6(source, &bytes, len) {
            Err(error) if error.is_end() && size < len.min(MAX_SECTION) => {
                wanted = wanted.saturating_mul(4).min(MAX_SECTION);
            }
            parsed => return parsed,
        }
    }
}

fn parse_6(source: &impl ReadAt, bytes: &[u8], len: u64) -> Result<TraceDat, TraceDatError> {
    let mut reader = Reader::new(bytes, 0, Target::LE64);
    reader.tag(MAGIC, "the magic bytes of trace.dat")?;
    reader.tag(b"6\0", "version 6")?;
    reader.target = reader.machine()?;
    let target = reader.target;
    reader.number(4, "the page size")?;
    let layout = reader.header_info(target)?;
    let mut file = TraceDat::new(6, layout);
    reader.ftrace_formats(&mut file)?;
    reader.system_formats(&mut file)?;
    file.kallsyms = reader.text(4, "kallsyms")?;
    file.printk_formats = reader.text(4, "printk_formats")?;
    file.tasks = reader.sized(8, "saved_cmdlines")?.to_vec();
    let cpus = reader.count("the number of CPUs")?;
    let mut instances = Vec::new();
    match reader.tag(b"options  \0", "options") {
        Ok(()) => loop {
            let id = reader.number(2, "an option")?;
            if id == u64::from(option::DONE) {
                break;
            }
            let size = reader.number(4, "an option")?;
            let place = reader.place();
            let mut data = Reader::new(reader.take(size, "an option")?, place, target);
            if id == u64::from(option::BUFFER) {
                let start = data.number(8, "the place of a buffer")?;
                instances.push((start, data.name("a buffer's name")?.to_owned()));
            } else {
                file.option(id, data);
            }
        },
        // There may be none.
        Err(TraceDatError::Expected { .. }) => {}
        Err(end) => return Err(end),
    }
    let clock = file.clock_name().to_owned();
    let spans = reader.spans(cpus, len, &mut file.complaints)?;
    file.buffers.push(Buffer { name: String::new(), clock: clock.clone(), layout, cpus: spans });
    for (start, name) in instances {
        match instance_6(source, (start, cpus, len), target, &mut file.complaints) {
            Ok(cpus) => file.buffers.push(Buffer { name, clock: clock.clone(), layout, cpus }),
            Err(error) => file.complaints.push(error),
        }
    }
    Ok(file)
}

/// The CPUs of a buffer that is not the first.
fn instance_6(
    source: &impl ReadAt,
    (start, cpus, len): (u64, u64, u64),
    target: Target,
    complaints: &mut Vec<TraceDatError>,
) -> Result<Vec<CpuData>, TraceDatError> {
    let size = cpus.saturating_mul(16).saturating_add(16);
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let got = read_full(source, &mut bytes, start).map_err(|error| TraceDatError::io(start, &error))?;
    bytes.truncate(got);
    Reader::new(&bytes, start, target).spans(cpus, len, complaints)
}

/// Version 7: sections, found by rows of options.
struct Sections<'s, R> {
    source: &'s R,
    len: u64,
    target: Target,
    compression: Compression,
}

/// An option: its id, the place of its data, and these.
type Opt = (u16, u64, Vec<u8>);

/// A section's bytes, unpacked.
struct Section {
    bytes: Vec<u8>,
    /// Where the bytes start in the file, or where they were unpacked from.
    place: u64,
}

impl<R: ReadAt> Sections<'_, R> {
    fn read(&self, first: u64) -> Result<TraceDat, TraceDatError> {
        let (options, mut complaints) = self.options(first);
        let place_of = |id: u16| {
            let found = options.iter().rev().find(|(found, ..)| *found == id);
            found
                .map(|(_, place, data)| Reader::new(data, *place, self.target).number(8, "a section's place"))
        };
        let Some(header) = place_of(option::HEADER_INFO) else {
            // Without it no record can be told from the next.
            let missing = TraceDatError::Expected { offset: first, expected: "an option HEADER_INFO" };
            return Err(complaints.into_iter().next().unwrap_or(missing));
        };
        let header = self.section(header?, option::HEADER_INFO)?;
        let layout = Reader::new(&header.bytes, header.place, self.target).header_info(self.target)?;
        let mut file = TraceDat::new(7, layout);
        file.compression = self.compression;
        for id in
            [option::FTRACE_EVENTS, option::EVENT_FORMATS, option::KALLSYMS, option::PRINTK, option::CMDLINES]
        {
            let section = match place_of(id) {
                None => continue,
                Some(place) => place.and_then(|place| self.section(place, id)),
            };
            let described = section.and_then(|section| self.describe(&mut file, id, &section));
            complaints.extend(described.err());
        }
        for (id, place, data) in &options {
            let data = Reader::new(data, *place, self.target);
            if *id == option::BUFFER {
                match self.buffer(data, layout, &mut complaints) {
                    Ok(buffer) => file.buffers.push(buffer),
                    Err(error) => complaints.push(error),
                }
            } else {
                file.option(u64::from(*id), data);
            }
        }
        file.complaints.append(&mut complaints);
        Ok(file)
    }

    /// All options, each with the place of its data; and what stands in the way of more.
    fn options(&self, first: u64) -> (Vec<Opt>, Vec<TraceDatError>) {
        let (mut options, mut complaints) = (Vec::new(), Vec::new());
        let (mut seen, mut next) = (BTreeSet::new(), first);
        // The first is always there; 0 ends the chain.
        while seen.len() < MAX_ROWS && (next != 0 || seen.is_empty()) {
            if !seen.insert(next) {
                complaints
                    .push(TraceDatError::Expected { offset: next, expected: "options that come but once" });
                break;
            }
            match self.section(next, option::DONE).and_then(|row| self.row(&row, &mut options)) {
                Ok(follows) => next = follows,
                Err(error) => {
                    complaints.push(error);
                    break;
                }
            }
        }
        (options, complaints)
    }

    /// The options of a section, and the place of the next.
    fn row(&self, row: &Section, options: &mut Vec<Opt>) -> Result<u64, TraceDatError> {
        let mut reader = Reader::new(&row.bytes, row.place, self.target);
        while !reader.is_done() {
            let id = u16::try_from(reader.number(2, "an option")?).unwrap_or(0);
            let size = reader.number(4, "an option's length")?;
            let place = reader.place();
            let data = reader.take(size, "an option")?;
            if id == option::DONE {
                return Reader::new(data, place, self.target).number(8, "the place of the next options");
            }
            options.push((id, place, data.to_vec()));
        }
        Ok(0)
    }

    /// The section at `place`.
    fn section(&self, place: u64, id: u16) -> Result<Section, TraceDatError> {
        let head = self.bytes(place, SECTION_HEADER_LEN, "a section's header")?;
        let mut reader = Reader::new(&head, place, self.target);
        if reader.number(2, "a section's id")? != u64::from(id) {
            return Err(TraceDatError::Expected { offset: place, expected: "a section of another kind" });
        }
        let flags = reader.number(2, "a section's flags")?;
        reader.number(4, "a section's description")?;
        let size = reader.number(8, "a section's length")?;
        let start = place.saturating_add(SECTION_HEADER_LEN);
        let body = self.bytes(start, size, "a section")?;
        if flags & u64::from(COMPRESSED) == 0 {
            return Ok(Section { bytes: body, place: start });
        }
        let mut reader = Reader::new(&body, start, self.target);
        let packed_len = reader.number(4, "the length of what is compressed")?;
        let len = reader.number(4, "the length of what was compressed")?;
        let offset = reader.place();
        if len > MAX_SECTION {
            return Err(TraceDatError::Expected { offset, expected: "a smaller section" });
        }
        let packed = reader.take(packed_len, "what is compressed")?;
        let mut bytes = Vec::new();
        let unpacked = self.compression.unpack(packed, len, &mut bytes);
        unpacked.map_err(|error| TraceDatError::Compressed { offset, error: error.to_string() })?;
        Ok(Section { bytes, place: start })
    }

    fn bytes(&self, place: u64, len: u64, expected: &'static str) -> Result<Vec<u8>, TraceDatError> {
        let end = TraceDatError::End { offset: place, expected, len };
        // Before any memory is taken.
        if place.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(end);
        }
        if len > MAX_SECTION {
            return Err(TraceDatError::Expected { offset: place, expected: "a smaller section" });
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| end.clone())?];
        let got = read_full(self.source, &mut bytes, place);
        match got.map_err(|error| TraceDatError::io(place, &error))? {
            got if got == bytes.len() => Ok(bytes),
            _ => Err(end),
        }
    }

    fn describe(&self, file: &mut TraceDat, id: u16, section: &Section) -> Result<(), TraceDatError> {
        let mut reader = Reader::new(&section.bytes, section.place, self.target);
        match id {
            option::FTRACE_EVENTS => reader.ftrace_formats(file)?,
            option::EVENT_FORMATS => reader.system_formats(file)?,
            option::KALLSYMS => file.kallsyms = reader.text(4, "kallsyms")?,
            option::PRINTK => file.printk_formats = reader.text(4, "printk_formats")?,
            _ => file.tasks = reader.sized(8, "saved_cmdlines")?.to_vec(),
        }
        Ok(())
    }

    fn buffer(
        &self,
        mut data: Reader<'_>,
        layout: PageLayout,
        complaints: &mut Vec<TraceDatError>,
    ) -> Result<Buffer, TraceDatError> {
        let section = data.number(8, "the place of a buffer's section")?;
        let name = data.name("a buffer's name")?.to_owned();
        let clock = data.name("a buffer's clock")?.to_owned();
        let place = data.place();
        let page_size = data.number(4, "a buffer's page size")?;
        let layout = u32::try_from(page_size).ok().and_then(|size| layout.with_size(size));
        let layout =
            layout.ok_or(TraceDatError::Expected { offset: place, expected: "a page size that can be" })?;
        let count = data.count("the number of a buffer's CPUs")?;
        let head = self.bytes(section, SECTION_HEADER_LEN, "a buffer's section")?;
        let flags = Reader::new(&head, section, self.target).flags();
        let compression =
            if flags & u64::from(COMPRESSED) == 0 { Compression::None } else { self.compression };
        let mut cpus = Vec::new();
        for _ in 0..count {
            let cpu = u32::try_from(data.number(4, "a CPU")?).unwrap_or(u32::MAX);
            let start = data.number(8, "the place of a CPU's data")?;
            let size = data.number(8, "the length of a CPU's data")?;
            cpus.push(CpuData::new(cpu, start, size, self.len, compression, complaints));
        }
        Ok(Buffer { name, clock, layout, cpus })
    }
}

impl TraceDat {
    fn new(version: u8, layout: PageLayout) -> Self {
        Self {
            version,
            layout,
            compression: Compression::None,
            formats: Vec::new(),
            kallsyms: String::new(),
            printk_formats: String::new(),
            tasks: Vec::new(),
            clocks: String::new(),
            uname: String::new(),
            writer: String::new(),
            cpu_stats: Vec::new(),
            clock: Clock::default(),
            buffers: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// Takes what a plain option tells; one that makes no sense tells nothing.
    fn option(&mut self, id: u64, mut data: Reader<'_>) {
        let text = || String::from_utf8_lossy(crate::out::until_nul(data.bytes)).trim().to_owned();
        match u16::try_from(id).unwrap_or(u16::MAX) {
            option::DATE => self.clock.add(number(&text()).saturating_mul(1000)),
            option::OFFSET => self.clock.add(number(&text())),
            option::CPUSTAT => self.cpu_stats.push(text()),
            option::TRACECLOCK => self.clocks = text(),
            option::UNAME => self.uname = text(),
            option::VERSION => self.writer = text(),
            option::TSC2NSEC => {
                let mut next = |size| data.number(size, "a conversion").ok();
                if let (Some(mult), Some(shift), Some(offset)) = (next(4), next(4), next(8)) {
                    let (mult, shift) = (u32::try_from(mult).unwrap_or(0), u32::try_from(shift).unwrap_or(0));
                    self.clock.tsc = (mult != 0).then_some(TscToNs { mult, shift, offset });
                }
            }
            _ => {}
        }
    }

    /// The clock in brackets, of those that the option lists.
    pub(super) fn clock_name(&self) -> &str {
        let chosen = self.clocks.split_ascii_whitespace().find_map(|name| name.strip_prefix('['));
        chosen.and_then(|name| name.strip_suffix(']')).unwrap_or("local")
    }
}

/// A number as C reads it: decimal, or hexadecimal behind 0x.
fn number(text: &str) -> i64 {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1i64, rest));
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    parsed.unwrap_or(0).saturating_mul(sign)
}

impl CpuData {
    /// Data that may claim to go on behind the file's end.
    fn new(
        cpu: u32,
        start: u64,
        size: u64,
        len: u64,
        compression: Compression,
        complaints: &mut Vec<TraceDatError>,
    ) -> Self {
        // What is compressed is counted without the number of its chunks.
        let uncounted = if compression == Compression::None || size == 0 { 0 } else { 4 };
        let end = start.saturating_add(size).saturating_add(uncounted);
        let there = start.min(len)..end.min(len);
        let missing = end.saturating_sub(there.end.max(start));
        if missing > 0 {
            complaints.push(TraceDatError::Missing { offset: there.end, cpu, len: missing });
        }
        Self { cpu, span: there, compression }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the bytes start in the file.
    base: u64,
    target: Target,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], base: u64, target: Target) -> Self {
        Self { bytes, at: 0, base, target }
    }

    fn place(&self) -> u64 {
        self.base.saturating_add(u64::try_from(self.at).unwrap_or(u64::MAX))
    }

    fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn expected(&self, expected: &'static str) -> TraceDatError {
        TraceDatError::Expected { offset: self.place(), expected }
    }

    fn take(&mut self, len: u64, expected: &'static str) -> Result<&'a [u8], TraceDatError> {
        let wanted = usize::try_from(len).ok();
        let found = wanted.and_then(|len| self.bytes.get(self.at..)?.get(..len));
        let found = found.ok_or(TraceDatError::End { offset: self.place(), expected, len })?;
        self.at = self.at.saturating_add(found.len());
        Ok(found)
    }

    fn tag(&mut self, tag: &[u8], expected: &'static str) -> Result<(), TraceDatError> {
        match self.bytes.get(self.at..) {
            Some(rest) if rest.starts_with(tag) => {
                self.at = self.at.saturating_add(tag.len());
                Ok(())
            }
            Some(rest) if tag.starts_with(rest) => {
                let len = u64::try_from(tag.len()).unwrap_or(u64::MAX);
                Err(TraceDatError::End { offset: self.place(), expected, len })
            }
            _ => Err(self.expected(expected)),
        }
    }

    fn number(&mut self, size: u8, expected: &'static str) -> Result<u64, TraceDatError> {
        let bytes = self.take(u64::from(size), expected)?;
        Ok(self.target.uint(bytes, 0, size).unwrap_or(0))
    }

    /// The flags of a section whose header this is.
    fn flags(&self) -> u64 {
        self.target.uint(self.bytes, 2, 2).unwrap_or(0)
    }

    fn count(&mut self, expected: &'static str) -> Result<u64, TraceDatError> {
        let place = self.place();
        let count = self.number(4, expected)?;
        if count > MAX_COUNT {
            return Err(TraceDatError::Expected { offset: place, expected: "a smaller number of entries" });
        }
        Ok(count)
    }

    fn machine(&mut self) -> Result<Target, TraceDatError> {
        let order = match self.take(1, "the byte order")? {
            [0] => ByteOrder::Little,
            [1] => ByteOrder::Big,
            _ => return Err(self.expected("byte order 0 or 1")),
        };
        let long_size = match self.take(1, "the word size")? {
            [4] => 4,
            [8] => 8,
            _ => return Err(self.expected("a word size of 4 or 8")),
        };
        self.target = Target { order, long_size };
        Ok(self.target)
    }

    /// Bytes with their length before them, a number of `size` bytes.
    fn sized(&mut self, size: u8, expected: &'static str) -> Result<&'a [u8], TraceDatError> {
        let len = self.number(size, expected)?;
        self.take(len, expected)
    }

    /// As [`sized`](Self::sized), as text. Names of symbols and the like are not worth failing for.
    fn text(&mut self, size: u8, expected: &'static str) -> Result<String, TraceDatError> {
        Ok(String::from_utf8_lossy(self.sized(size, expected)?).into_owned())
    }

    /// A name and its NUL.
    fn name(&mut self, expected: &'static str) -> Result<&'a str, TraceDatError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let name = crate::out::until_nul(rest);
        if name.len() == rest.len() {
            return Err(TraceDatError::End { offset: self.place(), expected, len: 1 });
        }
        let name = std::str::from_utf8(name).map_err(|_| self.expected("a name in UTF-8"))?;
        self.at = self.at.saturating_add(name.len()).saturating_add(1);
        Ok(name)
    }

    fn header_info(&mut self, target: Target) -> Result<PageLayout, TraceDatError> {
        self.tag(b"header_page\0", "header_page")?;
        let page = self.text(8, "header_page")?;
        self.tag(b"header_event\0", "header_event")?;
        self.text(8, "header_event")?;
        let mut layout = PageLayout::parse(&page, target.order)?;
        layout.target.long_size = target.long_size;
        Ok(layout)
    }

    fn ftrace_formats(&mut self, file: &mut TraceDat) -> Result<(), TraceDatError> {
        for _ in 0..self.count("the number of ftrace's formats")? {
            let format = self.text(8, "a format of ftrace")?;
            file.formats.push(("ftrace".to_owned(), format));
        }
        Ok(())
    }

    fn system_formats(&mut self, file: &mut TraceDat) -> Result<(), TraceDatError> {
        for _ in 0..self.count("the number of systems")? {
            let system = self.name("a system's name")?;
            for _ in 0..self.count("the number of a system's formats")? {
                let format = self.text(8, "a format")?;
                file.formats.push((system.to_owned(), format));
            }
        }
        Ok(())
    }

    /// The places of all CPUs' data, of a buffer of version 6.
    fn spans(
        &mut self,
        cpus: u64,
        len: u64,
        complaints: &mut Vec<TraceDatError>,
    ) -> Result<Vec<CpuData>, TraceDatError> {
        self.tag(b"flyrecord\0", "flyrecord")?;
        let mut spans = Vec::new();
        for cpu in 0..u32::try_from(cpus).unwrap_or(0) {
            let start = self.number(8, "the place of a CPU's data")?;
            let size = self.number(8, "the length of a CPU's data")?;
            spans.push(CpuData::new(cpu, start, size, len, Compression::None, complaints));
        }
        Ok(spans)
    }
}
