"""Images whose program keeps its data on an encrypted volume."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from sconify.policy.template import SessionTemplate
from tests.containers import Convert, run
from tests.e2e.volumes.programs import MOUNT, Notes, Recorder

SOURCES = Path(__file__).parent

MakeRecorder = Callable[..., Recorder]
"""The fixture ``recorder``."""

MakeNotes = Callable[..., Notes]
"""The fixture ``notes``."""


def native(program: str, directory: Path) -> str:
    """Build the image of one of the C programs here."""
    run("cc", "-O1", "-static", "-o", f"{directory}/{program}", str(SOURCES / f"{program}.c"))
    command = json.dumps([f"/{program}", MOUNT])
    (directory / "Dockerfile").write_text(f"FROM scratch\nCOPY {program} /{program}\nCMD {command}\n")
    tag = f"sconify-test/{program}:native"
    run("docker", "build", "--quiet", f"--tag={tag}", str(directory))
    return tag


def template(directory: Path, *, mount: str = "", volume: str = "") -> tuple[str, ...]:
    """Return the converter's options for a session that says more of its volume than ``--volume`` can.

    Args:
        directory: Where the template is put.
        mount: Keys of the volume's place, in YAML's flow style.
        volume: Keys of the volume.
    """
    if not mount and not volume:
        return ()
    text = SessionTemplate.default().text
    if mount:
        text = text.replace("{{ view.mounts(4) }}", f"    volumes:\n      - {{name: data, path: {MOUNT}, {mount}}}")
    if volume:
        text = text.replace("{{ view.volumes_section() }}", f"volumes:\n  - {{name: data, {volume}}}")
    file = directory / f"template-{uuid.uuid4().hex[:8]}.yml"
    file.write_text(text)
    return (f"--template={file}",)


@pytest.fixture(scope="session")
def recorder_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The native image of ``recorder.c``."""
    return native("recorder", tmp_path_factory.mktemp("recorder"))


@pytest.fixture(scope="session")
def notes_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The native image of ``notes.c``."""
    return native("notes", tmp_path_factory.mktemp("notes"))


@pytest.fixture(scope="module")
def recorder(recorder_image: str, convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> MakeRecorder:
    """Convert the native image; the arguments are the name of its session and what it says of the volume's place."""

    def make(name: str, mount: str = "") -> Recorder:
        directory = tmp_path_factory.mktemp(name)
        image = f"sconify-test/{name}:encrypted"
        convert(
            f"--from={recorder_image}", f"--to={image}", f"--name={name}", "--binary=/recorder", "--overwrite",
            f"--volume=data:{MOUNT}", *template(directory, mount=mount),
        )  # fmt: skip
        store = directory / "store"
        store.mkdir()
        return Recorder(image, store)

    return make


@pytest.fixture(scope="module")
def notes(notes_image: str, convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> MakeNotes:
    """Convert the native image.

    The arguments are the name of its session, what follows the path in ``--volume``, and what the session says besides
    of the volume and of its place.
    """

    def make(name: str, sharing: str = "", *, mount: str = "", volume: str = "") -> Notes:
        directory = tmp_path_factory.mktemp(name)
        image = f"sconify-test/{name}:encrypted"
        convert(
            f"--from={notes_image}", f"--to={image}", "--namespace=volumes", "--create-namespace", f"--name={name}",
            "--binary=/notes", "--overwrite", f"--volume=data:{MOUNT}{sharing}",
            *template(directory, mount=mount, volume=volume),
        )  # fmt: skip
        store = directory / "store"
        store.mkdir()
        return Notes(image, store)

    return make
