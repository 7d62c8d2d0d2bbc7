from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sconify.cli.explanation_page import page, shown, write_page
from sconify.errors import UserError
from sconify.explanation import Explanation
from sconify.image.model import Entry, EntryType, Extent
from sconify.shield.plan import Plan, PlannedEntry
from sconify.shield.regions import Region, RegionKind

HOSTILE = '/app/<script>alert(1)</script>"\u202e\n&'


def explanation(**changes: Any) -> Explanation:
    sizes = {"/app/secret": 3000, HOSTILE: 500, "/usr/lib/a.so": 90_000, "/usr/lib/b.so": 10_000}
    kinds = {path: RegionKind.ENCRYPTED if path.startswith("/app") else RegionKind.AUTHENTICATED for path in sizes}
    entries = {
        path: PlannedEntry(
            Entry(path=path, type=EntryType.FILE, mode=0o644, content=Extent(Path("/nowhere"), 0, size)),
            kinds[path],
            f"why {path}",
        )
        for path, size in sizes.items()
    }
    plan = Plan(
        regions=(Region("/app", RegionKind.ENCRYPTED, "--dir=/app"),),
        entries=entries,
        omitted=("/etc/<b>shadow",),
        warnings=("<img src=x onerror=alert(1)>",),
        omitted_size=77_000,
    )
    choice = SimpleNamespace(
        plan=plan, program=SimpleNamespace(path="/usr/bin/<i>"), command=("probe", "a b"), working_directory="/app",
        environment={"PATH": "/usr/bin", "TOKEN": "hunter2"},
    )  # fmt: skip
    values: dict[str, Any] = {"choice": choice, "measurement": "ab" * 32, "measurement_depends_on": "", **changes}
    return Explanation(**values)


class Tags(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


def test_nothing_comes_from_outside_and_nothing_is_run() -> None:
    text = page(explanation())
    tags = parsed(text)
    assert not {tag for tag, _ in tags.seen} & {"script", "link", "img", "iframe", "object", "a", "i", "b"}
    assert not [name for _, attributes in tags.seen for name in attributes if name.startswith("on") or name == "href"]
    assert not re.search(r"https?:|url\(|@import", text)
    policy = [attributes["content"] for tag, attributes in tags.seen if tag == "meta" and "http-equiv" in attributes]
    assert policy
    assert "default-src 'none'" in str(policy[0])


def test_it_says_what_the_table_says() -> None:
    text = parsed(page(explanation())).text
    for part in ("probe 'a b'", "ab" * 32, "/app/secret", "--dir=/app", "/etc/<b>shadow", "<img src=x", "TOKEN"):
        assert part in text
    assert "hunter2" not in text
    assert "\u202e" not in text
    assert 'alert(1)</script>"\\u202e\\n&' in text


def test_what_the_measurement_depends_on() -> None:
    text = parsed(page(explanation(measurement=None, measurement_depends_on="the key of the CAS"))).text
    assert "depends on the key of the CAS" in text


def test_areas_are_in_proportion_and_coloured_by_protection() -> None:
    rectangles = [
        attributes for tag, attributes in parsed(page(explanation())).seen
        if tag == "rect" and str(attributes.get("class")).endswith("leaf")
    ]  # fmt: skip
    areas: dict[str, float] = {}
    for one in rectangles:
        kind = str(one["class"]).split()[0]
        areas[kind] = areas.get(kind, 0) + float(str(one["width"])) * float(str(one["height"]))
    assert set(areas) == {"encrypted", "authenticated"}
    assert 15 < areas["authenticated"] / areas["encrypted"] < 45  # 100000 to 3500, less the frames


def test_characters_that_hide_are_spelled_out() -> None:
    assert shown("a\x1b[31m\u200b\udcff\u00e9") == "a\\x1b[31m\\u200b\\udcff\u00e9"


def test_it_is_written_or_refused(tmp_path: Path) -> None:
    write_page(explanation(), tmp_path / "plan.html")
    assert (tmp_path / "plan.html").read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(UserError, match="can't be written"):
        write_page(explanation(), tmp_path / "missing" / "plan.html")
