"""What only verifiers hold: types of verified evidence can't be made without it."""

from __future__ import annotations

from typing import Final

PROOF: Final = object()
"""What a verifier gives to a verified type to assert that it has verified. Used nowhere else."""
