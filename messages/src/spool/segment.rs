//! One file of records. Header: 8 bytes of magic. Record: length and CRC-32 of the rest (little-endian `u32` each), then id, source and
//! subject, each behind its length (`u16`), then the payload.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Position, SpoolError, at};

const MAGIC: &[u8; 8] = b"VITASPL1";
pub(super) const HEADER_BYTES: u64 = MAGIC.len() as u64;
const RECORD_HEADER_BYTES: usize = 8;
const EXTENSION: &str = "spool";

/// Largest record, bytes.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

/// A message as it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Goes out as `Nats-Msg-Id`.
    pub id: String,
    /// Name of the source, for the account of what was lost.
    pub source: String,
    pub subject: String,
    pub payload: Bytes,
}

impl Record {
    pub(super) fn encode(&self) -> Result<Vec<u8>, SpoolError> {
        let texts = [&self.id, &self.source, &self.subject];
        let bytes = texts.iter().map(|text| 2 + text.len()).sum::<usize>() + self.payload.len();
        let too_large = || SpoolError::TooLarge { bytes };
        let len = u32::try_from(bytes)
            .ok()
            .filter(|_| bytes <= MAX_RECORD_BYTES)
            .ok_or_else(too_large)?;
        let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + bytes);
        record.extend_from_slice(&len.to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        for text in texts {
            record.extend_from_slice(
                &u16::try_from(text.len())
                    .map_err(|_| too_large())?
                    .to_le_bytes(),
            );
            record.extend_from_slice(text.as_bytes());
        }
        record.extend_from_slice(&self.payload);
        let crc = crc32fast::hash(&record[RECORD_HEADER_BYTES..]);
        record[4..RECORD_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        Ok(record)
    }

    fn decode(mut body: Bytes) -> Option<Self> {
        let mut text = || {
            let len = usize::from(u16::from_le_bytes(body.get(..2)?.try_into().ok()?));
            let text = std::str::from_utf8(body.get(2..2 + len)?).ok()?.to_owned();
            body = body.slice(2 + len..);
            Some(text)
        };
        let (id, source, subject) = (text()?, text()?, text()?);
        Some(Self {
            id,
            source,
            subject,
            payload: body,
        })
    }
}

/// What is known of one file.
#[derive(Debug)]
pub(super) struct Segment {
    pub number: u64,
    /// Where each record ends. 8 bytes a record: bounded by the size of a segment.
    ends: Vec<u64>,
}

impl Segment {
    pub fn create(dir: &Path, number: u64) -> Result<(Self, File), SpoolError> {
        let path = path(dir, number);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(at(&path))?;
        file.set_len(0)
            .and_then(|()| file.write_all(MAGIC))
            .map_err(at(&path))?;
        Ok((
            Self {
                number,
                ends: Vec::new(),
            },
            file,
        ))
    }

    /// Reads through a file that an earlier process left. The second value is false when it does not end with a whole record; if `cut`
    /// the rest is then taken off, so that new records can follow.
    pub fn scan(dir: &Path, number: u64, cut: bool) -> Result<(Self, bool), SpoolError> {
        let path = path(dir, number);
        let file_len = std::fs::metadata(&path).map_err(at(&path))?.len();
        let mut segment = Self {
            number,
            ends: Vec::new(),
        };
        let mut reader = Reader::open(&path, 0).map_err(at(&path))?;
        if !reader.header().map_err(at(&path))? {
            if cut {
                Self::create(dir, number)?;
            }
            return Ok((segment, file_len == 0));
        }
        while let Some((_, end)) = reader.next(file_len).map_err(at(&path))? {
            segment.ends.push(end);
        }
        let is_whole = segment.len() == file_len;
        if cut && !is_whole {
            let file = OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(at(&path))?;
            file.set_len(segment.len()).map_err(at(&path))?;
        }
        Ok((segment, is_whole))
    }

    pub fn append(&mut self, file: &mut File, record: &[u8]) -> io::Result<()> {
        let start = self.len();
        if let Err(error) = file.write_all(record) {
            // Part of it may be there, and what follows must not stand behind a torn record.
            file.set_len(start)?;
            return Err(error);
        }
        self.ends.push(start + record.len() as u64);
        Ok(())
    }

    /// Bytes up to the end of the last whole record.
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(HEADER_BYTES)
    }

    pub fn records(&self) -> u64 {
        self.ends.len() as u64
    }

    pub fn has_boundary(&self, offset: u64) -> bool {
        offset == HEADER_BYTES || self.ends.binary_search(&offset).is_ok()
    }

    pub fn records_after(&self, position: Position) -> u64 {
        match self.number.cmp(&position.segment) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => self
                .ends
                .iter()
                .filter(|end| **end > position.offset)
                .count() as u64,
            std::cmp::Ordering::Greater => self.records(),
        }
    }
}

/// Reads records one after another.
#[derive(Debug)]
pub(super) struct Reader {
    file: BufReader<File>,
    offset: u64,
}

impl Reader {
    pub fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self {
            file: BufReader::new(file),
            offset,
        })
    }

    /// Whether the file starts as one of ours.
    fn header(&mut self) -> io::Result<bool> {
        let mut magic = [0; MAGIC.len()];
        let is_ours = fill(&mut self.file, &mut magic)? && magic == *MAGIC;
        self.offset = HEADER_BYTES;
        Ok(is_ours)
    }

    /// The next record and where it ends. `None`: there is no whole record before `limit`.
    pub fn next(&mut self, limit: u64) -> io::Result<Option<(Record, u64)>> {
        let mut header = [0; RECORD_HEADER_BYTES];
        if self.offset + RECORD_HEADER_BYTES as u64 > limit || !fill(&mut self.file, &mut header)? {
            return Ok(None);
        }
        let [a, b, c, d, crc @ ..] = header;
        let len = u64::from(u32::from_le_bytes([a, b, c, d]));
        let end = self.offset + RECORD_HEADER_BYTES as u64 + len;
        if end > limit || len > MAX_RECORD_BYTES as u64 {
            return Ok(None);
        }
        let mut body = vec![0; usize::try_from(len).unwrap_or(0)];
        if !fill(&mut self.file, &mut body)? || crc32fast::hash(&body) != u32::from_le_bytes(crc) {
            return Ok(None);
        }
        self.offset = end;
        Ok(Record::decode(body.into()).map(|record| (record, end)))
    }
}

/// Like `read_exact`, with the end of the file as an answer instead of an error.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{EXTENSION}"))
}

pub(super) fn open_for_append(dir: &Path, number: u64) -> Result<File, SpoolError> {
    let path = path(dir, number);
    OpenOptions::new()
        .append(true)
        .open(&path)
        .map_err(at(&path))
}

/// Numbers of the segments in a folder, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, SpoolError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
            && let Some(number) = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
