//! The static program in the container: attest, launch, serve.

pub mod executor;
pub mod kernel;
pub mod supervisor;
