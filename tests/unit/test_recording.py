"""Recordings whose container is played by a double: what can't happen with a sane engine."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sconify import recording
from sconify.errors import ServiceError, UserError
from sconify.image.container import Container
from sconify.recording import Run, record


class Played:
    """A container that leaves a record behind."""

    def __init__(self, text: str) -> None:
        self._text = text

    def put(self, archive: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            names = tar.getnames()
        assert {".sconify-trace/strace", ".sconify-trace/loader", ".sconify-trace/libc.so.6"} <= set(names)

    def run(self, **_: Any) -> int:
        return 1

    def read(self, _path: str, _limit: int) -> bytes:
        return self._text.encode()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def play(text: str) -> None:
        class Engine:
            def inspect(self, _name: str) -> dict[str, Any]:
                return {"Config": {"Cmd": ["program"], "WorkingDir": "/srv"}}

            @contextmanager
            def container(self, _image: str, *, entrypoint: list[str], **_: Any) -> Iterator[Played]:
                assert entrypoint[0] == "/.sconify-trace/loader"
                yield Played(text)

            def close(self) -> None:
                pass

        monkeypatch.setattr(recording, "Engine", Engine)

    return play


def recorded() -> tuple[str, ...]:
    return record(Run(image="native"), show=lambda _: None, note=lambda _: None).paths


def test_paths_are_those_of_the_image(played: Callable[[str], None]) -> None:
    played(
        'execve("/bin/program", ["program"...], 0x7ffe /* 3 vars */) = 0\n'
        '7  openat(AT_FDCWD</srv>, "data", O_RDONLY) = 3</srv/data>\n'
        '7  openat(AT_FDCWD</srv>, "/proc/self/maps", O_RDONLY) = 3\n'
        '7  openat(AT_FDCWD</srv>, "/.sconify-trace/libc.so.6", O_RDONLY) = 3\n'
    )
    assert recorded() == ("/bin/program", "/srv/data")


def test_a_program_that_opens_nothing_of_the_image(played: Callable[[str], None]) -> None:
    played('openat(AT_FDCWD</srv>, "/proc/self/maps", O_RDONLY) = 3\n')
    with pytest.raises(UserError) as caught:
        recorded()
    assert caught.value.what == "native opened no file before it ended with 1"
    assert "give its arguments after --" in (caught.value.remedy or "")


def test_a_machine_without_strace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ServiceError) as caught:
        recorded()
    assert caught.value.diagnostics() == "strace is not installed; install strace (apt install strace)"
    monkeypatch.setattr("shutil.which", lambda _: "/sbin/ldconfig.real")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: type("Done", (), {"stdout": "statically linked"}))
    with pytest.raises(ServiceError, match="has no dynamic loader: got"):
        recorded()


def test_a_record_that_is_too_large() -> None:
    class Docker:
        def get_archive(self, _path: str) -> tuple[Iterator[bytes], None]:
            return iter([bytes(1 << 20)] * 3), None

    with pytest.raises(ServiceError) as caught:
        Container(Docker()).read("/record", 1 << 20)  # type: ignore[arg-type]
    assert caught.value.what == "/record has more than 1048576 bytes"
    assert caught.value.remedy == "let the program do less"
