//! `--timeline OUT`: what each CPU ran and what its threads were at, from left to right.
//!
//! The files are read twice: for the range of time and the busiest threads, then to draw. What is narrower than half
//! a point is drawn together with its neighbours, so a picture's size is bounded by its own width.

use super::super::{FileArgs, Item, What, visit};
use super::axis::Axis;
use super::svg::{Place, Svg, colour};
use anyhow::{Context, Result, bail};
use ringtap_format::model::{Meaning, Model, Role, Track};
use ringtap_format::text::{Common, Entry};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

const LEFT: f64 = 170.0;
const WIDTH: f64 = 1200.0;
const TOP: f64 = 34.0;
/// Height of a row, and of what is drawn in it.
const ROW: f64 = 19.0;
const BAR: f64 = 16.0;
/// Most threads that have rows of their own: those with the most spans.
const MAX_THREADS: usize = 40;
/// Most threads that are counted to find those.
const MAX_COUNTED: usize = 1 << 16;
/// Most spans in one another that are drawn.
const MAX_DEPTH: usize = 6;
/// What is narrower is drawn together with its neighbours.
const DUST: f64 = 0.5;
const DUST_COLOUR: &str = "#9a9a9a";
const LOSS_COLOUR: &str = "#d01c1c";

/// Draws the time line; what was damaged.
///
/// # Errors
/// There is nothing to draw, the picture cannot be written, or those of [`visit`].
pub(in crate::command::report) fn timeline(files: &FileArgs, out: &Path) -> Result<Option<String>> {
    files.check_output(out)?;
    let mut survey = Survey::default();
    let damage = read(files, |item| survey.add(item))?;
    let Some((first, last)) = survey.range else { bail!("there is nothing to draw: no event is left") };
    let axis = Axis { first, last, left: LEFT, width: WIDTH };
    let mut drawing = Drawing::new(axis, survey);
    read(files, |item| drawing.add(item))?;
    let picture = drawing.finish();
    fs::write(out, picture).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(damage)
}

fn read(files: &FileArgs, mut each: impl FnMut(&Item<'_>)) -> Result<Option<String>> {
    let item = |item: &Item<'_>| {
        each(item);
        Ok(())
    };
    visit(files, item, |_, _| {})
}

/// What there is to draw.
#[derive(Default)]
struct Survey {
    range: Option<(u64, u64)>,
    /// CPUs, and whether their switches are known.
    cpus: BTreeMap<u32, bool>,
    model: Model,
    /// Spans and depth of each track.
    tracks: HashMap<Track, Busy>,
    depths: Depths,
}

#[derive(Clone, Copy, Debug, Default)]
struct Busy {
    spans: u64,
    depth: usize,
}

/// How many spans are open on each track.
#[derive(Debug, Default)]
struct Depths(HashMap<Track, usize>);

impl Depths {
    /// Follows what an event means; the depth that its span begins or ends at.
    fn follow(&mut self, meaning: &Meaning<'_>) -> Option<usize> {
        let depth = self.0.entry(meaning.track).or_default();
        *depth = depth.saturating_sub(meaning.unended);
        match meaning.role {
            Role::Begin => {
                *depth += 1;
                Some(*depth - 1)
            }
            Role::End => {
                *depth = depth.saturating_sub(1);
                Some(*depth)
            }
            _ => None,
        }
    }
}

/// What an item means, where it is a record of a known event.
fn understand<'a>(model: &'a mut Model, item: &Item<'a>) -> Option<Meaning<'a>> {
    let What::Record(record) = item.what else { return None };
    let common = Common::of(record, item.sources.formats.target());
    let entry = Entry { cpu: item.cpu, time: item.time, record };
    model.event(item.group, &entry, common, item.sources.formats)
}

impl Survey {
    fn add(&mut self, item: &Item<'_>) {
        let (first, last) = self.range.unwrap_or((item.time, item.time));
        self.range = Some((first.min(item.time), last.max(item.time)));
        let switches = self.cpus.entry(item.cpu).or_default();
        if matches!(item.what, What::Lost(_)) {
            return self.model.lost();
        }
        let Some(meaning) = understand(&mut self.model, item) else { return };
        *switches |= meaning.role == Role::Switch;
        if let Some(depth) = self.depths.follow(&meaning)
            && meaning.role == Role::Begin
            && (self.tracks.len() < MAX_COUNTED || self.tracks.contains_key(&meaning.track))
        {
            let busy = self.tracks.entry(meaning.track).or_default();
            busy.spans += 1;
            busy.depth = busy.depth.max(depth + 1).min(MAX_DEPTH);
        }
    }
}

/// A row's bars, of which the narrow ones are drawn together.
#[derive(Debug, Default)]
struct Row {
    y: f64,
    dust: Option<(f64, f64)>,
}

impl Row {
    fn bar(&mut self, svg: &mut Svg, (from, to): (f64, f64), number: u64, label: &str, about: &str) {
        if to - from >= DUST {
            self.settle(svg);
            let place = Place { x: from, y: self.y, width: to - from, height: BAR };
            return svg.rectangle(place, &colour(number), label, about);
        }
        match &mut self.dust {
            Some((_, end)) if from - *end < DUST => *end = to.max(*end),
            _ => {
                self.settle(svg);
                self.dust = Some((from, to));
            }
        }
    }

    fn settle(&mut self, svg: &mut Svg) {
        if let Some((from, to)) = self.dust.take() {
            let place = Place { x: from, y: self.y, width: (to - from).max(DUST), height: BAR };
            svg.rectangle(place, DUST_COLOUR, "", "many, too short to be told apart");
        }
    }
}

/// What a CPU runs: since when, whom, by what name.
type Running = (u64, i32, String);

/// The picture as it grows.
struct Drawing {
    axis: Axis,
    svg: Svg,
    model: Model,
    cpus: BTreeMap<u32, (Row, Option<Running>)>,
    /// A row for each depth of each track that is drawn.
    tracks: BTreeMap<Track, Vec<Row>>,
    names: HashMap<Track, String>,
    /// Since when, and by what name, spans are open.
    open: BTreeMap<Track, Vec<(u64, String)>>,
    /// Where losses were drawn last.
    lost_at: f64,
    height: f64,
}

impl Drawing {
    fn new(axis: Axis, survey: Survey) -> Self {
        let mut height = TOP;
        let mut row = |rows: usize| {
            let y = height;
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let added = ROW * rows as f64;
            height += added;
            y
        };
        let switched = survey.cpus.iter().filter(|(_, switches)| **switches);
        let cpus = switched.map(|(&cpu, _)| (cpu, (Row { y: row(1), dust: None }, None))).collect();
        let mut busiest: Vec<_> = survey.tracks.into_iter().collect();
        let key = |track: &Track| match *track {
            Track::Cpu(cpu) => (0, i64::from(cpu)),
            Track::Thread(tid) => (1, i64::from(tid)),
        };
        busiest.sort_by_key(|(track, busy)| (std::cmp::Reverse(busy.spans), key(track)));
        busiest.truncate(MAX_THREADS);
        busiest.sort_by_key(|(track, _)| key(track));
        let tracks = busiest.into_iter().map(|(track, busy)| {
            let first = row(busy.depth);
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let rows = (0..busy.depth).map(|depth| Row { y: first + ROW * depth as f64, dust: None });
            (track, rows.collect())
        });
        let tracks = tracks.collect();
        let mut drawing = Self {
            axis,
            svg: Svg::default(),
            model: Model::new(),
            cpus,
            tracks,
            names: HashMap::new(),
            open: BTreeMap::new(),
            lost_at: f64::NEG_INFINITY,
            height: height + ROW / 2.0,
        };
        drawing.scale();
        drawing
    }

    fn scale(&mut self) {
        let seconds = |time: u64| format!("{}.{:06} s", time / 1_000_000_000, time / 1000 % 1_000_000);
        self.svg.text(
            4.0,
            14.0,
            &format!("from {} to {}", seconds(self.axis.first), seconds(self.axis.last)),
        );
        for (time, label) in self.axis.ticks(12) {
            let x = self.axis.x(time);
            self.svg.vertical(x, (TOP - 6.0, self.height), "#dddddd");
            self.svg.text(x + 2.0, TOP - 6.0, &label);
        }
    }

    fn add(&mut self, item: &Item<'_>) {
        if let What::Lost(count) = item.what {
            return self.lost(item, count);
        }
        let mut model = std::mem::take(&mut self.model);
        if let Some(meaning) = understand(&mut model, item) {
            self.meaning(item, &meaning);
        }
        self.model = model;
    }

    fn meaning(&mut self, item: &Item<'_>, meaning: &Meaning<'_>) {
        if meaning.role == Role::Switch {
            return self.switch(item);
        }
        if !self.tracks.contains_key(&meaning.track) {
            return;
        }
        for _ in 0..meaning.unended {
            self.end(meaning.track, item.time);
        }
        if meaning.role == Role::Begin {
            if let Track::Thread(tid) = meaning.track {
                let name = String::from_utf8_lossy(item.sources.tasks.name(tid)).into_owned();
                self.names.entry(meaning.track).or_insert(name);
            }
            let open = self.open.entry(meaning.track).or_default();
            open.push((item.time, meaning.name.clone().into_owned()));
        } else if meaning.role == Role::End {
            self.end(meaning.track, item.time);
        }
    }

    /// Draws the innermost span of a track.
    fn end(&mut self, track: Track, time: u64) {
        let Some(open) = self.open.get_mut(&track) else { return };
        let Some((since, name)) = open.pop() else { return };
        let depth = open.len();
        if let Some(row) = self.tracks.get_mut(&track).and_then(|rows| rows.get_mut(depth)) {
            let number = name.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            let about = format!("{name}: {}", duration(time.saturating_sub(since)));
            row.bar(&mut self.svg, (self.axis.x(since), self.axis.x(time)), number, &name, &about);
        }
    }

    fn switch(&mut self, item: &Item<'_>) {
        let What::Record(record) = item.what else { return };
        let Some(event) = item.sources.formats.of_record(record) else { return };
        let next = event.field("next_pid").and_then(|pid| pid.int(record, event.target()));
        let next = next.and_then(|pid| i32::try_from(pid.cast_signed()).ok()).unwrap_or(0);
        let name = event.field("next_comm").and_then(|name| name.text(record, event.target()));
        let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
        self.ran(item.cpu, item.time);
        if let Some((_, running)) = self.cpus.get_mut(&item.cpu) {
            *running = Some((item.time, next, name));
        }
    }

    /// Draws what a CPU ran until `time`; an idle one is left white.
    fn ran(&mut self, cpu: u32, time: u64) {
        let Some((row, running)) = self.cpus.get_mut(&cpu) else { return };
        let Some((since, pid, name)) = running.take() else { return };
        if pid != 0 {
            let about = format!("{name} ({pid}): {}", duration(time.saturating_sub(since)));
            let number = u64::from(pid.cast_unsigned());
            row.bar(&mut self.svg, (self.axis.x(since), self.axis.x(time)), number, &name, &about);
        }
    }

    fn lost(&mut self, item: &Item<'_>, count: Option<u64>) {
        self.model.lost();
        // What it ran meanwhile is not known.
        if let Some((_, running)) = self.cpus.get_mut(&item.cpu) {
            *running = None;
        }
        let x = self.axis.x(item.time);
        if x - self.lost_at < 1.0 {
            return;
        }
        self.lost_at = x;
        let place = Place { x: x - 1.0, y: TOP - 4.0, width: 2.0, height: self.height - TOP };
        let count = count.map_or_else(|| "an unknown number of".to_owned(), |count| count.to_string());
        self.svg.rectangle(place, LOSS_COLOUR, "", &format!("CPU {}: {count} events lost", item.cpu));
    }

    fn finish(mut self) -> String {
        let cpus: Vec<u32> = self.cpus.keys().copied().collect();
        for cpu in cpus {
            self.ran(cpu, self.axis.last);
        }
        // What is still open ends with the picture.
        let open: Vec<_> = self.open.iter().map(|(&track, open)| (track, open.len())).collect();
        for (track, count) in open {
            (0..count).for_each(|_| self.end(track, self.axis.last));
        }
        let Self { svg, cpus, tracks, names, .. } = &mut self;
        for (cpu, (row, _)) in cpus {
            row.settle(svg);
            svg.label(LEFT - 6.0, row.y + BAR - 4.0, &format!("CPU {cpu}"));
        }
        for (track, rows) in tracks {
            rows.iter_mut().for_each(|row| row.settle(svg));
            let name = match track {
                Track::Cpu(cpu) => format!("CPU {cpu}, interrupts"),
                Track::Thread(tid) => format!("{} {tid}", names.get(track).map_or("", String::as_str)),
            };
            if let Some(row) = rows.first() {
                svg.label(LEFT - 6.0, row.y + BAR - 4.0, &name);
            }
        }
        self.svg.finish(LEFT + WIDTH + 40.0, self.height)
    }
}

fn duration(ns: u64) -> String {
    match ns {
        1_000_000_000.. => format!("{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1000),
        1_000_000.. => format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000),
        _ => format!("{}.{:03} µs", ns / 1000, ns % 1000),
    }
}
