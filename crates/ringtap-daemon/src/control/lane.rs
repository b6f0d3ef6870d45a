//! One CPU's items on their way to text, and which CPU's is next.

use ringtap::{Cursor, Item, ReadError, Reader};
use rustix::io::Errno;
use std::collections::VecDeque;

/// What was taken from a CPU's ring and not handed out: a reader is given whole sub-buffers.
pub(super) type Left = VecDeque<Piece>;

/// An item that was copied out of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Record { ticks: u64, bytes: Vec<u8> },
    Lost(Option<u64>),
}

impl Piece {
    /// What is damaged counts as lost, nobody knows how much.
    pub(super) fn of(item: Item<'_>) -> Self {
        match item {
            Item::Record(record) => {
                let mut bytes = Vec::new();
                record.payload.copy_to(&mut bytes);
                Self::Record { ticks: record.ticks, bytes }
            }
            Item::Lost(lost) => Self::Lost(lost.count),
            _ => Self::Lost(None),
        }
    }
}

/// One CPU's stream.
pub(super) trait Stream {
    /// Its next item; `None` when there is nothing now.
    fn pull(&mut self) -> Result<Option<Piece>, ReadError>;
}

impl Stream for Reader {
    fn pull(&mut self) -> Result<Option<Piece>, ReadError> {
        Ok(self.next()?.map(Piece::of))
    }
}

/// A cursor that goes as far as the ring was filled when it began.
pub(super) struct Walk {
    pub(super) cursor: Cursor,
    /// Events until there.
    pub(super) left: u64,
}

impl Stream for Walk {
    fn pull(&mut self) -> Result<Option<Piece>, ReadError> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = self.cursor.next()?.map(Piece::of);
        self.left = self.left.saturating_sub(match &piece {
            Some(Piece::Lost(count)) => count.unwrap_or(0),
            Some(Piece::Record { .. }) => 1,
            None => self.left,
        });
        Ok(piece)
    }
}

/// A stream, and what it holds ready.
#[derive(Debug)]
pub(super) struct Lane<S> {
    pub(super) cpu: u32,
    pub(super) stream: S,
    /// Taken from the stream and not yet handed out: losses, then at most one record, unless somebody left more.
    pub(super) ready: VecDeque<Piece>,
    /// Whether a line of this CPU was printed.
    pub(super) begun: bool,
}

impl<S: Stream> Lane<S> {
    pub(super) fn new(cpu: u32, stream: S, ready: VecDeque<Piece>) -> Self {
        Self { cpu, stream, ready, begun: false }
    }

    /// The time of its next record, which it takes from the stream where it has none.
    pub(super) fn next_time(&mut self) -> Result<Option<u64>, Errno> {
        loop {
            let time = self.ready.iter().find_map(|piece| match piece {
                Piece::Record { ticks, .. } => Some(*ticks),
                Piece::Lost(_) => None,
            });
            if time.is_some() {
                return Ok(time);
            }
            match self.stream.pull().map_err(|_| Errno::IO)? {
                Some(piece) => self.ready.push_back(piece),
                None => return Ok(None),
            }
        }
    }
}

/// What is printed at a time.
pub(super) struct Taken {
    pub(super) cpu: u32,
    /// Losses, then a record.
    pub(super) pieces: Vec<Piece>,
}

impl<S> Lane<S> {
    /// Takes what it holds ready, up to its first record.
    pub(super) fn take(&mut self) -> Taken {
        let is_record = |piece: &Piece| matches!(piece, Piece::Record { .. });
        let end = self.ready.iter().position(is_record).map_or(self.ready.len(), |place| place + 1);
        Taken { cpu: self.cpu, pieces: self.ready.drain(..end).collect() }
    }
}

/// The lane whose record is next.
pub(super) fn earliest<S: Stream>(lanes: &mut [Lane<S>]) -> Result<Option<&mut Lane<S>>, Errno> {
    let mut first = None;
    for (at, lane) in lanes.iter_mut().enumerate() {
        if let Some(time) = lane.next_time()?
            && first.is_none_or(|(earliest, _)| time < earliest)
        {
            first = Some((time, at));
        }
    }
    Ok(first.and_then(|(_, at)| lanes.get_mut(at)))
}
