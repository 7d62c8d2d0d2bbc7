//! The protected-file format.

/// The 32-byte key of a file system.
pub struct FileSystemKey(pub [u8; 32]);
/// The 16-byte tag of an index.
pub struct RootTag(pub [u8; 16]);
