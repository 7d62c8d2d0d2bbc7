//! The encodings that the index is made of: little-endian integers, counted bytes, paths (format, preamble).

use crate::error::{display, ShieldError};
use crate::path;

/// Takes fields from the front of a buffer; every failure is [`ShieldError::CorruptIndex`].
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The offset of the next field in the buffer.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// How many elements of at least `least` bytes can follow: an upper bound for what a count may reserve.
    pub(crate) fn room_for(&self, count: u32, least: usize) -> usize {
        (count as usize).min((self.bytes.len() - self.position) / least)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], ShieldError> {
        let rest = &self.bytes[self.position..];
        if count > rest.len() {
            return Err(ShieldError::CorruptIndex(format!(
                "a field of {count} bytes at offset {} passes the end of the body",
                self.position
            )));
        }
        self.position += count;
        Ok(&rest[..count])
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ShieldError> {
        Ok(self
            .take(N)?
            .try_into()
            .expect("take gives as many bytes as asked for"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ShieldError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ShieldError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ShieldError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Counted bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], ShieldError> {
        let count = self.u32()?;
        self.take(count as usize)
    }

    /// A normal path.
    pub(crate) fn path(&mut self) -> Result<&'a [u8], ShieldError> {
        let path = self.bytes()?;
        path::check(path)
            .map_err(|reason| ShieldError::CorruptIndex(format!("{}: {reason}", display(path))))?;
        Ok(path)
    }

    /// Refuses what follows the last field.
    pub(crate) fn finish(self) -> Result<(), ShieldError> {
        match self.bytes.len() - self.position {
            0 => Ok(()),
            rest => Err(ShieldError::CorruptIndex(format!(
                "{rest} bytes follow the last field"
            ))),
        }
    }
}

/// Appends counted bytes. Lengths beyond `u32` can't occur: callers bound what they encode.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the number of elements or bytes that follow.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(
        &u32::try_from(count)
            .expect("an index is smaller than 1 GiB")
            .to_le_bytes(),
    );
}
