"""Writing into the real Docker engine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sconify.errors import ServiceError, UntrustedDataError, UserError
from sconify.image.compression import Compression
from sconify.image.config import ImageConfig
from sconify.image.layer_writer import LayerWriter
from sconify.image.publication import NewImage, StagedImage
from sconify.image.reference import ImageReference
from sconify.image.sink import exists, write_image
from sconify.image.sink_engine import StagedInEngine
from sconify.image.source import open_image

pytestmark = pytest.mark.docker
Run = Callable[..., str]
Stage = Callable[..., StagedImage]


def names_of(image_id: str, run: Run) -> list[str]:
    """All names of an image; empty if the engine does not have it."""
    return run("docker", "inspect", "-f", '{{join .RepoTags " "}}', image_id, check=False).split()


def content_of(text: str, tmp_path: Path) -> bytes:
    with open_image(ImageReference.parse(text), workdir=tmp_path) as image:
        return image.root.read(image.root.resolve("/hello"), 100)


def test_two_runs_give_the_same_image(repository: str, run: Run, stage: Stage, tmp_path: Path) -> None:
    name = f"{repository}:twice"
    results = []
    for _ in range(2):
        with stage(f"docker-daemon:{name}", content=b"twice") as staged:
            assert not exists(ImageReference.parse(f"docker-daemon:{name}"))
            results.append(staged.commit())
        assert run("docker", "inspect", "-f", "{{.Id}}", name) == results[-1].image_id
        assert content_of(f"docker-daemon:{name}", tmp_path) == b"twice"
        assert names_of(results[-1].image_id, run) == [name]
        run("docker", "rmi", name)
    assert results[0] == results[1]


@pytest.mark.parametrize("compression", Compression)
def test_a_bare_name_is_the_local_engine(repository: str, run: Run, stage: Stage, compression: Compression) -> None:
    name = f"{repository}:{compression.name.lower()}"
    written = stage(name, content=compression.name.encode(), compression=compression).commit()
    assert str(written.reference) == f"docker-daemon:{name}"
    assert run("docker", "inspect", "-f", "{{.Config.Env}} {{.Config.Cmd}}", name) == "[A=1] [/hello]"


def fail(staged: StagedImage, error: type[BaseException]) -> None:
    with staged:
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_no_trace(repository: str, run: Run, stage: Stage, error: type[BaseException]) -> None:
    staged = stage(f"docker-daemon:{repository}:aborted", content=repository.encode() + error.__name__.encode())
    [name] = names_of(staged.image.id, run)
    assert name.startswith("sconify-staging:")
    with pytest.raises(error):
        fail(staged, error)
    assert run("docker", "inspect", staged.image.id, check=False) == "[]"


def test_an_abort_keeps_an_equal_image_of_another_name(repository: str, run: Run, stage: Stage) -> None:
    written = stage(f"docker-daemon:{repository}:kept", content=b"kept").commit()
    stage(f"docker-daemon:{repository}:other", content=b"kept").abort()
    assert run("docker", "inspect", "-f", "{{.Id}}", f"{repository}:kept") == written.image_id
    assert not exists(ImageReference.parse(f"{repository}:other"))


def test_a_taken_tag_is_refused_and_may_be_overwritten(repository: str, run: Run, stage: Stage, tmp_path: Path) -> None:
    text = f"docker-daemon:{repository}:taken"
    first = stage(text, content=b"first")
    late = stage(text, content=b"late")
    replaced = first.commit()
    with pytest.raises(UserError, match="exists already") as caught:
        stage(text, content=b"second")
    assert "--overwrite" in (caught.value.remedy or "")
    with pytest.raises(UserError, match="was made by someone else meanwhile"), late:
        late.commit()
    assert content_of(text, tmp_path) == b"first"
    staged = stage(text, content=b"second", overwrite=True)
    assert content_of(text, tmp_path) == b"first"
    written = staged.commit()
    assert content_of(text, tmp_path) == b"second"
    assert names_of(written.image_id, run) == [text.removeprefix("docker-daemon:")]
    run("docker", "rmi", replaced.image_id)


def test_an_engine_that_does_not_run(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(ServiceError, match="can't be reached"):
        stage("some/name")


def test_a_layer_that_shrinks_while_it_is_sent_leaves_no_trace(repository: str, run: Run, tmp_path: Path) -> None:
    writer = LayerWriter(tmp_path / "layer", epoch=0)
    writer.add_bytes("/a", repository.encode() * 100_000)
    layer = writer.finish()
    image = NewImage.build(config=ImageConfig(), layers=[layer])
    with (tmp_path / "layer").open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(UntrustedDataError, match="bytes early"):
        write_image(
            ImageReference.parse(f"{repository}:short"), config=ImageConfig(), layers=[layer], workdir=tmp_path,
            overwrite=False,
        )  # fmt: skip
    assert run("docker", "inspect", image.id, check=False) == "[]"


class InterruptedWhileSending(StagedInEngine):
    """Ctrl-C when half of the bytes are sent."""

    def _archive(self) -> Iterator[bytes]:
        for number, chunk in enumerate(super()._archive()):
            if number == 20:
                signal.raise_signal(signal.SIGINT)
            yield chunk


class InterruptedWhileWaiting(StagedInEngine):
    """Ctrl-C while the engine, which has all bytes, registers the layer."""

    def _archive(self) -> Iterator[bytes]:
        yield from super()._archive()
        signal.setitimer(signal.ITIMER_REAL, 0.05)


@pytest.fixture
def alarm_is_interrupt() -> Iterator[None]:
    """Let the timer's signal do what Ctrl-C does."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm_is_interrupt")
@pytest.mark.parametrize("kind", [InterruptedWhileSending, InterruptedWhileWaiting])
def test_an_interrupt_leaves_no_trace(repository: str, run: Run, tmp_path: Path, kind: type[StagedInEngine]) -> None:
    (tmp_path / "random").write_bytes(os.urandom(100_000_000))
    writer = LayerWriter(tmp_path / "layer", epoch=0)
    writer.add_file("/random", tmp_path / "random")
    image = NewImage.build(config=ImageConfig(), layers=[writer.finish()])
    with pytest.raises(KeyboardInterrupt):
        kind(ImageReference.parse(f"docker-daemon:{repository}:interrupted"), image, overwrite=False)
    time.sleep(1)  # long enough for an engine that goes on by itself
    assert run("docker", "inspect", image.id, check=False) == "[]"


def test_several_writers_at_once(repository: str, run: Run, stage: Stage, tmp_path: Path) -> None:
    staged = stage(f"docker-daemon:{repository}:many", content=b"many")
    others = [stage(f"docker-daemon:{repository}:many-{number}", content=b"many") for number in range(3)]
    threads = [threading.Thread(target=other.abort) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = staged.commit()
    assert run("docker", "inspect", "-f", "{{.Id}}", f"{repository}:many") == written.image_id
