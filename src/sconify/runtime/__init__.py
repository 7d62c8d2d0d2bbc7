"""The static runtime of the container, built from ``crates/runtime``, as package data: ``sconify-runtime``."""
