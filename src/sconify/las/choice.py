"""Which platform's evidence this host gives."""

from __future__ import annotations

from sconify.attestation import simulated
from sconify.errors import UserError
from sconify.las.tsm import Tsm
from sconify.las.vm import VmProvider


def vm_provider(name: str, *, tsm: Tsm | None = None) -> VmProvider | None:
    """Return the provider of this VM's hardware, or None for the simulated platform.

    Args:
        name: ``tdx`` or ``snp``; ``auto``: what there is; ``simulated``: none.
        tsm: Where the hardware's reports come from; None: the kernel.

    Raises:
        UserError: This host does not give what is named.
    """
    tsm = tsm or Tsm()
    offered = tsm.kind() if name != simulated.KIND else None
    if name == simulated.KIND or (name == "auto" and offered is None):
        return None
    if offered is None or name not in ("auto", offered):
        raise UserError(
            f"this host gives no {name} evidence: it offers {offered or 'none of hardware'}",
            remedy="run `sconify platform info` to see why",
        )
    return VmProvider(offered, tsm)
