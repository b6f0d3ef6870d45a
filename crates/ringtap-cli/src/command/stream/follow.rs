//! A stream as it happens: what is set up, followed until the end, and taken down again.
//!
//! The end, in order: the command is told the signal, and followed until it has ended; the kernel stops to record; what is
//! left in the buffers is printed; the readers go, then the instance they read, then the host.

use super::kernel::{KernelPlan, KernelSession};
use super::{Filter, Plan};
use crate::application::Application;
use crate::child::Running;
use crate::command::host_side::{HostSide, list, start_held, unmet};
use crate::decode::{self, Decoder, Layout, Seen, Source, TextLayout, write_lines};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::signals::Signals;
use anyhow::{Result, bail};
use ringtap::attach::{AttachError, Connection};
use ringtap::tracefs::{EventName, Tracefs};
use ringtap::{Damaged, Item, Lost, Merge, Merged, ReadError, Waited};
use ringtap_format::{Dialect, Event};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest sleep: a signal or the end of the command is noticed after it.
const NOTICE: Duration = Duration::from_millis(20);
/// Events read before the clock is looked at.
const ROUND: u32 = 256;
/// Longer than the merge holds an event back.
const LAST_LOOK: Duration = Duration::from_millis(5);
/// Longest time for what is left in the buffers, when we were asked to stop.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often a host is asked whether it lives.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What becomes of the events.
pub(in crate::command) trait Sink {
    /// Takes what decodes the events, before the first of them, and the number of CPUs.
    ///
    /// # Errors
    /// The output cannot be written to.
    fn begin(&mut self, decoder: &Decoder, cpus: u32) -> Result<()>;

    /// Takes a record.
    ///
    /// # Errors
    /// The output cannot be written to.
    fn record(&mut self, seen: &Seen<'_>, source: Source, decoder: &mut Decoder) -> Result<()>;

    /// Takes a loss.
    ///
    /// # Errors
    /// The output cannot be written to.
    fn lost(&mut self, lost: Lost, ns: u64, source: Source, decoder: &Decoder) -> Result<()>;

    /// Takes damage.
    ///
    /// # Errors
    /// The output cannot be written to.
    fn damaged(&mut self, damaged: Damaged, ns: u64, source: Source, decoder: &Decoder) -> Result<()>;

    /// Shows what it took. With `is_all` there is no more for now.
    ///
    /// # Errors
    /// The output cannot be written to.
    fn show(&mut self, is_all: bool) -> Result<()>;
}

/// Events as lines on the standard output.
pub(super) struct Lines<'o> {
    output: &'o mut Output,
    /// `None`: as the kernel's `trace_pipe`, which has no header.
    text: Option<TextLayout>,
    layout: Layout,
    is_coloured: bool,
    lines: Vec<u8>,
}

impl<'o> Lines<'o> {
    pub(super) fn new(text: Option<TextLayout>, output: &'o mut Output) -> Self {
        let layout = match text {
            Some(TextLayout::Json) => Layout::Json,
            Some(TextLayout::TraceCmd) => Layout::TraceCmd,
            Some(TextLayout::Ftrace) | None => Layout::Trace,
        };
        let is_coloured = output.is_coloured();
        Self { output, text, layout, is_coloured, lines: Vec::new() }
    }
}

impl Sink for Lines<'_> {
    fn begin(&mut self, decoder: &Decoder, cpus: u32) -> Result<()> {
        if let Some(layout) = self.text {
            decoder.header(layout, cpus, &mut self.lines);
        }
        Ok(write_lines(&mut self.lines, self.output)?)
    }

    fn record(&mut self, seen: &Seen<'_>, _: Source, decoder: &mut Decoder) -> Result<()> {
        decoder.line(seen, self.layout, self.is_coloured, &mut self.lines);
        Ok(())
    }

    fn lost(&mut self, lost: Lost, _: u64, source: Source, _: &Decoder) -> Result<()> {
        decode::lost(lost, source, self.layout, self.is_coloured, &mut self.lines);
        Ok(())
    }

    fn damaged(&mut self, damaged: Damaged, _: u64, source: Source, _: &Decoder) -> Result<()> {
        decode::damaged(damaged, source, self.layout, self.is_coloured, &mut self.lines);
        Ok(())
    }

    fn show(&mut self, is_all: bool) -> Result<()> {
        write_lines(&mut self.lines, self.output)?;
        if is_all {
            self.output.flush()?;
        }
        Ok(())
    }
}

/// Follows the events.
pub(super) fn run(plan: &Plan, sink: &mut dyn Sink) -> Result<Outcome> {
    let signals = Signals::catch()?;
    // Whatever ends this function drops these from the last to the first.
    let host = plan.application.as_ref().map(HostSide::open).transpose()?;
    let session = plan.kernel.as_ref().map(KernelSession::prepare).transpose()?;
    let mut stream = Stream::new(plan, host.as_ref(), session.as_ref())?;
    let cpus = session.as_ref().map_or(0, KernelSession::cpus).max(host.as_ref().map_or(0, HostSide::cpus));
    stream.begin(u32::try_from(cpus)?, sink)?;
    let mut command = start_held(&plan.command, host.as_ref(), plan.preload.as_ref())?;
    if let Some(session) = &session {
        let follow = plan.kernel.as_ref().is_some_and(|kernel| kernel.follow);
        session.begin(command.as_ref().filter(|_| follow))?;
    }
    if let Some(command) = &command {
        command.begin()?;
    }
    let ended = stream.follow(&signals, command.as_mut(), sink)?;
    if let Some(session) = &session {
        session.stop()?;
    }
    stream.finish(&signals, sink)?;
    stream.warn_of_unmet(plan);
    drop(stream);
    drop(session);
    drop(host);
    Ok(match (signals.caught(), ended) {
        (caught, Some(status)) => Outcome::of_command(status, caught),
        (Some(signal), None) => Outcome::Stopped(signal),
        (None, None) => Outcome::Done,
    })
}

/// A host behind a socket, which may end before we do.
struct Peer {
    connection: Arc<Connection>,
    socket: PathBuf,
    asked: Instant,
    is_gone: bool,
}

impl Peer {
    /// Whether it has ended, asked now and then: cursors would wait for ever without noticing.
    fn has_ended(&mut self) -> bool {
        if !self.is_gone && self.asked.elapsed() >= HEARTBEAT {
            self.asked = Instant::now();
            let answer = self.connection.stats(self.connection.cpus()[0]);
            if answer.is_err_and(|error| error.is_gone()) {
                self.end();
            }
        }
        self.is_gone
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.is_gone, true) {
            anstream::eprintln!("ringtap: the host of {} has ended", self.socket.display());
        }
    }
}

/// What is followed, and how it is printed.
struct Stream {
    merge: Merge,
    /// Inputs below this number are the kernel's.
    kernel_inputs: usize,
    kernel: Option<Decoder>,
    /// Events of the kernel's that are not printed.
    hidden: Vec<EventName>,
    application: Option<Application>,
    peer: Option<Peer>,
    filter: Filter,
    /// Bytes of the record being looked at.
    record: Vec<u8>,
}

impl Stream {
    fn new(plan: &Plan, host: Option<&HostSide>, session: Option<&KernelSession>) -> Result<Self> {
        let dialect = plan.layout.map_or(Dialect::Kernel, TextLayout::dialect);
        let mut application = host.map(|host| Application::new(host.registry(), dialect)).transpose()?;
        if let Some((application, host)) = application.as_mut().zip(host) {
            application.decoder.ask_for_names(host.names());
        }
        if let (Some(HostSide::Attached { socket, .. }), Some(application)) = (host, &application)
            && plan.command.is_empty()
            && let Some(pattern) = plan.filter.unmet(plan.kernel.as_ref(), &application.events)
        {
            bail!("{}", unknown(pattern, socket, &application.events));
        }
        let mut merge = Merge::new(session.map(KernelSession::readers).transpose()?.unwrap_or_default());
        let kernel_inputs = session.map_or(0, KernelSession::cpus);
        for input in host.map(HostSide::inputs).transpose()?.unwrap_or_default() {
            merge.push(input);
        }
        let tracefs = plan.kernel.as_ref().map(|kernel: &KernelPlan| &kernel.tracefs);
        let kernel = tracefs.zip(session);
        let peer = host.and_then(|host| match host {
            HostSide::Attached { connection, socket, .. } => Some(Peer {
                connection: Arc::clone(connection),
                socket: socket.clone(),
                asked: Instant::now(),
                is_gone: false,
            }),
            HostSide::Embedded { .. } => None,
        });
        Ok(Self {
            merge,
            kernel_inputs,
            kernel: kernel.map(|(tracefs, session)| {
                Decoder::of_kernel(tracefs, dialect, session.formats.iter().chain(&session.hidden))
            }),
            hidden: session.map_or_else(Vec::new, |session| {
                session.hidden.iter().map(|(event, _)| event.clone()).collect()
            }),
            application,
            peer,
            filter: plan.filter.clone(),
            record: Vec::new(),
        })
    }

    fn begin(&self, cpus: u32, sink: &mut dyn Sink) -> Result<()> {
        let application = self.application.as_ref().map(|application| &application.decoder);
        self.kernel.as_ref().or(application).map_or(Ok(()), |decoder| sink.begin(decoder, cpus))
    }

    /// Prints events until the command ends, which is told, or a signal asks to stop, or nobody is left to follow.
    fn follow(
        &mut self,
        signals: &Signals,
        mut command: Option<&mut Running>,
        sink: &mut dyn Sink,
    ) -> Result<Option<ExitStatus>> {
        loop {
            self.print(sink)?;
            match &mut command {
                Some(command) => {
                    command.heed(signals);
                    if let Some(status) = command.ended()? {
                        return Ok(Some(status));
                    }
                }
                None if signals.caught().is_some() => return Ok(None),
                None => {}
            }
            if self.peer.as_mut().is_some_and(Peer::has_ended) && self.kernel.is_none() && command.is_none() {
                return Ok(None);
            }
            match self.merge.wait(Some(NOTICE)) {
                Ok(_) => {}
                Err(error) => self.forgive(error)?,
            }
        }
    }

    /// Prints what is left in the buffers.
    fn finish(&mut self, signals: &Signals, sink: &mut dyn Sink) -> Result<()> {
        let end = Instant::now() + FAREWELL;
        loop {
            let more = self.print(sink)?;
            let may_stay = signals.caught().is_none() || Instant::now() < end;
            if !may_stay || (!more && self.look()? != Waited::Ready) {
                return Ok(());
            }
        }
    }

    fn look(&mut self) -> Result<Waited> {
        match self.merge.wait(Some(LAST_LOOK)) {
            Ok(waited) => Ok(waited),
            Err(error) => self.forgive(error).map(|()| Waited::Ready),
        }
    }

    /// Prints what there is, but not for so long that a signal would wait; whether there may be more.
    fn print(&mut self, sink: &mut dyn Sink) -> Result<bool> {
        let end = Instant::now() + NOTICE;
        loop {
            for _ in 0..ROUND {
                match self.merge.next() {
                    Ok(Some(Merged { input, ns, item })) => {
                        let is_kernel = input < self.kernel_inputs;
                        let decoder = if is_kernel { self.kernel.as_mut() } else { None };
                        let printer = Printer {
                            filter: &self.filter,
                            hidden: &self.hidden,
                            record: &mut self.record,
                            sink: &mut *sink,
                        };
                        printer.item(item, ns, decoder, self.application.as_mut())?;
                    }
                    Ok(None) => {
                        sink.show(true)?;
                        return Ok(false);
                    }
                    Err(error) => self.forgive(error)?,
                }
            }
            let is_over = Instant::now() >= end;
            sink.show(is_over)?;
            if is_over {
                return Ok(true);
            }
        }
    }

    /// The end of a host ends what is read from it, and is no failure.
    fn forgive(&mut self, error: ReadError) -> Result<()> {
        match (&error, &mut self.peer) {
            (ReadError::Attach(gone), Some(peer)) if AttachError::is_gone(gone) => {
                peer.end();
                Ok(())
            }
            _ => Err(error.into()),
        }
    }

    /// An event that was asked for and that nobody ever declared was probably mistyped.
    fn warn_of_unmet(&self, plan: &Plan) {
        let Some(application) = &self.application else { return };
        if let Some(pattern) = self.filter.unmet(plan.kernel.as_ref(), &application.events) {
            let is_kernels = || Tracefs::find().is_ok_and(|tracefs| tracefs.resolve(pattern).is_ok());
            if plan.kernel.is_none() && is_kernels() {
                anstream::eprintln!("ringtap: '{pattern}' is the kernel's: add --kernel");
                return;
            }
            anstream::eprintln!("{}", unmet(pattern, &application.events));
        }
    }
}

/// Hands on an item.
struct Printer<'a> {
    filter: &'a Filter,
    hidden: &'a [EventName],
    record: &'a mut Vec<u8>,
    sink: &'a mut dyn Sink,
}

impl Printer<'_> {
    fn item(
        self,
        item: Item<'_>,
        ns: u64,
        kernel: Option<&mut Decoder>,
        application: Option<&mut Application>,
    ) -> Result<()> {
        let source = if kernel.is_some() { Source::Kernel } else { Source::Application };
        match item {
            Item::Record(record) => {
                self.record.clear();
                record.payload.copy_to(self.record);
                let decoder = match (kernel, application) {
                    (Some(kernel), _) => {
                        if self.hides(kernel.event(self.record)) {
                            kernel.note(self.record);
                            return Ok(());
                        }
                        kernel
                    }
                    (None, Some(application)) => {
                        application.prepare(self.record)?;
                        if !application.admits(self.record, |event| self.filter.admits(event)) {
                            return Ok(());
                        }
                        &mut application.decoder
                    }
                    (None, None) => return Ok(()),
                };
                let seen = Seen { cpu: record.cpu, ns, record: self.record };
                self.sink.record(&seen, source, decoder)
            }
            Item::Lost(lost) => match decoder_of(kernel, application) {
                Some(decoder) => self.sink.lost(lost, ns, source, decoder),
                None => Ok(()),
            },
            Item::Damaged(damaged) => match decoder_of(kernel, application) {
                Some(decoder) => self.sink.damaged(damaged, ns, source, decoder),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl Printer<'_> {
    fn hides(&self, event: Option<&Event>) -> bool {
        let is = |event: &Event, hidden: &EventName| {
            hidden.name == event.name() && hidden.system == event.system()
        };
        event.is_some_and(|event| self.hidden.iter().any(|hidden| is(event, hidden)))
    }
}

fn decoder_of<'d>(
    kernel: Option<&'d mut Decoder>,
    application: Option<&'d mut Application>,
) -> Option<&'d Decoder> {
    match (kernel, application) {
        (Some(kernel), _) => Some(kernel),
        (None, application) => application.map(|application| &application.decoder),
    }
}

fn unknown(pattern: &str, socket: &Path, events: &[EventName]) -> String {
    format!("no event of {} matches '{pattern}'; it has {}", socket.display(), list(events))
}
