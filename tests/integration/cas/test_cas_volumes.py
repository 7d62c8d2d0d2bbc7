"""Volumes over the real protocol: keys, newest states, sharing, and what a second writer gets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.cas_server import Answer, Client, Enclave, RunningCas, session_text

ONE, TWO = "11" * 32, "22" * 32


def with_volumes(name: str, volumes: str, mounts: str, extra: str = "") -> str:
    sections = f"images: [{{name: image, volumes: [{mounts}]}}]\nvolumes: [{volumes}]\n{extra}"
    return session_text(name, extra=sections).replace("- name: web", "- name: web\n    image_name: image")


class Run:
    """An attested run."""

    def __init__(self, cas: RunningCas, config_id: str) -> None:
        self.enclave: Enclave = cas.enclave(config_id)
        self.answer = self.enclave.attest()
        assert self.answer.status == 200, self.answer
        self.configuration: dict[str, Any] = self.enclave.open(self.answer.body["sealed"])
        self.volumes = {volume["name"]: volume for volume in self.configuration.get("volumes", [])}

    def advance(self, volume: str, root: str, counter: int) -> Answer:
        token = self.answer.body["session_token"]
        return self.enclave.post(f"/v1/volumes/{volume}", {"root": root, "counter": counter}, token=token)

    def read(self, volume: str) -> Answer:
        return self.enclave.get(f"/v1/volumes/{volume}", token=self.answer.body["session_token"])


def test_a_volume_has_a_key_that_stays_and_a_state_that_grows(cas: RunningCas, client: Client, name: str) -> None:
    text = with_volumes(name, "{name: v}", "{name: v, path: /data/}")
    created = client.upload(text).body["hash"]
    run = Run(cas, f"{name}/web")
    volume = run.volumes["v"]
    assert volume == {
        "name": "v",
        "path": "/data",
        "key": volume["key"],
        "update_policy": "rollback_protected",
        "root": None,
        "counter": 0,
        "strict": False,
        "cas_absence_seconds": 3600,
    }
    assert len(bytes.fromhex(volume["key"])) == 32
    assert run.advance("v", ONE, 1).status == 204
    assert run.advance("v", TWO, 5).status == 204
    assert run.advance("v", TWO, 5).status == 204  # sent again: the answer was lost
    for root, counter in ((ONE, 5), (ONE, 4), (TWO, 1)):
        assert run.advance("v", root, counter).status == 409
    assert run.read("v").body == {"root": TWO, "counter": 5}
    assert client.upload(text + f"predecessor: {created}").status == 201
    again = Run(cas, f"{name}/web").volumes["v"]
    assert (again["key"], again["root"], again["counter"]) == (volume["key"], TWO, 5)


def test_of_two_runs_that_mounted_the_same_state_one_goes_on(cas: RunningCas, client: Client, name: str) -> None:
    client.upload(with_volumes(name, "{name: v}", "{name: v, path: /data}"))
    first, second = Run(cas, f"{name}/web"), Run(cas, f"{name}/web")
    assert first.advance("v", ONE, 1).status == 204
    assert first.advance("v", ONE, 2).status == 204
    answer = second.advance("v", TWO, 9)
    assert (answer.status, "another run" in answer.message) == (409, True)
    third = Run(cas, f"{name}/web")
    assert third.volumes["v"]["counter"] == 2
    assert third.advance("v", TWO, 3).status == 204
    assert first.advance("v", ONE, 10).status == 409


def test_of_many_reports_at_once_one_wins(cas: RunningCas, client: Client, name: str) -> None:
    client.upload(with_volumes(name, "{name: v}", "{name: v, path: /data}"))
    runs = [Run(cas, f"{name}/web") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda run: run.advance("v", ONE, 1).status, runs))
    assert sorted(statuses) == [204] + [409] * 7


def test_what_a_run_may_not_report(cas: RunningCas, client: Client, name: str) -> None:
    mounts = "{name: v, path: /a}, {name: e, path: /b, update_policy: ephemeral}, "
    mounts += "{name: n, path: /c, update_policy: no_rollback_protection}"
    volumes = f"{{name: v}}, {{name: e, fspf_key: {ONE}, fspf_tag: {TWO}}}, {{name: n}}, {{name: unmounted}}"
    client.upload(with_volumes(name, volumes, mounts))
    run = Run(cas, f"{name}/web")
    assert (run.volumes["e"]["key"], run.volumes["e"]["root"]) == (ONE, TWO)
    assert run.volumes["n"]["root"] is None
    assert run.advance("e", ONE, 1).status == 403
    assert run.advance("n", ONE, 1).status == 403
    assert run.advance("unmounted", ONE, 1).status == 404
    token = run.answer.body["session_token"]
    bodies: list[object] = [{"root": "11", "counter": 1}, {"root": ONE}, {"root": ONE, "counter": 1, "more": 1}]
    bodies += [{"root": ONE, "counter": counter} for counter in (0, -1, True, 1.5, "1", None, 2**53)]
    for body in bodies:
        assert run.enclave.post("/v1/volumes/v", body, token=token).status == 400
    assert run.enclave.post("/v1/volumes/v", {"root": ONE, "counter": 1}).status == 401
    assert run.enclave.post("/v1/volumes/v", {"root": ONE, "counter": 1}, token="x").status == 401


def test_another_key_is_another_volume(cas: RunningCas, client: Client, name: str) -> None:
    text = with_volumes(name, f"{{name: v, fspf_key: {ONE}}}", "{name: v, path: /data}")
    created = client.upload(text).body["hash"]
    assert Run(cas, f"{name}/web").advance("v", ONE, 7).status == 204
    client.upload(text.replace(ONE, TWO) + f"predecessor: {created}")
    assert Run(cas, f"{name}/web").volumes["v"]["counter"] == 0


def test_a_volume_is_shared_when_both_sides_say_so(
    cas: RunningCas, client: Client, new_client: Callable[[], Client], name: str
) -> None:
    export = f"export: [{{to: [{name}-b], volume_alias: shared}}, {{to: [{name}-c], update_policy: ephemeral}}]"
    client.upload(with_volumes(f"{name}-a", f"{{name: v, {export}}}", "{name: v, path: /data}"))
    other = new_client()

    def importing(importer: str, volume: str, policy: str = "rollback_protected") -> Answer:
        imported = f"{{name: w, import: {{session: {name}-a, volume: {volume}}}}}"
        text = with_volumes(importer, imported, f"{{name: w, path: /w, update_policy: {policy}}}")
        assert other.upload(text).status == 201
        return cas.enclave(f"{importer}/web").attest()

    owner = Run(cas, f"{name}-a/web")
    assert owner.advance("v", ONE, 3).status == 204
    assert importing(f"{name}-d", "v").status == 403
    assert importing(f"{name}-c", "v").status == 403  # as ephemeral only
    assert importing(f"{name}-b", "shared").status == 200
    run = Run(cas, f"{name}-b/web")
    assert run.volumes["w"]["key"] == owner.volumes["v"]["key"]
    assert (run.volumes["w"]["root"], run.volumes["w"]["counter"]) == (ONE, 3)
    assert run.advance("w", TWO, 4).status == 204
    assert Run(cas, f"{name}-a/web").volumes["v"]["root"] == TWO


def test_readers_are_told_the_state_and_report_none(cas: RunningCas, client: Client, name: str) -> None:
    volumes = f"{{name: v, export: {{to: [{name}-b, {name}-c, {name}-d], read_only: true}}}}"
    client.upload(with_volumes(f"{name}-a", volumes, "{name: v, path: /data}"))
    owner = Run(cas, f"{name}-a/web")
    assert "read_only" not in owner.volumes["v"]
    assert owner.advance("v", ONE, 3).status == 204
    imported = f"{{name: v, import: {{session: {name}-a, volume: v}}}}"
    uses = {"b": "read_only: true", "c": "update_policy: ephemeral", "d": "strict: true"}
    for importer, use in uses.items():
        client.upload(with_volumes(f"{name}-{importer}", imported, f"{{name: v, path: /v, {use}}}"))
    reader = Run(cas, f"{name}-b/web")
    assert (reader.volumes["v"]["read_only"], reader.volumes["v"]["counter"]) == (True, 3)
    answer = reader.advance("v", TWO, 4)
    assert (answer.status, "read-only" in answer.message) == (403, True)
    assert Run(cas, f"{name}-c/web").volumes["v"]["update_policy"] == "ephemeral"
    refused = cas.enclave(f"{name}-d/web").attest()
    assert (refused.status, "to be read only" in refused.message) == (403, True)
    assert owner.advance("v", TWO, 4).status == 204
