//! A GGUF file written tensor by tensor: candle's writer wants all of them in memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor};

use crate::{Error, Result};

const MAGIC: u32 = 0x4655_4747;
const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
/// Type number of text in a file's metadata.
const TEXT: u32 = 8;
/// The one piece of metadata: whose names the tensors have.
const ARCHITECTURE: (&str, &str) = ("general.architecture", "vita");

/// A tensor that the file will hold.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub name: String,
    pub shape: Vec<usize>,
    pub format: GgmlDType,
}

impl Planned {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() / self.format.block_size() * self.format.type_size()
    }
}

/// Writes the header at once, since all sizes are known, and then each tensor's data in the planned order.
pub(super) struct GgufWriter {
    path: PathBuf,
    file: BufWriter<File>,
    written: u64,
}

impl GgufWriter {
    pub fn create(path: &Path, tensors: &[Planned]) -> Result<Self> {
        let file = File::create(path).map_err(|e| super::io(path, e))?;
        let mut writer = Self {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
            written: 0,
        };
        writer.write(&header(tensors))?;
        writer.pad()?;
        Ok(writer)
    }

    pub fn append(&mut self, tensor: &QTensor) -> Result<()> {
        let data = tensor.data()?;
        self.write(&data)?;
        self.pad()
    }

    /// Bytes of the file, once it is safely on the disk.
    pub fn finish(mut self) -> Result<u64> {
        let flushed = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(|e| super::io(&self.path, e))?;
        Ok(self.written)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> Result<()> {
        let used = (self.written % ALIGNMENT as u64) as usize;
        match used {
            0 => Ok(()),
            used => self.write(&[0; ALIGNMENT][used..]),
        }
    }
}

fn header(tensors: &[Planned]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(MAGIC.to_le_bytes());
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend(1u64.to_le_bytes());
    push_text(&mut header, ARCHITECTURE.0);
    header.extend(TEXT.to_le_bytes());
    push_text(&mut header, ARCHITECTURE.1);
    let mut offset = 0;
    for tensor in tensors {
        push_text(&mut header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        for size in tensor.shape.iter().rev() {
            header.extend((*size as u64).to_le_bytes());
        }
        header.extend(type_number(tensor.format).to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    header
}

fn push_text(header: &mut Vec<u8>, text: &str) {
    header.extend((text.len() as u64).to_le_bytes());
    header.extend(text.as_bytes());
}

/// The number of a format in the file, from ggml's list.
fn type_number(format: GgmlDType) -> u32 {
    match format {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}
