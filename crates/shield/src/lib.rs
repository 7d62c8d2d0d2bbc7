//! The protected-file format.
