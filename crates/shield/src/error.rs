//! The error of the crate; its variants tell whose fault it is.

use std::io;

use crate::keys::RootTag;

/// Why an index or pack could not be read or built. Messages hold names and numbers, never content or keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShieldError {
    /// The key or tag that the caller gave is not well formed.
    #[error("{what}: got {got}, expected {expected}")]
    BadKey {
        /// Which value.
        what: &'static str,
        /// What was given; never the value itself.
        got: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// The index is not the one that the policy names; an older one under the same key ends here.
    #[error("the index has the root tag {found}, expected {expected}: it is another index or an older one")]
    WrongTag {
        /// The tag that the index ends with.
        found: RootTag,
        /// The tag that the caller expects.
        expected: RootTag,
    },
    /// The index has the right tag but does not decrypt: another key, or changed bytes.
    #[error("the index does not authenticate: the key is another one or the index was changed")]
    IndexNotAuthentic,
    /// The index violates the format.
    #[error("the index is malformed: {0}")]
    CorruptIndex(String),
    /// Something ends too early.
    #[error("{what} is truncated: {found} bytes, expected {expected}")]
    Truncated {
        /// What ends too early, by name.
        what: String,
        /// Its length.
        found: u64,
        /// The length that it must have.
        expected: u64,
    },
    /// A pack as a whole is not the one that the index describes.
    #[error("pack {pack} in {file}: {reason}")]
    CorruptPack {
        /// The pack's name.
        pack: String,
        /// Where the pack stands in the image.
        file: String,
        /// The check that failed.
        reason: String,
    },
    /// A chunk was changed, moved, or comes from another pack or an older one.
    #[error("{file}: chunk {chunk} of {pack_file}: {reason}")]
    CorruptChunk {
        /// The file that was read, or the pack's own file.
        file: String,
        /// Where the pack stands in the image.
        pack_file: String,
        /// The number of the chunk.
        chunk: u32,
        /// The check that failed.
        reason: &'static str,
    },
    /// An authenticated plain file has another size or content than the index says.
    #[error("{path}: {reason}")]
    CorruptFile {
        /// The file's path in the image.
        path: String,
        /// The check that failed.
        reason: String,
    },
    /// The file or device behind a reader or writer failed.
    #[error("{what}: {source}")]
    Io {
        /// What was read or written.
        what: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The caller asks for something that the format can't express or that does not exist.
    #[error("{what}: {reason}")]
    BadInput {
        /// The path or name at fault.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A source that the builder was given changed or never had the size that was given for it.
    #[error("{path}: {reason}")]
    BadSource {
        /// The path of the file that it should become.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller's progress function asked to stop.
    #[error("building was cancelled")]
    Cancelled,
}

impl ShieldError {
    pub(crate) fn input(what: &[u8], reason: impl Into<String>) -> Self {
        Self::BadInput {
            what: display(what),
            reason: reason.into(),
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

/// Makes a path readable in a message, whatever bytes it holds.
pub(crate) fn display(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}
