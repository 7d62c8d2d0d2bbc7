"""``sconify attest``, ``sconify platform`` and ``sconify cas collateral`` as a person uses them."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.attestation import vm
from sconify.attestation.evidence import las_report_data
from sconify.cli.errors import run_command
from sconify.cli.main import sconify as command
from sconify.platform_info import platform_info
from tests import attestation_vectors, ratls_certificate
from tests.amd_pki import AmdPki
from tests.attestation_vectors import needs_vectors
from tests.cas_server import serve_command, serve_environment
from tests.intel_pki import NOW, IntelPki, Level, State, new_key, sgx_body, td_body

INTEL, AMD = IntelPki(), AmdPki()


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def sconify(*arguments: object) -> Done:
    """Run the command in this process: its libraries take longer to load than it takes to run."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run_command(command, "sconify", [str(argument) for argument in arguments])
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    key = Ed25519PrivateKey.generate()
    bound = las_report_data(kind="tdx", las_key=key.public_key().public_bytes_raw(), report_data=b"d" * 64)
    evidence = vm.issue(
        kind="tdx",
        quote=INTEL.quote(td_body(report_data=bound)),
        certificate=b"",
        las_key=key,
        measurement=b"m" * 32,
        report_data=b"d" * 64,
    )
    quote = INTEL.quote(sgx_body())
    old = State(levels=(Level(svn=6), Level(svn=5, status="OutOfDate", advisories=("INTEL-SA-00657",))))
    contents: dict[str, bytes] = {
        "quote": quote,
        "quote.hex": quote.hex().encode() + b"\n",
        "quote.b64": base64.encodebytes(quote),
        "padded": quote + bytes(100),
        "evidence.json": json.dumps({"evidence": evidence}).encode(),
        "forged.json": json.dumps({**evidence, "measurement": "00" * 32}).encode(),
        "cert.der": ratls_certificate.certificate(new_key(), lambda data: INTEL.quote(sgx_body(report_data=data))),
        "report": AMD.report(),
        "sgx.json": json.dumps(INTEL.collateral_document("sgx")).encode(),
        "old.json": json.dumps(INTEL.collateral_document("sgx", old)).encode(),
        "tdx.json": json.dumps(INTEL.collateral_document("tdx")).encode(),
        "amd.pem": AMD.chain_pem(),
        "amd.crl": AMD.crl(),
        "vcek.der": AMD.vek().public_bytes(Encoding.DER),
        "roots.pem": INTEL.root_pem + AMD.ark.public_bytes(Encoding.PEM),
        "nothing": b"nothing of the kind",
        "empty": b"",
        "policy.yml": (
            f'name: a\nversion: "0.3"\nservices: [{{name: s, command: p, attestation: {{mrenclave: {"11" * 32}}}}}]\n'
            "security: {attestation: {tolerate: [simulated-platform, outdated-tcb, aepic-leak], "
            "outdated_tcb_until: 2026-06-30}}\n"
        ).encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def verify(files: Path, name: str, *options: object) -> Done:
    return sconify("attest", "verify", files / name, f"--test-root={files / 'roots.pem'}", f"--at={NOW}", *options)


def collateral(files: Path, *names: str) -> list[str]:
    return [f"--collateral={files / name}" for name in names]


@pytest.mark.parametrize("name", ["quote", "quote.hex", "quote.b64", "padded", "cert.der"])
def test_every_form_of_a_quote(files: Path, name: str) -> None:
    done = verify(files, name, *collateral(files, "sgx.json"), f"--policy={files / 'policy.yml'}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("sgx evidence: ACCEPTED\n")
    assert f"mrenclave       {'11' * 32}" in done.stdout
    assert "tolerated by the policy: simulated-platform" in done.stdout
    assert "a test root" in done.stdout


def test_the_verdict_in_json(files: Path) -> None:
    done = verify(files, "quote", *collateral(files, "old.json"), f"--policy={files / 'policy.yml'}", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["accepted"], document["kind"]) == (True, "sgx")
    assert document["judged_at"] == "2026-06-01T00:00:00+00:00"
    assert document["tolerated"] == ["simulated-platform", "TCB status OutOfDate", "INTEL-SA-00657"]
    assert document["claims"]["TCB status"] == "OutOfDate"
    assert all(check["passed"] for check in document["checks"])


def test_a_refusal_tells_each_check_and_what_mends_it(files: Path) -> None:
    done = verify(files, "quote", *collateral(files, "old.json"), "--json")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert not document["accepted"]
    failed = {check["name"]: check for check in document["checks"] if not check["passed"]}
    assert set(failed) == {"platform", "TCB status", "advisories"}
    assert failed["TCB status"]["got"] == "OutOfDate"
    assert "add outdated-tcb to security.attestation.tolerate" in failed["TCB status"]["remedy"]
    assert "is refused: check platform" in done.stderr
    text = verify(files, "quote", *collateral(files, "old.json"))
    assert "  FAILED  TCB status: got OutOfDate, expected UpToDate" in text.stdout
    assert "  ok      debug: off" in text.stdout


def test_a_program_in_a_confidential_vm(files: Path) -> None:
    for name, measured in (("evidence.json", True), ("forged.json", False)):
        done = verify(files, name, *collateral(files, "tdx.json"), "--json")
        document = json.loads(done.stdout)
        assert ("program measurement" in document["claims"]) == measured
        failed = [check["name"] for check in document["checks"] if not check["passed"]]
        assert failed == (["platform"] if measured else ["LAS signature"])


def test_a_report_with_certificates(files: Path) -> None:
    given = collateral(files, "amd.pem", "amd.crl")
    for options in ([*given, f"--certificate={files / 'vcek.der'}"], [*given, *collateral(files, "vcek.der")]):
        done = verify(files, "report", *options, "--json")
        document = json.loads(done.stdout)
        assert [check["name"] for check in document["checks"] if not check["passed"]] == ["platform"]
        assert document["claims"]["product"] == "Milan"
    without = verify(files, "report", *given)
    assert without.returncode == 3
    assert "FAILED  collateral: got there is no collateral amd/milan/vcek/" in without.stdout


def test_what_was_trusted_for_tests_is_not_trusted_otherwise(files: Path) -> None:
    done = sconify("attest", "verify", files / "quote", f"--at={NOW}")
    assert done.returncode == 3
    assert "FAILED  root: got" in done.stdout


@pytest.mark.parametrize("name", ["nothing", "empty", "sgx.json", "vcek.der", "roots.pem"])
def test_files_that_are_no_evidence(files: Path, name: str) -> None:
    done = verify(files, name)
    assert done.returncode in (2, 3)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert name in done.stderr


@pytest.mark.parametrize(
    "option", ["--at=noon", "--policy={}/nothing", "--collateral={}/nothing", "--certificate={}/nothing"]
)
def test_options_that_are_wrong(files: Path, option: str) -> None:
    done = verify(files, "quote", option.format(files))
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_an_air_gapped_cas_takes_in_a_bundle(files: Path, tmp_path: Path) -> None:
    first, second = (f"--state-dir={tmp_path / name}" for name in ("first", "second"))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    root = f"--test-root={files / 'roots.pem'}"
    names = [files / name for name in ("vcek.der", "amd.crl", "amd.pem", "tdx.json", "sgx.json")]
    wrong_order = sconify("cas", "collateral", "import", first, root, *names)
    assert wrong_order.returncode == 4
    assert "import them first" in wrong_order.stderr
    done = sconify("cas", "collateral", "import", first, root, *reversed(names))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    bundle = sconify("cas", "collateral", "export", first)
    (tmp_path / "bundle.json").write_text(bundle.stdout)
    assert sconify("cas", "collateral", "import", second, root, tmp_path / "bundle.json").returncode == 0
    shown = [json.loads(sconify("cas", "collateral", "show", where, "--json").stdout) for where in (first, second)]
    assert shown[0] == shown[1]
    assert {item["name"] for item in shown[0]} >= {"intel/sgx/b0c06f000000/platform", "amd/milan/crl"}
    distrusted = sconify("cas", "collateral", "import", second, tmp_path / "bundle.json")
    assert distrusted.returncode == 3
    assert "bundle.json" in distrusted.stderr


def test_test_roots_are_not_for_production(files: Path, tmp_path: Path) -> None:
    root = f"--test-root={files / 'roots.pem'}"
    command = serve_command("--production", f"--state-dir={tmp_path / 'state'}", root)
    done = subprocess.run(command, env=serve_environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "test roots are not for a CAS in production mode" in done.stderr


def test_what_this_host_offers() -> None:
    done = sconify("platform", "info")
    assert done.returncode == 0
    assert "Evidence:" in done.stdout
    document = json.loads(sconify("platform", "info", "--json").stdout)
    assert document["evidence"][-1] == "simulated"
    assert document["facts"].keys() >= {"/dev/sgx_enclave", "/sys/kernel/config/tsm/report"}


def test_a_host_with_hardware(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nflags\t\t: fpu sgx sgx_lc\n\nflags : other\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/sgx_enclave").touch()
    facts = {fact.name: fact.present for fact in platform_info(tmp_path).facts}
    assert (facts["CPU flag sgx"], facts["CPU flag sgx_lc"], facts["/dev/sgx_enclave"]) == (True, True, True)
    assert (facts["CPU flag tdx_guest"], facts["/dev/sev-guest"]) == (False, False)


@needs_vectors
def test_a_real_quote(tmp_path: Path) -> None:
    assert attestation_vectors.VECTORS is not None
    folder = attestation_vectors.VECTORS / "intel"
    name = "tdx_v4_uptodate"
    options = (f"--collateral={folder / name}.collateral.json", "--at=1751624191")
    done = sconify("attest", "verify", folder / f"{name}.quote.bin", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tdx evidence: ACCEPTED")
    assert sconify("attest", "verify", folder / f"{name}.quote.bin", *options[:1]).returncode == 3  # long expired
