"""Collateral in memory: for commands that need it once."""

from __future__ import annotations


class MemoryDocuments:
    """Documents that nobody else sees."""

    def __init__(self) -> None:
        self._documents: dict[str, bytes] = {}

    def document(self, name: str) -> bytes | None:
        """Return a document, or None."""
        return self._documents.get(name)

    def documents(self) -> list[str]:
        """Return the names of all documents."""
        return list(self._documents)

    def replace_document(self, name: str, *, old: bytes | None, new: bytes) -> bool:
        """Keep a document if what is kept is ``old``."""
        if self._documents.get(name) != old:
            return False
        self._documents[name] = new
        return True
