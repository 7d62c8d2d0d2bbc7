//! Building indexes and packs.
