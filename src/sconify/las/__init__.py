"""The local attestation service (LAS): it gives evidence of what runs on this host."""
