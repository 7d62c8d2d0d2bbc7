//! Python bindings of the protected-file format.
