//! What waits on disk for the broker: every durable message is written here before it is published, and forgotten once JetStream has acknowledged it.
//!
//! A folder of append-only segment files (`segment`), a `head` file that says how far the broker has acknowledged, and `lost.json`, the account
//! of what was given up (`ledger`). A record is handed to the kernel before it is published, so it survives the end of our process however
//! it comes; the disk is synced every [`Options::sync_interval`], so a power cut costs at most that much. Over [`Options::max_bytes`] the
//! oldest segment is given up. One process at a time: the folder is locked.

mod head;
mod ledger;
mod segment;

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use ledger::{Entry, Ledger};
pub use segment::{MAX_RECORD_BYTES, Record};

use crate::kinds::LostCause;
use head::Head;
use segment::{Reader, Segment};

#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    /// Size of all segments together, bytes.
    pub max_bytes: u64,
    /// The disk is synced at most this often while something is written.
    pub sync_interval: Duration,
}

impl Options {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            max_bytes: 256 << 20,
            sync_interval: Duration::from_secs(1),
        }
    }

    /// A segment is what is given up at a time, so a small part of the whole.
    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(1 << 10, 8 << 20)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("spool {dir} is in use by another process; give each one its own folder")]
    InUse { dir: PathBuf },
    #[error("spool {path}: {error}; check that the folder can be written and the disk is not full")]
    Io { path: PathBuf, error: io::Error },
    #[error("a message of {bytes} bytes is larger than the spool takes ({MAX_RECORD_BYTES})")]
    TooLarge { bytes: usize },
}

/// A place between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    segment: u64,
    /// Bytes from the start of the segment.
    offset: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Spool {
    options: Options,
    /// Oldest first; the last one is written to. Never empty.
    segments: VecDeque<Segment>,
    writer: File,
    head: Head,
    /// Records after the head.
    pending: u64,
    cursor: Position,
    reader: Option<Reader>,
    pub ledger: Ledger,
    damaged: u64,
    dirty: bool,
    _lock: File,
}

impl Spool {
    /// Opens the folder, makes it where it is not there, and takes up what an earlier process left.
    pub fn open(options: Options) -> Result<Self, SpoolError> {
        let dir = &options.dir;
        std::fs::create_dir_all(dir).map_err(at(dir))?;
        let lock = lock(dir)?;
        let head = Head::open(&dir.join("head"))?;
        let mut damaged = 0;
        let mut segments = VecDeque::new();
        let numbers = segment::list(dir)?;
        for (index, number) in numbers.iter().enumerate() {
            let is_last = index + 1 == numbers.len();
            let (segment, is_whole) = Segment::scan(dir, *number, is_last)?;
            if !is_whole {
                damaged += 1;
                let path = segment::path(dir, *number);
                tracing::warn!(path = %path.display(), records = segment.records(), "spool: a record is torn or damaged; it and what follows in this file is lost");
            }
            segments.push_back(segment);
        }
        if segments.is_empty() {
            segments.push_back(Segment::create(dir, head.position.segment + 1)?.0);
        }
        let writer = segment::open_for_append(dir, segments[segments.len() - 1].number)?;
        let ledger = Ledger::open(dir.join("lost.json"));
        let start = Position {
            segment: segments[0].number,
            offset: segment::HEADER_BYTES,
        };
        let mut spool = Self {
            options,
            segments,
            writer,
            head,
            pending: 0,
            cursor: start,
            reader: None,
            ledger,
            damaged,
            dirty: false,
            _lock: lock,
        };
        spool.take_up(start)?;
        Ok(spool)
    }

    /// Sets the cursor behind what was acknowledged, as far as that is a place in what is there.
    fn take_up(&mut self, start: Position) -> Result<(), SpoolError> {
        let noted = self.head.position;
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.number == noted.segment);
        let position = match segment {
            Some(segment) if segment.has_boundary(noted.offset) => noted,
            // The segment was torn below it: all that is left had arrived.
            Some(segment) if noted.offset > segment.len() => Position {
                offset: segment.len(),
                ..noted
            },
            _ => start,
        };
        if position != noted {
            // Otherwise what is written there next could be taken for acknowledged by another process.
            self.head
                .set(position)
                .map_err(at(&self.options.dir.join("head")))?;
        }
        self.cursor = self.head.position;
        let cursor = self.cursor;
        self.pending = self.segments.iter().map(|s| s.records_after(cursor)).sum();
        self.forget_before(cursor);
        Ok(())
    }

    /// Writes a record behind all others. Gives up the oldest segment where there is no room.
    pub fn append(&mut self, record: &Record) -> Result<Position, SpoolError> {
        let bytes = record.encode()?;
        let segment_bytes = self.options.segment_bytes();
        if self.tail().is_some_and(|tail| {
            tail.records() > 0 && tail.len() + bytes.len() as u64 > segment_bytes
        }) {
            self.roll()?;
        }
        while self.bytes() + bytes.len() as u64 > self.options.max_bytes && self.segments.len() > 1
        {
            self.give_up_oldest();
        }
        let path = self.tail_path();
        let Some(tail) = self.segments.back_mut() else {
            return Err(at(&path)(io::ErrorKind::NotFound.into()));
        };
        tail.append(&mut self.writer, &bytes).map_err(at(&path))?;
        self.pending += 1;
        self.dirty = true;
        Ok(Position {
            segment: tail.number,
            offset: tail.len(),
        })
    }

    /// [`append`](Self::append) by a caller who has the record at hand and needs not read it back. Only when [caught up](Self::is_caught_up).
    pub fn append_taken(&mut self, record: &Record) -> Result<Position, SpoolError> {
        let position = self.append(record)?;
        self.cursor = position;
        self.reader = None;
        Ok(position)
    }

    /// Whether everything was taken.
    pub fn is_caught_up(&self) -> bool {
        self.tail().is_none_or(|tail| {
            self.cursor
                >= Position {
                    segment: tail.number,
                    offset: tail.len(),
                }
        })
    }

    /// The next record that was not taken yet, and the place behind it.
    pub fn take(&mut self) -> Result<Option<(Record, Position)>, SpoolError> {
        loop {
            let Some(segment) = self
                .segments
                .iter()
                .find(|s| s.number >= self.cursor.segment)
            else {
                return Ok(None);
            };
            let (number, len) = (segment.number, segment.len());
            if number > self.cursor.segment {
                self.cursor = Position {
                    segment: number,
                    offset: segment::HEADER_BYTES,
                };
                self.reader = None;
            }
            if self.cursor.offset >= len {
                if self
                    .segments
                    .back()
                    .is_none_or(|last| last.number == number)
                {
                    return Ok(None);
                }
                self.cursor = Position {
                    segment: number + 1,
                    offset: segment::HEADER_BYTES,
                };
                self.reader = None;
                continue;
            }
            let path = segment::path(&self.options.dir, number);
            let reader = match self.reader.take() {
                Some(reader) => reader,
                None => Reader::open(&path, self.cursor.offset).map_err(at(&path))?,
            };
            let reader = self.reader.insert(reader);
            let Some((record, offset)) = reader.next(len).map_err(at(&path))? else {
                // Damaged behind our back: go on with the next segment.
                self.damaged += 1;
                self.pending = self
                    .pending
                    .saturating_sub(segment.records_after(self.cursor));
                self.cursor.offset = len;
                self.reader = None;
                continue;
            };
            self.cursor.offset = offset;
            return Ok(Some((record, self.cursor)));
        }
    }

    /// Everything up to this place has arrived and need not be kept.
    pub fn acknowledge(&mut self, position: Position, records: u64) {
        self.pending = self.pending.saturating_sub(records);
        if position <= self.head.position {
            return;
        }
        if let Err(error) = self.head.set(position) {
            tracing::warn!(%error, dir = %self.options.dir.display(), "spool: cannot note what has arrived; it may be sent again after a restart");
        }
        self.forget_before(position);
    }

    /// Records that have not been acknowledged.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Size of the segments on disk, bytes.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::len).sum()
    }

    /// Torn or damaged places found since it was opened.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// A handle to sync from a thread that may wait, if something was written since the last.
    pub fn unsynced(&mut self) -> Option<File> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        self.writer.try_clone().ok()
    }

    fn tail(&self) -> Option<&Segment> {
        self.segments.back()
    }

    fn tail_path(&self) -> PathBuf {
        segment::path(&self.options.dir, self.tail().map_or(0, |tail| tail.number))
    }

    fn roll(&mut self) -> Result<(), SpoolError> {
        let number = self.tail().map_or(1, |tail| tail.number + 1);
        let (segment, writer) = Segment::create(&self.options.dir, number)?;
        // What the old one holds reaches the disk with the next sync of the system; the new one is ours to sync.
        self.segments.push_back(segment);
        self.writer = writer;
        Ok(())
    }

    /// Removes the oldest segment and enters what nobody has taken from it in the account of what was lost.
    fn give_up_oldest(&mut self) {
        let Some(oldest) = self.segments.pop_front() else {
            return;
        };
        let next = Position {
            segment: oldest.number + 1,
            offset: segment::HEADER_BYTES,
        };
        let path = segment::path(&self.options.dir, oldest.number);
        let from = if self.cursor.segment == oldest.number {
            self.cursor.offset
        } else {
            segment::HEADER_BYTES
        };
        if self.cursor < next {
            let mut given_up = 0;
            if let Ok(mut reader) = Reader::open(&path, from) {
                while let Ok(Some((record, _))) = reader.next(oldest.len()) {
                    self.ledger.add(&record.source, LostCause::SpoolFull, 1);
                    given_up += 1;
                }
            }
            self.pending = self.pending.saturating_sub(given_up);
            self.cursor = next;
            self.reader = None;
            self.ledger.save();
        }
        remove(&path);
    }

    fn forget_before(&mut self, position: Position) {
        while self.segments.len() > 1 && self.segments[0].number < position.segment {
            if let Some(segment) = self.segments.pop_front() {
                remove(&segment::path(&self.options.dir, segment.number));
            }
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "spool: cannot remove a segment");
    }
}

fn lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SpoolError + use<> {
    let path = path.to_owned();
    |error| SpoolError::Io { path, error }
}
