"""nginx with its master and workers, which change their user: files of every size, as the native one serves them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import httpx
import pytest

from tests.containers import Container, run
from tests.e2e.corpus import services
from tests.e2e.corpus.conftest import MakePair, Pair, comes_up, conversations
from tests.e2e.corpus.engines import Way, ways

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def nginx(pair: MakePair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(services.nginx(tmp_path_factory.mktemp("www")))


def serves(container: Container, sizes: Mapping[str, int]) -> None:
    """Ask for whole files, and compare every byte."""
    for name, size in sizes.items():
        expected = hashlib.sha256()
        for piece in services.pieces_of(name, size):
            expected.update(piece)
        got, count = hashlib.sha256(), 0
        with httpx.stream("GET", f"http://{container.address()}:8080/{name}", timeout=120) as response:
            for chunk in response.iter_raw(1 << 20):
                got.update(chunk)
                count += len(chunk)
        assert (response.status_code, count, got.hexdigest()) == (200, size, expected.hexdigest()), name


def ask(container: Container) -> list[str]:
    """Ask for all files, for parts of one, and for what is not there."""
    serves(container, services.NGINX_FILES)
    base = f"http://{container.address()}:8080"
    part = httpx.get(f"{base}/100m", headers={"Range": "bytes=1048570-1048580"})
    tag = httpx.get(f"{base}/1k").headers["etag"]
    unchanged = httpx.get(f"{base}/1k", headers={"If-None-Match": tag})
    missing = httpx.get(f"{base}/missing")
    # More than the 16 KiB that nginx keeps in memory: a file in the directory that it can write to.
    upload = httpx.post(f"{base}/1k", content=bytes(100_000))
    return [
        f"{part.status_code} {part.content.hex()}",
        httpx.get(f"{base}/").text,
        str(httpx.get(f"{base}/status").status_code),
        f"{missing.status_code} {missing.headers['content-type']}",
        str(unchanged.status_code),
        str(upload.status_code),
    ]


@pytest.mark.parametrize("way", ways("docker-plain"), indirect=True)
def test_files_of_every_size_are_served(nginx: Pair, way: Way, start: Callable[..., Container]) -> None:
    native, encrypted = conversations(nginx, way, start, 8080, ask)
    assert encrypted == native
    # Without its capabilities, root can neither write to www-data's directories nor become www-data.
    assert len(native) == (1 if way.mode.takes_capabilities_from_root else 6)


@pytest.mark.corpus
@pytest.mark.timeout(1800)
def test_a_file_of_a_gibibyte_is_served(
    pair: MakePair, start: Callable[..., Container], tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = pair(services.nginx(tmp_path_factory.mktemp("big"), services.BIG_NGINX_FILES))
    for image in (made.native, made.encrypted):
        container = start(image)
        assert comes_up(container, 8080)
        serves(container, services.BIG_NGINX_FILES)
        last = httpx.get(f"http://{container.address()}:8080/1g", headers={"Range": "bytes=-5"})
        assert last.content == list(services.pieces_of("1g", 1 << 30))[-1][-5:]
    run("docker", "rmi", "--force", made.native, made.encrypted)


def test_workers_are_replaced_and_the_end_is_graceful(nginx: Pair, start: Callable[..., Container]) -> None:
    for image in (nginx.native, nginx.encrypted):
        container = start(image)
        assert comes_up(container, 8080)
        workers = workers_of(container)
        assert len(workers) == 2
        assert {user for _, user in workers} == {"33"}
        run("kill", "-KILL", workers[0][0])
        address = f"http://{container.address()}:8080/64k"
        for _ in range(20):
            assert len(httpx.get(address).content) == 1 << 16
        run("docker", "kill", "--signal", "HUP", container.name)
        for _ in range(20):
            assert len(httpx.get(address).content) == 1 << 16
        run("docker", "stop", "--time=10", container.name)
        assert container.wait() == 0


def workers_of(container: Container) -> list[tuple[str, str]]:
    """Process ids, as the host sees them, and users of the workers."""
    lines = run("docker", "top", container.name, "-eo", "pid,uid,args").stdout.splitlines()[1:]
    return [(words[0], words[1]) for words in map(str.split, lines) if "worker" in words]
