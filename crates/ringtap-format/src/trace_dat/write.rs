//! Writes a trace.dat while it is recorded: at each moment the file is whole.
//!
//! ```text
//!   head     descriptions, and the table: where each CPU's data lie, and how long they are
//!   slots    two, for descriptions that are learnt while recording: one is valid, the next go to the other
//!   lane 0   room for the first CPU's sub-buffers; what is not written takes no space on the disk
//!   lane 1   ...
//!   far      descriptions that became too long for a slot
//! ```
//! Sub-buffers are appended to their lane, then the table is written anew, in place, by one call: whatever ends
//! the program, the table tells what was there before. In the end the lanes are moved together, each by a
//! copy behind which the table is written anew. Version 6 has no slots: its head is written again, and has room
//! to grow.
//!
//! Nothing here writes: the functions say which bytes belong where, in which order.

use super::compression::Compression;
use super::raw::{COMPRESSED, MAGIC, SECTION_HEADER_LEN, option};
use super::{Clock, TscToNs};
use crate::target::{ByteOrder, Target};

/// Data begin at a multiple of this, and each lane.
const ALIGN: u64 = 1 << 16;
/// Room behind the head of version 6, for descriptions that are learnt later.
const GROWTH_6: u64 = 1 << 20;
/// Room in a slot of version 7.
const GROWTH_7: u64 = 1 << 14;

/// What a file says besides the sub-buffers.
#[derive(Clone, Debug, Default)]
pub struct Descriptions {
    /// The text of `events/header_page`.
    pub header_page: String,
    /// The text of `events/header_event`.
    pub header_event: String,
    /// Formats of the kernel's internal events.
    pub ftrace_formats: Vec<String>,
    /// All other formats, each with its system.
    pub formats: Vec<(String, String)>,
    /// `/proc/kallsyms`
    pub kallsyms: String,
    /// `printk_formats`
    pub printk_formats: String,
    /// `saved_cmdlines`
    pub tasks: Vec<u8>,
    /// The clocks as `trace_clock` shows them, the chosen one in brackets.
    pub clocks: String,
    /// The machine's system and release.
    pub uname: String,
    /// The version of the program that writes.
    pub writer: String,
    /// The CPUs' counters, as text.
    pub cpu_stats: Vec<String>,
    /// How the times become nanoseconds.
    pub clock: Clock,
    /// A number that tells traces apart.
    pub trace_id: u64,
}

/// A buffer to be written.
#[derive(Clone, Debug)]
pub struct BufferPlan {
    /// Its name; empty for the main one, which comes first.
    pub name: String,
    /// The name of its clock.
    pub clock: String,
    /// Its CPUs.
    pub cpus: Vec<u32>,
}

/// How a file is written.
#[derive(Clone, Debug)]
pub struct FilePlan {
    /// 6 or 7.
    pub version: u8,
    /// The machine whose sub-buffers these are.
    pub target: Target,
    /// Bytes of a sub-buffer.
    pub page_size: u32,
    /// How the sub-buffers are compressed; version 6 cannot.
    pub compression: Compression,
    /// Bytes between the lanes: the most that one CPU can have. A multiple of 64 KiB.
    pub lane_size: u64,
    /// The buffers.
    pub buffers: Vec<BufferPlan>,
}

/// Bytes and where in the file they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// Data that belong elsewhere in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The lane.
    pub lane: usize,
    /// Where its data are.
    pub from: u64,
    /// Where they belong.
    pub to: u64,
    /// How many bytes.
    pub len: u64,
}

/// Data cannot be written as planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The version cannot do this.
    #[error("trace.dat: {0}")]
    Impossible(&'static str),
    /// There is no lane of this number, or it has no room left.
    #[error("trace.dat: no room left for the data of a CPU; begin another file")]
    Full,
}

#[derive(Clone, Debug)]
struct Lane {
    buffer: usize,
    cpu: u32,
    start: u64,
    /// Bytes written, the number of chunks included.
    len: u64,
    chunks: u32,
}

/// A file being written: knows where everything goes.
#[derive(Clone, Debug)]
pub struct TraceDatWriter {
    plan: FilePlan,
    lanes: Vec<Lane>,
    /// Where the table starts; it never moves in version 7.
    table_at: u64,
    data_at: u64,
    /// Where the slots start, and the length of one.
    slots: (u64, u64),
    /// Which slot is valid.
    slot: u64,
    /// Where the next descriptions go that no slot holds.
    far_at: u64,
    /// The valid descriptions are far.
    is_far: bool,
    /// The row of options that the late descriptions are found by.
    late_row: u64,
    /// The descriptions of version 6, whose head is written as one.
    head: Descriptions,
}

impl TraceDatWriter {
    /// A file of these descriptions, and its head, to be written first.
    ///
    /// # Errors
    /// The version cannot hold this.
    pub fn new(plan: FilePlan, head: Descriptions) -> Result<(Self, Piece), WriteError> {
        match plan.version {
            6 if plan.compression != Compression::None => {
                return Err(WriteError::Impossible("version 6 cannot be compressed; write version 7"));
            }
            6 | 7 => {}
            _ => return Err(WriteError::Impossible("there are versions 6 and 7")),
        }
        let buffers = plan.buffers.iter().enumerate();
        let lanes = buffers.flat_map(|(buffer, described)| {
            described.cpus.iter().map(move |&cpu| Lane { buffer, cpu, start: 0, len: 0, chunks: 0 })
        });
        let lanes = lanes.collect();
        let mut writer = Self {
            plan,
            lanes,
            table_at: 0,
            data_at: 0,
            slots: (0, 0),
            slot: 0,
            far_at: 0,
            is_far: false,
            late_row: 0,
            head,
        };
        let bytes = if writer.plan.version == 6 { writer.start_6() } else { writer.start_7() };
        Ok((writer, Piece { offset: 0, bytes }))
    }

    /// The number of the lane of a buffer's CPU.
    #[must_use]
    pub fn lane(&self, buffer: usize, cpu: u32) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.buffer == buffer && lane.cpu == cpu)
    }

    /// Where the next `len` bytes of a lane go, which must be whole sub-buffers, or one chunk of them.
    ///
    /// # Errors
    /// [`WriteError::Full`].
    pub fn place(&self, lane: usize, len: u64) -> Result<u64, WriteError> {
        let lane = self.lanes.get(lane).ok_or(WriteError::Full)?;
        // In front of the first chunk stands their number.
        let written = if self.is_packed() { lane.len.max(4) } else { lane.len };
        match written.checked_add(len) {
            Some(end) if end <= self.plan.lane_size => Ok(lane.start.saturating_add(written)),
            _ => Err(WriteError::Full),
        }
    }

    /// Notes that `len` bytes were written to a lane's [`place`](Self::place). They count once what
    /// [`table`](Self::table) tells is written.
    pub fn added(&mut self, lane: usize, len: u64) {
        let is_packed = self.is_packed();
        if let Some(lane) = self.lanes.get_mut(lane) {
            let written = if is_packed { lane.len.max(4) } else { lane.len };
            lane.len = written.saturating_add(len);
            lane.chunks = lane.chunks.saturating_add(1);
        }
    }

    /// A chunk of sub-buffers, compressed: what [`place`](Self::place) and [`added`](Self::added) count then.
    ///
    /// # Errors
    /// The compression fails.
    pub fn chunk(&self, pages: &[u8], level: i32, out: &mut Vec<u8>) -> std::io::Result<()> {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        self.plan.compression.pack(pages, level, out)?;
        let packed = out.len().saturating_sub(start).saturating_sub(8);
        let mut lengths = self.encoder();
        for len in [packed, pages.len()] {
            lengths.u32(u32::try_from(len).map_err(std::io::Error::other)?);
        }
        if let Some(place) = out.get_mut(start..start.saturating_add(8)) {
            place.copy_from_slice(&lengths.bytes);
        }
        Ok(())
    }

    /// Bytes written to all lanes.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.len).fold(0, u64::saturating_add)
    }

    /// What makes all that was added count, to be written in this order.
    #[must_use]
    pub fn table(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.is_packed() {
            for lane in self.lanes.iter().filter(|lane| lane.len > 0) {
                let mut chunks = self.encoder();
                chunks.u32(lane.chunks);
                pieces.push(Piece { offset: lane.start, bytes: chunks.bytes });
            }
        }
        if self.plan.version == 6 {
            pieces.push(Piece { offset: self.table_at, bytes: self.tables_6() });
        } else {
            pieces.push(Piece { offset: self.table_at, bytes: self.table_7() });
        }
        pieces
    }

    /// Descriptions that were learnt while recording, in the place of those before: formats of events, tasks,
    /// counters and the clock. To be written in this order; all other bytes of the file stay as they are.
    ///
    /// # Errors
    /// Version 6 has no room for so many.
    pub fn describe(&mut self, late: &Descriptions) -> Result<Vec<Piece>, WriteError> {
        if self.plan.version == 6 {
            let head = Descriptions {
                formats: late.formats.clone(),
                tasks: late.tasks.clone(),
                cpu_stats: late.cpu_stats.clone(),
                clock: late.clock,
                ..std::mem::take(&mut self.head)
            };
            self.head = head;
            let (bytes, table_at) = self.head_6();
            if u64::try_from(bytes.len()).map_or(true, |len| len > self.data_at) {
                return Err(WriteError::Impossible("too many events were learnt; write version 7"));
            }
            self.table_at = table_at;
            return Ok(vec![Piece { offset: 0, bytes }]);
        }
        let (start, slot_len) = self.slots;
        let other = self.slot ^ 1;
        let mut offset = start.saturating_add(other.saturating_mul(slot_len));
        let (mut bytes, mut row) = self.late_7(late, offset);
        self.is_far = len_of(&bytes) > slot_len;
        if self.is_far {
            offset = self.far_at;
            (bytes, row) = self.late_7(late, offset);
            self.far_at = offset.saturating_add(len_of(&bytes));
        } else {
            self.slot = other;
        }
        self.late_row = row;
        let mut pieces = vec![Piece { offset, bytes }];
        pieces.extend(self.table());
        Ok(pieces)
    }

    /// The lanes that can be moved towards the start. After each move [`moved`](Self::moved) is told, and the
    /// [`table`](Self::table) written.
    #[must_use]
    pub fn moves(&self) -> Vec<Move> {
        let align = u64::from(self.plan.page_size).max(4096);
        let (mut moves, mut end) = (Vec::new(), self.data_at);
        for (place, lane) in self.lanes.iter().enumerate().filter(|(_, lane)| lane.len > 0) {
            let to = end.checked_next_multiple_of(align).unwrap_or(end);
            // What overlaps cannot be moved in a way that another end of the program survives.
            let is_free = to.saturating_add(lane.len) <= lane.start;
            if is_free {
                moves.push(Move { lane: place, from: lane.start, to, len: lane.len });
            }
            end = if is_free { to } else { lane.start }.saturating_add(lane.len);
        }
        moves
    }

    /// Notes that a lane's data were moved. No more can be added to it.
    pub fn moved(&mut self, moved: Move) {
        if let Some(lane) = self.lanes.get_mut(moved.lane) {
            lane.start = moved.to;
        }
    }

    /// Nothing can be added to the lanes any more: descriptions that no slot holds follow right behind the data.
    pub fn settle(&mut self) {
        self.far_at = self.data_end();
    }

    /// The end of all data, behind which the last descriptions go.
    #[must_use]
    pub fn data_end(&self) -> u64 {
        let ends =
            self.lanes.iter().filter(|lane| lane.len > 0).map(|lane| lane.start.saturating_add(lane.len));
        // Sub-buffers may be shorter in the file than they count: nothing stands behind them.
        ends.fold(self.data_at, u64::max)
    }

    /// The file's length, once all pieces are written.
    #[must_use]
    pub fn end(&self) -> u64 {
        if self.is_far { self.far_at } else { self.data_end() }
    }

    pub(super) fn is_packed(&self) -> bool {
        self.plan.compression != Compression::None
    }

    fn encoder(&self) -> Encoder {
        Encoder { bytes: Vec::new(), order: self.plan.target.order }
    }

    #[cfg(test)]
    pub(super) fn order(&self) -> ByteOrder {
        self.plan.target.order
    }

    /// Gives each lane its place behind the head.
    fn arrange(&mut self, head_len: u64) {
        let align = ALIGN.max(u64::from(self.plan.page_size));
        self.data_at = head_len.checked_next_multiple_of(align).unwrap_or(head_len);
        let mut start = self.data_at;
        for lane in &mut self.lanes {
            lane.start = start;
            start = start.saturating_add(self.plan.lane_size);
        }
        self.far_at = start;
    }

    fn header(&self) -> Encoder {
        let mut out = self.encoder();
        out.raw(MAGIC);
        out.raw(if self.plan.version == 6 { b"6\0" } else { b"7\0" });
        out.raw(&[u8::from(self.plan.target.order == ByteOrder::Big), self.plan.target.long_size]);
        out.u32(self.plan.page_size);
        out
    }

    fn start_6(&mut self) -> Vec<u8> {
        // Twice, since the places of the data follow from the length.
        let len = len_of(&self.head_6().0);
        self.arrange(len.saturating_add(GROWTH_6));
        let (bytes, table_at) = self.head_6();
        self.table_at = table_at;
        bytes
    }

    /// CPUs of version 6, which counts them from 0.
    fn cpus_6(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.cpu.saturating_add(1)).max().unwrap_or(0)
    }

    /// The head of version 6, and where its tables start.
    fn head_6(&self) -> (Vec<u8>, u64) {
        let head = &self.head;
        let mut out = self.header();
        out.header_info(head);
        out.ftrace_formats(&head.ftrace_formats);
        out.system_formats(&head.formats);
        out.sized_u32(head.kallsyms.as_bytes());
        out.sized_u32(head.printk_formats.as_bytes());
        out.sized_u64(&head.tasks);
        out.u32(self.cpus_6());
        out.raw(b"options  \0");
        self.plain_options(head, &mut out);
        self.learnt_options(head, &mut out);
        let names: usize = self.plan.buffers.iter().skip(1).map(|buffer| buffer.name.len()).sum();
        let others = self.plan.buffers.len().saturating_sub(1);
        // Each: id, length, place, name and its NUL; then the end.
        let options = others.saturating_mul(2 + 4 + 8 + 1).saturating_add(names).saturating_add(2);
        let table_at = len_of(&out.bytes).saturating_add(u64::try_from(options).unwrap_or(0));
        for (place, buffer) in (1u64..).zip(self.plan.buffers.iter().skip(1)) {
            let mut data = self.encoder();
            data.u64(table_at.saturating_add(place.saturating_mul(self.table_len_6())));
            data.name(&buffer.name);
            out.option(option::BUFFER, &data.bytes);
        }
        out.u16(option::DONE);
        out.raw(&self.tables_6());
        (out.bytes, table_at)
    }

    fn table_len_6(&self) -> u64 {
        u64::from(self.cpus_6()).saturating_mul(16).saturating_add(10)
    }

    fn tables_6(&self) -> Vec<u8> {
        let mut out = self.encoder();
        for buffer in 0..self.plan.buffers.len() {
            out.raw(b"flyrecord\0");
            for cpu in 0..self.cpus_6() {
                let lane = self.lane(buffer, cpu).and_then(|lane| self.lanes.get(lane));
                let lane = lane.filter(|lane| lane.len > 0);
                out.u64(lane.map_or(self.data_at, |lane| lane.start));
                out.u64(lane.map_or(0, |lane| lane.len));
            }
        }
        out.bytes
    }

    fn start_7(&mut self) -> Vec<u8> {
        let mut out = self.header();
        out.name(self.plan.compression.name());
        out.name(if self.is_packed() { "1" } else { "" });
        let options_at = out.bytes.len();
        out.u64(0);
        let mut row = self.encoder();
        let head = std::mem::take(&mut self.head);
        let mut section = |id: u16, write: &dyn Fn(&mut Encoder)| {
            let mut place = self.encoder();
            place.u64(len_of(&out.bytes));
            row.option(id, &place.bytes);
            let mut body = self.encoder();
            write(&mut body);
            out.section(id, 0, &body.bytes);
        };
        section(option::HEADER_INFO, &|body| body.header_info(&head));
        section(option::FTRACE_EVENTS, &|body| body.ftrace_formats(&head.ftrace_formats));
        section(option::KALLSYMS, &|body| body.sized_u32(head.kallsyms.as_bytes()));
        section(option::PRINTK, &|body| body.sized_u32(head.printk_formats.as_bytes()));
        self.plain_options(&head, &mut row);
        // The header names this row, and it the table, which lies right behind it.
        let row_at = len_of(&out.bytes);
        let mut place = self.encoder();
        place.u64(row_at);
        if let Some(field) = out.bytes.get_mut(options_at..options_at.saturating_add(8)) {
            field.copy_from_slice(&place.bytes);
        }
        let row_len = SECTION_HEADER_LEN.saturating_add(len_of(&row.bytes)).saturating_add(2 + 4 + 8);
        self.table_at = row_at.saturating_add(row_len);
        let mut next = self.encoder();
        next.u64(self.table_at);
        row.option(option::DONE, &next.bytes);
        out.section(option::DONE, 0, &row.bytes);
        let late_at = self.table_at.saturating_add(len_of(&self.table_7()));
        let (late, late_row) = self.late_7(&head, late_at);
        self.late_row = late_row;
        // Half as long again, and then some: tasks and events become more.
        let slot_len = len_of(&late).saturating_add(len_of(&late) >> 1).saturating_add(GROWTH_7);
        self.slots = (late_at, slot_len);
        self.arrange(late_at.saturating_add(slot_len.saturating_mul(2)));
        out.raw(&self.table_7());
        out.raw(&late);
        out.bytes
    }

    /// The row of options that tells where the data are, and the buffers' sections, whose data lie elsewhere.
    fn table_7(&self) -> Vec<u8> {
        let mut row = self.encoder();
        let sections_at = self.table_at.saturating_add(self.row_len_7());
        for (place, buffer) in self.plan.buffers.iter().enumerate() {
            let mut data = self.encoder();
            let before = u64::try_from(place).unwrap_or(0).saturating_mul(SECTION_HEADER_LEN);
            data.u64(sections_at.saturating_add(before));
            data.name(&buffer.name);
            data.name(&buffer.clock);
            data.u32(self.plan.page_size);
            let lanes = || self.lanes.iter().filter(|lane| lane.buffer == place);
            data.u32(u32::try_from(lanes().count()).unwrap_or(0));
            for lane in lanes() {
                data.u32(lane.cpu);
                // What is empty lies nowhere: readers compare the place with the file's end.
                data.u64(if lane.len == 0 { self.data_at } else { lane.start });
                data.u64(self.stated_len(lane));
            }
            row.option(option::BUFFER, &data.bytes);
        }
        let mut next = self.encoder();
        next.u64(self.late_row);
        row.option(option::DONE, &next.bytes);
        let mut out = self.encoder();
        out.section(option::DONE, 0, &row.bytes);
        for place in 0..self.plan.buffers.len() {
            let lanes = self.lanes.iter().filter(|lane| lane.buffer == place);
            let len = lanes.map(|lane| lane.len).fold(0, u64::saturating_add);
            out.section_header(option::BUFFER, if self.is_packed() { COMPRESSED } else { 0 }, len);
        }
        out.bytes
    }

    /// The length of a lane's data as the table tells it: without the number of chunks.
    fn stated_len(&self, lane: &Lane) -> u64 {
        if self.is_packed() { lane.len.saturating_sub(4) } else { lane.len }
    }

    fn row_len_7(&self) -> u64 {
        let buffers = self.plan.buffers.iter().map(|buffer| {
            let fixed = 2u64 + 4 + 8 + 4 + 4 + 2;
            let names = buffer.name.len().saturating_add(buffer.clock.len());
            let cpus = u64::try_from(buffer.cpus.len()).unwrap_or(0).saturating_mul(4 + 8 + 8);
            fixed.saturating_add(u64::try_from(names).unwrap_or(0)).saturating_add(cpus)
        });
        buffers.fold(SECTION_HEADER_LEN.saturating_add(2 + 4 + 8), u64::saturating_add)
    }

    /// The descriptions that may change, to stand at `at`, and the place of their row of options.
    fn late_7(&self, late: &Descriptions, at: u64) -> (Vec<u8>, u64) {
        let (mut out, mut row) = (self.encoder(), self.encoder());
        let mut section = |id: u16, write: &dyn Fn(&mut Encoder)| {
            let (mut place, mut body) = (self.encoder(), self.encoder());
            place.u64(at.saturating_add(len_of(&out.bytes)));
            row.option(id, &place.bytes);
            write(&mut body);
            out.section(id, 0, &body.bytes);
        };
        section(option::EVENT_FORMATS, &|body| body.system_formats(&late.formats));
        section(option::CMDLINES, &|body| body.sized_u64(&late.tasks));
        self.learnt_options(late, &mut row);
        let mut next = self.encoder();
        next.u64(0);
        row.option(option::DONE, &next.bytes);
        let row_at = at.saturating_add(len_of(&out.bytes));
        out.section(option::DONE, 0, &row.bytes);
        (out.bytes, row_at)
    }

    fn plain_options(&self, head: &Descriptions, row: &mut Encoder) {
        let text = |text: &str| format!("{text}\0").into_bytes();
        row.option(option::TRACECLOCK, &text(&head.clocks));
        row.option(option::UNAME, &text(&head.uname));
        row.option(option::VERSION, &text(&head.writer));
        let (mut id, mut cpus) = (self.encoder(), self.encoder());
        id.u64(head.trace_id);
        row.option(option::TRACEID, &id.bytes);
        cpus.u32(self.cpus_6());
        row.option(option::CPUCOUNT, &cpus.bytes);
    }

    fn learnt_options(&self, late: &Descriptions, row: &mut Encoder) {
        for stats in &late.cpu_stats {
            row.option(option::CPUSTAT, format!("{stats}\0").as_bytes());
        }
        if let Some(TscToNs { mult, shift, offset }) = late.clock.tsc {
            let mut data = self.encoder();
            data.u32(mult);
            data.u32(shift);
            data.u64(offset);
            row.option(option::TSC2NSEC, &data.bytes);
        }
        if late.clock.offset != 0 {
            row.option(option::OFFSET, format!("{}\0", late.clock.offset).as_bytes());
        }
    }
}

fn len_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Numbers in the file's byte order.
struct Encoder {
    bytes: Vec<u8>,
    order: ByteOrder,
}

impl Encoder {
    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn u16(&mut self, number: u16) {
        let bytes = match self.order {
            ByteOrder::Little => number.to_le_bytes(),
            ByteOrder::Big => number.to_be_bytes(),
        };
        self.raw(&bytes);
    }

    fn u32(&mut self, number: u32) {
        let bytes = match self.order {
            ByteOrder::Little => number.to_le_bytes(),
            ByteOrder::Big => number.to_be_bytes(),
        };
        self.raw(&bytes);
    }

    fn u64(&mut self, number: u64) {
        let bytes = match self.order {
            ByteOrder::Little => number.to_le_bytes(),
            ByteOrder::Big => number.to_be_bytes(),
        };
        self.raw(&bytes);
    }

    /// A name and its NUL; none of its own.
    fn name(&mut self, name: &str) {
        self.raw(crate::out::until_nul(name.as_bytes()));
        self.raw(&[0]);
    }

    fn sized_u32(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.u32(len);
        self.raw(bytes.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(bytes));
    }

    fn sized_u64(&mut self, bytes: &[u8]) {
        self.u64(len_of(bytes));
        self.raw(bytes);
    }

    fn option(&mut self, id: u16, data: &[u8]) {
        self.u16(id);
        self.sized_u32(data);
    }

    fn section_header(&mut self, id: u16, flags: u16, len: u64) {
        self.u16(id);
        self.u16(flags);
        self.u32(0);
        self.u64(len);
    }

    fn section(&mut self, id: u16, flags: u16, body: &[u8]) {
        self.section_header(id, flags, len_of(body));
        self.raw(body);
    }

    fn header_info(&mut self, head: &Descriptions) {
        self.raw(b"header_page\0");
        self.sized_u64(head.header_page.as_bytes());
        self.raw(b"header_event\0");
        self.sized_u64(head.header_event.as_bytes());
    }

    fn ftrace_formats(&mut self, formats: &[String]) {
        self.u32(u32::try_from(formats.len()).unwrap_or(0));
        for format in formats {
            self.sized_u64(format.as_bytes());
        }
    }

    fn system_formats(&mut self, formats: &[(String, String)]) {
        let mut systems: Vec<&str> = formats.iter().map(|(system, _)| system.as_str()).collect();
        systems.sort_unstable();
        systems.dedup();
        self.u32(u32::try_from(systems.len()).unwrap_or(0));
        for system in systems {
            let of_system = || formats.iter().filter(|(name, _)| name == system);
            self.name(system);
            self.u32(u32::try_from(of_system().count()).unwrap_or(0));
            for (_, format) in of_system() {
                self.sized_u64(format.as_bytes());
            }
        }
    }
}
