"""``--explain-html``: the plan of a conversion as one page that needs nothing from outside and runs no script.

Every text in it comes from an image that may be anybody's: Jinja escapes it, characters that could hide or reorder text
are spelled out, and the page's own policy forbids scripts and requests.
"""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from rich.filesize import decimal

from sconify.cli.explanation import expected_measurement
from sconify.cli.treemap import Rectangle, squarified
from sconify.explanation import Explanation
from sconify.image.storage import writing
from sconify.shield.explain import rows
from sconify.shield.plan import Plan
from sconify.shield.regions import RegionKind

WIDTH, HEIGHT = 1200, 620
"""Of the drawing, in its own units."""

_HEADING, _EDGE = 18.0, 2.0
_SMALLEST = 60.0
"""Area below which a directory is drawn as one block."""
_LABEL_HEIGHT, _CHARACTER_WIDTH = 14.0, 6.6
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that do not show, or change how others do."""

_ORDER = (RegionKind.ENCRYPTED, RegionKind.AUTHENTICATED, RegionKind.EPHEMERAL, RegionKind.HOST)


@dataclass(slots=True)
class _Directory:
    """Files by directory, with their sizes."""

    size: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    """Bytes of each protection."""
    parts: dict[str, _Directory] = field(default_factory=dict)

    def add(self, names: list[str], kind: str, size: int) -> None:
        """Count a file in this directory and in those on its way."""
        self.size += size
        self.kinds[kind] = self.kinds.get(kind, 0) + size
        if names:
            self.parts.setdefault(names[0], _Directory()).add(names[1:], kind, size)


@dataclass(frozen=True, slots=True)
class _Block:
    """One rectangle of the drawing."""

    place: Rectangle
    kind: str
    label: str
    title: str
    is_frame: bool


def write_page(explanation: Explanation, path: Path) -> None:
    """Write the page.

    Raises:
        UserError: The path can't be written.
        ServiceError: The disk is full.
    """
    text = page(explanation)
    with writing(path):
        path.write_text(text, encoding="utf-8")


def page(explanation: Explanation) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sconify.cli", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["size"] = decimal
    environment.filters["shown"] = shown
    choice, plan = explanation.choice, explanation.choice.plan
    shares = _shares(plan)
    return environment.get_template("explanation.html").render(
        program=choice.program.path,
        command=shlex.join(choice.command),
        working_directory=choice.working_directory,
        variables=sorted(choice.environment),
        measurement=explanation.measurement,
        depends_on=expected_measurement(explanation),
        warnings=plan.warnings,
        rows=rows(plan),
        entries=[
            (path, planned.kind.value, planned.entry.size if planned.entry.content else None, planned.reason)
            for path, planned in plan.entries.items()
        ],
        left_out=plan.omitted,
        shares=shares,
        total=sum(share for _, share in shares) or 1,
        blocks=list(_blocks(_tree(plan), "", Rectangle(0, 0, WIDTH, HEIGHT), _regions(plan))),
        width=WIDTH,
        height=HEIGHT,
    )


def shown(text: str) -> str:
    """Return text in which every character that does not show, or reorders others, is spelled out."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _HIDDEN else character
        for character in text
    )


def _shares(plan: Plan) -> list[tuple[str, int]]:
    """Return bytes by protection, and of what is left out."""
    sizes = dict.fromkeys((kind.value for kind in _ORDER), 0)
    for planned in plan.entries.values():
        if planned.entry.content is not None:
            sizes[planned.kind.value] += planned.entry.size
    return [(kind, size) for kind, size in (*sizes.items(), ("left out", plan.omitted_size)) if size]


def _regions(plan: Plan) -> dict[str, str]:
    return {region.prefix: region.reason for region in plan.regions}


def _tree(plan: Plan) -> _Directory:
    root = _Directory()
    for path, planned in plan.entries.items():
        if planned.entry.content is not None and planned.entry.size:
            root.add(path.split("/")[1:], planned.kind.value, planned.entry.size)
    return root


def _blocks(directory: _Directory, path: str, place: Rectangle, regions: dict[str, str]) -> Iterator[_Block]:
    """Yield a directory's rectangle and those in it, as far as they are large enough to be seen."""
    if place.width < 1 or place.height < 1:
        return
    kind = max(directory.kinds, key=lambda one: directory.kinds[one]) if directory.kinds else "host"
    reason = f" - {regions[path]}" if path in regions else ""
    held = ", ".join(f"{decimal(size)} {name}" for name, size in sorted(directory.kinds.items()))
    title = f"{path or '/'}: {held}{reason}"
    name = path.rpartition("/")[2] if path else "/"
    opened = bool(directory.parts) and place.area >= _SMALLEST * len(directory.parts) ** 0.5
    has_heading = opened and place.height > 3 * _HEADING
    label = _label(name, place) if has_heading or not opened else ""
    yield _Block(place, kind, label, title, is_frame=opened)
    if not opened:
        return
    inner = place.inset(_EDGE, _HEADING if label else _EDGE)
    parts = sorted(directory.parts.items(), key=lambda item: (-item[1].size, item[0]))
    for (part, below), where in zip(parts, squarified([below.size for _, below in parts], inner), strict=True):
        yield from _blocks(below, f"{path}/{part}", where, regions)


def _label(name: str, place: Rectangle) -> str:
    """Return as much of a name as fits."""
    room = int((place.width - 6) / _CHARACTER_WIDTH)
    if place.height < _LABEL_HEIGHT or room < min(len(name), 4):
        return ""
    return name if len(name) <= room else f"{name[: room - 1]}\N{HORIZONTAL ELLIPSIS}"
