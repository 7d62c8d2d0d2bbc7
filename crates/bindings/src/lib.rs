//! Python bindings of the protected-file format and of volumes: the module `sconify._shield`, described in `src/sconify/_shield.pyi`.
//! All work on files is done without the interpreter lock.

mod builder;
mod index;
mod source;
mod volume;

use pyo3::exceptions::{PyException, PyOSError};
use pyo3::prelude::*;

pyo3::create_exception!(
    _shield,
    ShieldError,
    PyException,
    "The protected-file format refuses what it was given."
);

/// What goes back to Python: `OSError` for what the operating system refused, `ShieldError` for the rest.
fn to_python(error: sconify_shield::ShieldError) -> PyErr {
    let message = error.to_string();
    match error {
        sconify_shield::ShieldError::Io { source, .. } => match source.raw_os_error() {
            // With a number, Python chooses the subclass: FileNotFoundError and the like.
            Some(number) => PyOSError::new_err((number, message)),
            None => PyOSError::new_err(message),
        },
        _ => ShieldError::new_err(message),
    }
}

/// Names a file of this machine in an error.
fn io_error(path: &std::path::Path, source: std::io::Error) -> sconify_shield::ShieldError {
    sconify_shield::ShieldError::Io {
        what: path.display().to_string(),
        source,
    }
}

/// The protected-file format, and volumes.
#[pymodule]
mod _shield {
    #[pymodule_export]
    use super::builder::{Builder, Built};
    #[pymodule_export]
    use super::index::Index;
    #[pymodule_export]
    use super::volume::{Volume, VolumeError};
    #[pymodule_export]
    use super::ShieldError;
}
