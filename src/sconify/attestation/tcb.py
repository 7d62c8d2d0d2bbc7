"""Intel's TCB information and QE identity, and which level of them a platform has.

The rule is that of Intel's Quote Verification Library, written anew: it is the second opinion beside ``dcap-qvl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sconify.attestation.pck import PlatformCertificate
from sconify.attestation.quote import SgxReport, TdReport
from sconify.errors import UntrustedDataError

_COMPONENTS = 16


class TcbStatus(StrEnum):
    """What Intel says of a TCB level. A status that this version does not know is malformed."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    REVOKED = "Revoked"


def _time(value: object) -> datetime:
    """Accept the one form that Intel uses: ``2026-02-18T10:58:51Z``."""
    if not isinstance(value, str):
        raise ValueError("expected a time as text")
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _hex(value: object) -> bytes:
    if not isinstance(value, str) or not value.isascii() or len(value) > 256:
        raise ValueError("expected hex digits")
    return bytes.fromhex(value)


Time = Annotated[datetime, BeforeValidator(_time)]
Hex = Annotated[bytes, BeforeValidator(_hex)]
Svn = Annotated[int, Field(ge=0, le=255)]
Isvsvn = Annotated[int, Field(ge=0, le=65535)]
Status = Annotated[TcbStatus, BeforeValidator(TcbStatus)]
Advisories = Annotated[tuple[str, ...], Field(max_length=1000)]


class _Part(BaseModel):
    """A part of a signed document. Members that are not used are Intel's to add; values are strict."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)


_M = TypeVar("_M", bound=_Part)


class Component(_Part):
    """One of the 16 components of a TCB."""

    svn: Svn


Components = Annotated[tuple[Component, ...], Field(min_length=_COMPONENTS, max_length=_COMPONENTS)]


class PlatformTcb(_Part):
    """What a platform needs at least to be of a level."""

    sgx: Components = Field(alias="sgxtcbcomponents")
    pce_svn: Isvsvn = Field(alias="pcesvn")
    tdx: Components | None = Field(default=None, alias="tdxtcbcomponents")


class PlatformLevel(_Part):
    """A TCB level of a platform."""

    tcb: PlatformTcb
    date: Time = Field(alias="tcbDate")
    status: Status = Field(alias="tcbStatus")
    advisories: Advisories = Field(default=(), alias="advisoryIDs")


class IsvTcb(_Part):
    """What a TDX module or quoting enclave needs at least to be of a level."""

    isvsvn: Isvsvn


class IsvLevel(_Part):
    """A TCB level of a TDX module or of a quoting enclave."""

    tcb: IsvTcb
    date: Time = Field(alias="tcbDate")
    status: Status = Field(alias="tcbStatus")
    advisories: Advisories = Field(default=(), alias="advisoryIDs")


class TdxModule(_Part):
    """Who may have signed the TDX module, and with which attributes."""

    mrsigner: Hex
    attributes: Hex
    mask: Hex = Field(alias="attributesMask")


class TdxModuleIdentity(TdxModule):
    """A version of the TDX module."""

    id: str
    levels: tuple[IsvLevel, ...] = Field(alias="tcbLevels", max_length=1000)


class TcbInfo(_Part):
    """The TCB information of a platform: the levels and what they are worth."""

    id: Literal["SGX", "TDX"]
    version: Literal[3]
    issued: Time = Field(alias="issueDate")
    next_update: Time = Field(alias="nextUpdate")
    fmspc: Hex
    pce_id: Hex = Field(alias="pceId")
    evaluation_data_number: int = Field(ge=0, alias="tcbEvaluationDataNumber")
    tdx_module: TdxModule | None = Field(default=None, alias="tdxModule")
    tdx_module_identities: tuple[TdxModuleIdentity, ...] = Field(default=(), alias="tdxModuleIdentities")
    levels: tuple[PlatformLevel, ...] = Field(alias="tcbLevels", max_length=1000)

    @classmethod
    def parse(cls, text: str) -> TcbInfo:
        """Parse the signed text.

        Raises:
            UntrustedDataError: It is malformed, or of another version.
        """
        return _parse(cls, text, "TCB information")


class QeIdentity(_Part):
    """Which quoting enclaves there are, and what they are worth."""

    id: Literal["QE", "TD_QE"]
    version: Literal[2]
    issued: Time = Field(alias="issueDate")
    next_update: Time = Field(alias="nextUpdate")
    evaluation_data_number: int = Field(ge=0, alias="tcbEvaluationDataNumber")
    mrsigner: Hex
    isv_prod_id: Isvsvn = Field(alias="isvprodid")
    levels: tuple[IsvLevel, ...] = Field(alias="tcbLevels", max_length=1000)

    @classmethod
    def parse(cls, text: str) -> QeIdentity:
        """Parse the signed text.

        Raises:
            UntrustedDataError: It is malformed, or of another version.
        """
        return _parse(cls, text, "QE identity")


class Grade(_Part):
    """What a platform is worth by our own reading.

    Attributes:
        status: Of platform, TDX module and quoting enclave together.
        advisories: Those of each part's level.
        date: When the platform's level was current.
    """

    status: TcbStatus
    advisories: tuple[str, ...]
    date: datetime


def grade(
    info: TcbInfo, identity: QeIdentity, *, platform: PlatformCertificate, body: SgxReport | TdReport, qe_svn: int
) -> Grade:
    """Find the levels of a platform and bring them together.

    Args:
        info: The TCB information for the platform.
        identity: The identity of its quoting enclave.
        platform: What its PCK certificate says.
        body: The report; for TDX it says more of the TCB.
        qe_svn: The security version of the quoting enclave.

    Raises:
        UntrustedDataError: A part has no level: Intel does not support it.
    """
    level = _platform_level(info, platform, body)
    status, advisories = level.status, list(level.advisories)
    quoting = _isv_level(identity.levels, qe_svn, "quoting enclave")
    others = [quoting]
    if isinstance(body, TdReport) and (module := _module_level(info, body.tee_tcb_svn)):
        others.append(module)
    for other in others:
        status = _converge(status, other.status)
        advisories += other.advisories
    return Grade(status=status, advisories=tuple(sorted(set(advisories))), date=level.date)


def _platform_level(info: TcbInfo, platform: PlatformCertificate, body: SgxReport | TdReport) -> PlatformLevel:
    for level in sorted(info.levels, key=_rank, reverse=True):
        if not _at_least(platform.components, level.tcb.sgx) or platform.pce_svn < level.tcb.pce_svn:
            continue
        if isinstance(body, TdReport):
            # From version 1 of the module on, its first two components have levels of their own.
            first = 2 if body.tee_tcb_svn[1] > 0 else 0
            if level.tcb.tdx is None or not _at_least(body.tee_tcb_svn[first:], level.tcb.tdx[first:]):
                continue
        return level
    raise UntrustedDataError("check TCB level: Intel's TCB information has no level for this platform")


def _rank(level: PlatformLevel) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    tdx = tuple(component.svn for component in level.tcb.tdx or ())
    return tuple(component.svn for component in level.tcb.sgx), level.tcb.pce_svn, tdx


def _at_least(got: Sequence[int], needed: Sequence[Component]) -> bool:
    return all(svn >= component.svn for svn, component in zip(got, needed, strict=True))


def _module_level(info: TcbInfo, tee_tcb_svn: bytes) -> IsvLevel | None:
    svn, version = tee_tcb_svn[0], tee_tcb_svn[1]
    if version == 0:
        return None
    identity = next((one for one in info.tdx_module_identities if one.id == f"TDX_{version:02X}"), None)
    if identity is None:
        raise UntrustedDataError(f"check TDX module: Intel's TCB information has no module TDX_{version:02X}")
    return _isv_level(identity.levels, svn, "TDX module")


def _isv_level(levels: Sequence[IsvLevel], svn: int, what: str) -> IsvLevel:
    for level in sorted(levels, key=lambda level: level.tcb.isvsvn, reverse=True):
        if svn >= level.tcb.isvsvn:
            return level
    raise UntrustedDataError(f"check TCB level: Intel has no level for this {what}, which has version {svn}")


def _converge(platform: TcbStatus, other: TcbStatus) -> TcbStatus:
    """Return the status of a platform of which another part (TDX module, quoting enclave) has a status."""
    if TcbStatus.REVOKED in (platform, other):
        return TcbStatus.REVOKED
    if other is TcbStatus.UP_TO_DATE:
        return platform
    if other is not TcbStatus.OUT_OF_DATE:
        raise UntrustedDataError(f"check TCB level: got status {other}, which no module and no quoting enclave has")
    if platform in (TcbStatus.UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED):
        return TcbStatus.OUT_OF_DATE
    if platform in (TcbStatus.CONFIGURATION_NEEDED, TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED):
        return TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
    return platform


def _parse(model: type[_M], text: str, what: str) -> _M:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(element)[:60] for element in first["loc"])
    raise UntrustedDataError(f"{what}: {place or 'it'}: {first['msg']}")
