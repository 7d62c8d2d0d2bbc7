//! The supervisor: serves the path system calls of the program from the protected file system.
