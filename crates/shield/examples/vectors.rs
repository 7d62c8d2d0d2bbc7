//! Writes the test vectors of the format: `cargo run -p sconify-shield --example vectors`. To be run again when the sample or
//! the release of zstd changes, never to make a failing test pass.

#[path = "../tests/sample/mod.rs"]
mod sample;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let (built, packs) = sample::finish(sample::builder(), 2, 1);
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("index"), &built.index)?;
    std::fs::write(directory.join("app.pack"), &packs[0])?;
    std::fs::write(directory.join("srv.pack"), &packs[1])?;
    std::fs::write(directory.join("root-tag"), format!("{}\n", built.tag))
}
