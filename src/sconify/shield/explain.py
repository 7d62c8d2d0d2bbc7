"""The plan for people: a table of regions, and as one JSON-ready document."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sconify.shield.plan import Plan
from sconify.shield.regions import RegionKind, RegionMap


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the explanation: paths that share a protection and a reason. ``size`` is in bytes."""

    path: str
    protection: str
    reason: str
    files: int
    size: int


def rows(plan: Plan) -> list[Row]:
    """Return the regions with what they hold, then the single files grouped by reason."""
    regions = RegionMap(plan.regions)
    files: Counter[tuple[str, str, str]] = Counter()
    sizes: Counter[tuple[str, str, str]] = Counter()
    for region in plan.regions:
        files[region.prefix, region.kind.value, region.reason] += 0
    for path, planned in plan.entries.items():
        place = regions.region_of(path)
        if place is not None:
            group = (place.prefix, place.kind.value, place.reason)
        else:
            group = ("", planned.kind.value, planned.reason.partition(" needed by ")[0])
        if planned.entry.content is not None:
            files[group] += 1
            sizes[group] += planned.entry.size
    made = [Row(path, kind, reason, count, sizes[path, kind, reason]) for (path, kind, reason), count in files.items()]
    shown = [row for row in made if row.files or row.path]
    return sorted(
        shown, key=lambda row: (row.protection != RegionKind.ENCRYPTED.value, row.path == "", row.path, row.reason)
    )


def document(plan: Plan) -> dict[str, object]:
    """Return the plan as a JSON-ready document: every path with its protection and reason, and what is left out."""
    return {
        "regions": [
            {"prefix": region.prefix, "protection": region.kind.value, "reason": region.reason}
            for region in plan.regions
        ],
        "paths": {
            path: {"protection": planned.kind.value, "reason": planned.reason, "size": planned.entry.size}
            for path, planned in plan.entries.items()
        },
        "left_out": list(plan.omitted),
        "warnings": list(plan.warnings),
    }
