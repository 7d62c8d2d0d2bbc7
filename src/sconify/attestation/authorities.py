"""What hardware evidence is verified against: the roots, and where collateral comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from sconify.attestation.collateral import AmdCollateral, IntelCollateral
from sconify.attestation.intel import GenuineQuote, VerifiedQuote, verify_origin, verify_platform
from sconify.attestation.quote import Quote
from sconify.attestation.snp import VerifiedReport, verify_report
from sconify.attestation.snp_report import SnpReport
from sconify.errors import UserError


class CollateralSource(Protocol):
    """Gives collateral; what it gives is verified with each use."""

    def intel(self, genuine: GenuineQuote, *, at: int) -> IntelCollateral:
        """Return the collateral for the platform of a quote.

        Args:
            genuine: The quote.
            at: The time, in seconds since 1970.

        Raises:
            ServiceError: There is none, and none can be fetched.
        """

    def amd(self, report: SnpReport, *, certificate: bytes, at: int) -> tuple[x509.Certificate, AmdCollateral]:
        """Return the certificate of the key that signed a report, and what stands above it.

        Args:
            report: The report.
            certificate: That certificate in DER as the host gave it; empty: it gave none.
            at: The time, in seconds since 1970.

        Raises:
            UntrustedDataError: The certificate is malformed.
            ServiceError: There is none, and none can be fetched.
        """


class Authorities:
    """Verifies hardware evidence against Intel's and AMD's roots, which are pinned in this program.

    Args:
        collateral: Where collateral comes from.
        test_roots: Roots that are trusted besides; who is verified by one is no better than simulated.
    """

    def __init__(self, collateral: CollateralSource, *, test_roots: Sequence[x509.Certificate] = ()) -> None:
        self._collateral = collateral
        self._test_roots = {root.fingerprint(SHA256()): root for root in test_roots}

    def verify_quote(self, quote: Quote, *, at: int) -> VerifiedQuote:
        """Verify an Intel quote at a time (seconds since 1970).

        Raises:
            UntrustedDataError: It is not genuine.
            ServiceError: There is no collateral for its platform.
        """
        # Collateral is looked for only once the quote is genuine: a forger can't make this program fetch anything.
        genuine = verify_origin(quote, test_root=self._test_root(quote.chain[-1]))
        return verify_platform(genuine, self._collateral.intel(genuine, at=at), at=at)

    def verify_report(self, report: SnpReport, *, certificate: bytes, at: int) -> VerifiedReport:
        """Verify an SEV-SNP report at a time (seconds since 1970).

        Args:
            report: The report.
            certificate: The certificate of the key that signed it, in DER, as the host gave it; empty: none.
            at: The time.

        Raises:
            UntrustedDataError: It is not genuine.
            ServiceError: There is no certificate for its chip.
        """
        vek, collateral = self._collateral.amd(report, certificate=certificate, at=at)
        return verify_report(report, vek, collateral, at=at, test_root=self._test_root(collateral.ark))

    def _test_root(self, root: x509.Certificate) -> x509.Certificate | None:
        """Return the test root that this one is, or None: then only the pinned ones are trusted."""
        return self._test_roots.get(root.fingerprint(SHA256()))


def parse_test_roots(data: bytes, *, name: str) -> list[x509.Certificate]:
    """Parse a file of test roots in PEM.

    Raises:
        UserError: It has none.
    """
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion):
        raise UserError(f"{name} has no certificates in PEM", remedy="name a PEM file with root certificates") from None
