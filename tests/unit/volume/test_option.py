from __future__ import annotations

import pytest
import yaml

from sconify.errors import UserError
from sconify.policy.session import parse_session
from sconify.volume.option import VolumeOption, parse_volumes


@pytest.mark.parametrize(
    ("text", "path", "imported_from", "exported_to"),
    [
        ("my_vol:/vol/simple-vol", "/vol/simple-vol", None, ()),
        ("my_vol:/vol/simple-vol:", "/vol/simple-vol", None, ()),
        ("my_vol:/vol/in-vol:import-session:", "/vol/in-vol", "import-session", ()),
        ("my_vol:/vol/in-vol:team/session", "/vol/in-vol", "team/session", ()),
        ("my_vol:/vol/out-vol/::export-session", "/vol/out-vol", None, ("export-session",)),
        ("my_vol:/vol/many::policy-1:policy-2:policy-1", "/vol/many", None, ("policy-1", "policy-2")),
        ("my_vol://a//./b", "/a/b", None, ()),
    ],
)
def test_the_documented_forms_are_read(
    text: str, path: str, imported_from: str | None, exported_to: tuple[str, ...]
) -> None:
    expected = VolumeOption(name="my_vol", path=path, imported_from=imported_from, exported_to=exported_to)
    assert VolumeOption.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no path"),
        ("name", "no path"),
        (":/path", "no name"),
        ("na me:/path", "no name"),
        ("a/b:/path", "no name"),
        ("name:path", "absolute"),
        ("name:", "absolute"),
        ("name:/a/../b", "without .."),
        ("name:/", "whole file system"),
        ("name:/a:from:to", "imported from from and exported to to"),
        ("name:/a:fr om", "no name"),
        ("name:/a::t o", "no name"),
    ],
)
def test_other_forms_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        VolumeOption.parse(text)


def test_volumes_do_not_overlap() -> None:
    assert [volume.name for volume in parse_volumes(("a:/data", "b:/database"))] == ["a", "b"]
    for texts, message in (
        (("a:/x", "a:/y"), "twice"),
        (("a:/x", "b:/x"), "overlap"),
        (("a:/x/y", "b:/x"), "overlap"),
        (("a:/x", "b:/x/y"), "overlap"),
    ):
        with pytest.raises(UserError, match=message):
            parse_volumes(texts)


def test_a_session_says_who_owns_a_volume() -> None:
    plain, imported, exported = parse_volumes(("a:/a", "b:/b:owner", "c:/c::one:two"))
    assert plain.volume_entry() == {"name": "a"}
    assert imported.volume_entry() == {"name": "b", "import": {"session": "owner", "volume": "b"}}
    assert exported.volume_entry() == {"name": "c", "export": [{"session": "one"}, {"session": "two"}]}
    assert exported.image_entry() == {"name": "c", "path": "/c"}


def test_sessions_take_the_entries() -> None:
    volumes = parse_volumes(("a:/a", "b:/b:owner", "c:/c::one:team/two"))
    session = {
        "name": "session",
        "version": "0.3",
        "services": [
            {
                "name": "service",
                "image_name": "image",
                "attestation": {"mrenclave": ["0a" * 32]},
                "command": "program",
                "environment": {},
                "pwd": "/",
            }
        ],
        "images": [{"name": "image", "volumes": [volume.image_entry() for volume in volumes]}],
        "volumes": [volume.volume_entry() for volume in volumes],
    }
    parsed = parse_session(yaml.safe_dump(session))
    assert [volume.name for volume in parsed.volumes] == ["a", "b", "c"]
    assert [volume.path for volume in parsed.images[0].volumes] == ["/a", "/b", "/c"]
