from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from sconify._shield import Volume
from sconify.errors import UserError
from sconify.volume.archive import export_archive, import_archive

KEY = bytes(range(32))


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume.create(str(tmp_path), KEY)


def exported(volume: Volume) -> dict[str, tarfile.TarInfo]:
    out = io.BytesIO()
    count = export_archive(volume, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        members = {member.name: member for member in archive}
        assert len(members) == count
        for member in members.values():
            if member.isreg():
                content = archive.extractfile(member)
                assert content is not None
                member.pax_headers = {**member.pax_headers, "content": content.read().decode("latin-1")}
    return members


def packed(*members: tarfile.TarInfo, content: bytes = b"") -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out


def member(name: str, kind: bytes = tarfile.REGTYPE, **attributes: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for attribute, value in attributes.items():
        setattr(made, attribute, value)
    return made


def test_everything_comes_back(volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = b"some content" * 3_000
    headers = {"mtime": "1700000000.123456789", "SCHILY.xattr.user.key": "value"}
    source = packed(
        member("./", tarfile.DIRTYPE, mode=0o1777, mtime=5),
        member("./d", tarfile.DIRTYPE, mode=0o750, uid=3, gid=4, mtime=7),
        member("./d/file", size=len(content), mode=0o4711, uid=1, gid=2, pax_headers=headers),
        member("./link", tarfile.LNKTYPE, linkname="./d/file"),
        member("./symlink", tarfile.SYMTYPE, linkname="d/file"),
        member("./fifo", tarfile.FIFOTYPE, mode=0o600),
        member("./device", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("implied/by/name"),
        content=content,
    )
    assert import_archive(volume, source) == 8
    found = exported(volume)
    assert sorted(found) == [
        ".", "./d", "./d/file", "./device", "./fifo", "./implied", "./implied/by", "./implied/by/name", "./link",
        "./symlink",
    ]  # fmt: skip
    # The first of two names has the content; the other one refers to it.
    assert found["./link"].pax_headers["content"].encode("latin-1") == content
    assert (found["./d/file"].type, found["./d/file"].linkname) == (tarfile.LNKTYPE, "./link")
    assert found["./link"].mode == 0o4711
    assert (found["./link"].uid, found["./link"].gid) == (1, 2)
    assert found["./link"].pax_headers["mtime"] == headers["mtime"]
    assert found["./link"].pax_headers["SCHILY.xattr.user.key"] == "value"
    assert found["./symlink"].linkname == "d/file"
    assert (found["./device"].devmajor, found["./device"].devminor) == (1, 3)
    assert (found["./d"].mode, found["./d"].uid, found["./d"].mtime) == (0o750, 3, 7)
    assert (found["."].mode, found["."].mtime) == (0o1777, 5)
    # What was exported is imported to the same again.
    out = io.BytesIO()
    export_archive(volume, out)
    other = Volume.create(str(tmp_path_factory.mktemp("other")), KEY)
    import_archive(other, io.BytesIO(out.getvalue()))
    again = io.BytesIO()
    export_archive(other, again)
    assert again.getvalue() == out.getvalue()
    assert other.check()["problems"] == []


def test_names_need_not_be_text(volume: Volume) -> None:
    volume.add(Volume.ROOT, b"\xff\xfe", kind="-")
    out = io.BytesIO()
    export_archive(volume, out)
    out.seek(0)
    with tarfile.open(fileobj=out, errors="surrogateescape") as archive:
        assert archive.getnames()[1].encode("utf-8", "surrogateescape") == b"./\xff\xfe"


def test_zeros_take_no_room(volume: Volume) -> None:
    import_archive(volume, packed(member("zeros", size=1 << 20), content=bytes(1 << 20)))
    volume.commit()
    assert volume.facts()["chunk_bytes"] == 0


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((member("../out"),), "leaves the volume"),
        ((member("a/../../out"),), "leaves the volume"),
        ((member("."),), "top directory"),
        ((member("a"), member("a")), "can't be added"),
        ((member("a"), member("a/b")), "no directory|can't be added"),
        ((member("a", tarfile.LNKTYPE, linkname="missing"),), "can't be added"),
    ],
)
def test_what_has_no_place_is_refused(volume: Volume, members: tuple[tarfile.TarInfo, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        import_archive(volume, packed(*members))


def test_what_is_no_archive_is_refused(volume: Volume) -> None:
    with pytest.raises(UserError, match="can't be read"):
        import_archive(volume, io.BytesIO(b"no archive" * 200))
