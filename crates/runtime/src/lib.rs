//! The static program in the container: attest, launch, serve.

#[macro_use]
pub mod log;
pub mod address;
pub mod attest;
pub mod config;
pub mod executor;
pub mod failure;
#[allow(unsafe_code)]
pub mod kernel;
pub mod manifest;
pub mod net;
pub mod placeholders;
pub mod settings;
pub mod supervisor;
pub mod version;
pub mod volumes;
