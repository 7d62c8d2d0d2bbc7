//! Connections to the services: names resolved, every step with a deadline.

mod connect;
mod resolve;
mod route;

pub use connect::{connect, connect_unix, TimedStream};
pub use resolve::{resolve, ResolveError};
