"""The configuration and attestation service (CAS), and its client."""
