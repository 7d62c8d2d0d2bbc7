//! The static program in the container: attest, launch, serve.

#[macro_use]
pub mod log;
pub mod executor;
pub mod kernel;
pub mod supervisor;
