//! How far the broker has acknowledged, in a file of 20 bytes written in place: segment and offset (`u64`) and their CRC-32, little-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{Position, SpoolError, at};

const BYTES: usize = 20;

#[derive(Debug)]
pub(super) struct Head {
    file: File,
    pub position: Position,
}

impl Head {
    /// A missing or damaged file says that nothing has been acknowledged: better sent twice than not at all.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(at(path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(at(path))?;
        let position = decode(&bytes).unwrap_or(Position {
            segment: 0,
            offset: 0,
        });
        Ok(Self { file, position })
    }

    pub fn set(&mut self, position: Position) -> io::Result<()> {
        self.position = position;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&encode(position))
    }
}

fn encode(position: Position) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&position.segment.to_le_bytes());
    bytes[8..16].copy_from_slice(&position.offset.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Position> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let segment = u64::from_le_bytes(bytes[..8].try_into().ok()?);
    let offset = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    let position = Position { segment, offset };
    (encode(position) == *bytes).then_some(position)
}
