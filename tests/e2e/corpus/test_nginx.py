"""nginx with its master and workers, which change their user: files of every size, as the native one serves them."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.containers import Container, run
from tests.e2e.corpus import services
from tests.e2e.corpus.conftest import MakePair, Pair, wait_for_port

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def nginx(pair: MakePair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(services.nginx(tmp_path_factory.mktemp("www")))


def test_files_of_every_size_are_served(nginx: Pair, start: Callable[..., Container]) -> None:
    for image in (nginx.native, nginx.encrypted):
        container = start(image)
        wait_for_port(container, 8080)
        base = f"http://{container.address()}:8080"
        for name, size in services.NGINX_FILES.items():
            content = httpx.get(f"{base}/{name}", timeout=30).content
            assert len(content) == size
            block = services.block_of(name)
            assert content == block * (size // len(block))
        part = httpx.get(f"{base}/100m", headers={"Range": "bytes=1048570-1048580"})
        whole = services.block_of("100m")
        assert (part.status_code, part.content) == (206, whole[-6:] + whole[:5])
        assert httpx.get(f"{base}/").text == "<h1>hello</h1>\n"
        assert httpx.get(f"{base}/status").status_code == 204
        missing = httpx.get(f"{base}/missing")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html")
        not_modified = httpx.get(
            f"{base}/1k", headers={"If-None-Match": httpx.get(f"{base}/1k").headers["etag"]}
        ).status_code
        assert not_modified == 304


def test_workers_are_replaced_and_the_end_is_graceful(nginx: Pair, start: Callable[..., Container]) -> None:
    for image in (nginx.native, nginx.encrypted):
        container = start(image)
        wait_for_port(container, 8080)
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
        assert run("docker", "wait", container.name).stdout.strip() == "0"


def workers_of(container: Container) -> list[tuple[str, str]]:
    """Process ids, as the host sees them, and users of the workers."""
    lines = run("docker", "top", container.name, "-eo", "pid,uid,args").stdout.splitlines()[1:]
    return [(words[0], words[1]) for words in map(str.split, lines) if "worker" in words]
