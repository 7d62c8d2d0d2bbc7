"""What the X.509 library raises for what is malformed, made one refusal.

It reads most parts of a certificate only when they are asked for, so that malformed ones show late.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from sconify.errors import UntrustedDataError

_ERRORS = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@contextmanager
def refused_if_malformed(what: str) -> Iterator[None]:
    """Refuse what the library can't read.

    Args:
        what: What is read, for the message.

    Raises:
        UntrustedDataError: It is malformed.
    """
    try:
        yield
    except _ERRORS:
        raise UntrustedDataError(f"{what}: it is malformed") from None
