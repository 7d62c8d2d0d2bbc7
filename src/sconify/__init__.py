"""Sconify: turn any container image into an encrypted, attested one."""

__version__ = "0.1.0"
