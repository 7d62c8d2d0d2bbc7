//! The encodings that records are made of: little-endian integers and fixed arrays (volume format, preamble).

use crate::error::{Result, VolumeError};

/// Takes fields from the front of a buffer. What is decoded was authenticated, so a failure means that another
/// version of the format or a fault of ours made it.
pub(crate) struct Decoder<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (field, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| self.malformed("a field passes its end"))?;
        self.rest = rest;
        Ok(field)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self
            .take(N)?
            .try_into()
            .expect("take gives as many bytes as asked for"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the rest, which must be zeros.
    pub(crate) fn padding(&mut self) -> Result<()> {
        if self.rest().iter().any(|byte| *byte != 0) {
            return Err(self.malformed("its padding is not zero"));
        }
        Ok(())
    }

    /// Refuses bytes that are left.
    pub(crate) fn end(&self) -> Result<()> {
        if !self.rest.is_empty() {
            return Err(self.malformed("bytes are left at its end"));
        }
        Ok(())
    }

    pub(crate) fn malformed(&self, reason: &str) -> VolumeError {
        VolumeError::forged(self.what, format!("it is malformed: {reason}"))
    }
}
