"""The platforms of the session language: in which confidential VMs a service may run, and what is demanded of hardware.

Nothing is accepted because a policy is silent. Where the language allows *anything*, the policy must say ``any``;
registers that a policy does not name must be zero.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from sconify.policy import fields
from sconify.policy.part import ONE_OR_MORE, OR_VARIABLE, Part, invalid

Requirement = Literal[
    "smt-disabled", "static-platform", "no-cached-keys", "alias-check", "ciphertext-hiding", "rapl-disabled", "ecc"
]
"""What a policy can demand; the first three of Intel's platforms, the first and the last four of AMD's."""

ANY: Final = "any"
"""The word by which a policy accepts every value."""

PUBLIC_SIGNERS: Final = frozenset(
    {
        "83d719e77deaca1470f6baf62a4d774303c899db69020f9c70ee1dfc08c7ce9e",  # Occlum's templates, Fortanix's test key
        "3b0afc0422ae85733e021ad4df327acecb8a5b6d390c97187dde080153e0fb70",  # Open Enclave's template
        "6c1c59c89ed4dd9825649494fcb2ebf96a8a617a1d0589fe0147f0ef1b3f784d",  # Open Enclave's samples
        "9fa48b1629bd246a1de3d38fb7df97f6554cd65d6b3b72e85b86848ae6b578ba",  # Open Enclave's samples
        "ab4bef629e84d221883767e0e5a08c7186bbd2c72564f19079a275702d915a89",  # tests of Intel's QVL
        "c87c2f0142180e15f48270a6b4ccc5b1b4e1569528c1080511591998f0714994",  # tests of Intel's QvE
        "c30446b4be9baf0f69728423ea613ef81a63e72acf7439fa0549001fd5482835",  # Occlum's demo
        "11c4e150b76c2b145f7fadb6c30455e1046b9e6fbb75b49c6e13341ad8acc5bd",  # SCONE's built-in debug key
    }
)
"""MRSIGNERs whose private keys are published: to trust one of them is to trust everybody."""


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _hex(digits: int, *, or_any: bool = False) -> AfterValidator:
    def accept(text: str) -> str:
        if or_any and text == ANY:
            return text
        if not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", text):
            word = f', or "{ANY}"' if or_any else ""
            raise invalid(f"got {len(text)} characters, expected {digits // 2} bytes as {digits} hex digits{word}")
        return text.lower()

    return AfterValidator(accept)


def _date(text: str) -> str:
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise invalid(f"got {text[:20]!r}, expected a date such as 2026-12-31") from None
    return text


def any_alone(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse ``any`` beside other values."""
    if ANY in values and len(values) > 1:
        raise invalid(f"{ANY} must be the only entry of its list")
    return values


Measurements: TypeAlias = Annotated[
    tuple[Annotated[fields.Text, _hex(64, or_any=True), OR_VARIABLE], ...],
    Field(min_length=1),
    ONE_OR_MORE,
    OR_VARIABLE,
]
Register: TypeAlias = Annotated[
    tuple[Annotated[fields.Text, _hex(96, or_any=True)], ...], Field(min_length=1), ONE_OR_MORE
]
HostData: TypeAlias = Annotated[
    tuple[Annotated[fields.Text, _hex(64, or_any=True)], ...], Field(min_length=1), ONE_OR_MORE
]
_ZERO_REGISTER, _ZERO_HOST_DATA = ("00" * 48,), ("00" * 32,)

_Small = Annotated[fields.Count, Field(ge=0, le=0xFFFF)]
_Svn = Annotated[fields.Count, Field(ge=0, le=0xFF)]


class Tdx(Part):
    """The trust domains (TDX) in which a program may run: each register is one value, a list, or ``any``.

    Attributes:
        mrtd: What it was started with: the virtual firmware.
        rtmr0: The firmware's configuration.
        rtmr1: The kernel, or what loads it.
        rtmr2: The kernel's command line and initial RAM disk.
        rtmr3: What the guest measured by itself.
        mrconfigid: What was configured at the start.
        mrowner: The owner.
        mrownerconfig: What the owner configured.
        mrseam: The TDX modules; None: whichever Intel's TCB information accepts.
        xfam: The accepted sets of CPU features, 16 hex digits in the quote's byte order; None: every one.
    """

    mrtd: Register
    rtmr0: Register
    rtmr1: Register
    rtmr2: Register
    rtmr3: Register = _ZERO_REGISTER
    mrconfigid: Register = _ZERO_REGISTER
    mrowner: Register = _ZERO_REGISTER
    mrownerconfig: Register = _ZERO_REGISTER
    mrseam: Register | None = None
    xfam: (
        Annotated[
            tuple[Annotated[fields.Text, _hex(16)], ...],
            Field(min_length=1),
            ONE_OR_MORE,
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig"):
            any_alone(getattr(self, name))
        if self.mrtd == (ANY,):
            raise invalid("mrtd can't be any: whoever starts a trust domain chooses everything that follows it")
        return self


class MinimumTcb(Part):
    """The lowest accepted security versions of a processor family's firmware.

    Attributes:
        bootloader: Of the boot loader.
        tee: Of the trusted operating system.
        snp: Of the SNP firmware.
        microcode: Of the microcode.
        fmc: Of the FMC (Turin only).
    """

    bootloader: _Svn
    tee: _Svn
    snp: _Svn
    microcode: _Svn
    fmc: _Svn | None = None


class MinimumTcbs(Part):
    """The lowest accepted firmware of each processor family; a family that is not named is not accepted."""

    milan: MinimumTcb | None = None
    genoa: MinimumTcb | None = None
    turin: MinimumTcb | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.milan or self.genoa or self.turin):
            raise invalid("it names no processor family: give milan, genoa or turin")
        if self.turin is not None and self.turin.fmc is None:
            raise invalid("turin has no fmc")
        if any(tcb is not None and tcb.fmc is not None for tcb in (self.milan, self.genoa)):
            raise invalid("fmc is turin's only")
        return self


class Snp(Part):
    """The guests (SEV-SNP) in which a program may run.

    Attributes:
        measurement: What the guest was started with.
        id_key_digest: SHA-384 of the keys that may have signed the ID block; with ``guest_svn_min`` it can stand for
            the measurement, as signer and version do for an enclave.
        guest_svn_min: The oldest accepted security version of the ID block.
        host_data: What the host passed at the start: one value, a list, or ``any``.
        minimum_tcb: The lowest accepted firmware.
        vmpl: The accepted privilege levels of who asked for the report.
        signing_keys: ``vcek`` (the chip's own), ``vlek`` (a key that a cloud's machines share).
        report_versions: The accepted versions of the report; version 2 does not name the processor.
    """

    measurement: Register | None = None
    id_key_digest: Annotated[tuple[Annotated[fields.Text, _hex(96)], ...], Field(min_length=1), ONE_OR_MORE] | None = (
        None
    )
    guest_svn_min: Annotated[fields.Count, Field(ge=0, le=0xFFFF_FFFF)] | None = None
    host_data: HostData = _ZERO_HOST_DATA
    minimum_tcb: MinimumTcbs
    vmpl: Annotated[
        tuple[Annotated[fields.Count, Field(ge=0, le=3)], ...],
        Field(min_length=1),
        ONE_OR_MORE,
    ] = (0,)
    signing_keys: Annotated[tuple[Literal["vcek", "vlek"], ...], Field(min_length=1), ONE_OR_MORE] = ("vcek",)
    report_versions: Annotated[
        tuple[Annotated[fields.Count, Field(ge=2, le=5)], ...],
        Field(min_length=1),
        ONE_OR_MORE,
    ] = (3, 4, 5)

    @model_validator(mode="after")
    def _check(self) -> Self:
        any_alone(self.host_data)
        if self.measurement is None and self.id_key_digest is None:
            raise invalid("it names no guest: give measurement, or id_key_digest with guest_svn_min")
        if self.measurement is not None and ANY in self.measurement:
            raise invalid("measurement can't be any: that would accept every guest")
        if (self.id_key_digest is None) != (self.guest_svn_min is None):
            raise invalid("id_key_digest and guest_svn_min go together")
        return self


class PlatformDemands(Part):
    """What ``security.attestation`` says of hardware besides ``tolerate`` and ``ignore_advisories``.

    Attributes:
        outdated_tcb_until: The last day (UTC) on which ``outdated-tcb`` is put up with; without it, it is not.
        min_tcb_evaluation_data_number: How new Intel's evaluation must be at least by which a platform is judged.
        require: What is demanded of a platform that is not demanded of every one.
    """

    outdated_tcb_until: Annotated[fields.Text, AfterValidator(_date)] | None = None
    min_tcb_evaluation_data_number: Annotated[fields.Count, Field(ge=0)] | None = None
    require: Annotated[tuple[Requirement, ...], fields.as_list] = ()

    @property
    def outdated_until(self) -> datetime | None:
        """The last second in which ``outdated-tcb`` is put up with."""
        if self.outdated_tcb_until is None:
            return None
        day = datetime.strptime(self.outdated_tcb_until, "%Y-%m-%d").replace(tzinfo=UTC)
        return day.replace(hour=23, minute=59, second=59)
