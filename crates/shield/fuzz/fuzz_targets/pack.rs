//! Bytes in the place of a pack.
#![no_main]

#[path = "../../tests/entry_points/mod.rs"]
mod entry_points;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    entry_points::pack(bytes);
    entry_points::changed_pack(bytes);
});
