"""``sconify_image``: convert an image with one command. Only the result goes to standard output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from sconify.cli.errors import run_command
from sconify.cli.explanation import print_explanation
from sconify.cli.progress import TerminalProgress
from sconify.convert import Conversion, convert, explain
from sconify.image.reference import ImageReference
from sconify.program.services import SUPPORTED
from sconify.request import DEFAULT_LAS, Request, check_name, parse_variable, start_up_variable

_EPILOG = f"""\b
Images are named as skopeo names them: docker-daemon:NAME, docker-archive:FILE, oci:DIRECTORY:TAG;
a bare name is looked up in the local Docker engine.

\b
Service libraries are found for: {SUPPORTED}
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=_EPILOG)
@click.option("--from", "native", required=True, metavar="NATIVE_IMAGE", help="Native image to convert.")
@click.option("--to", "target", required=True, metavar="TO_IMAGE", help="Encrypted image to make.")
@click.option("--binary", required=True, help="Binary of the native image which is to run: a path or a bare name.")
@click.option("--name", metavar="SESSION", help="Name of the session.  [default: TO_IMAGE without '/']")
@click.option("--namespace", help="Namespace of the session.  [default: a random one, created]")
@click.option("--create-namespace", is_flag=True, help="Create the namespace if it does not exist.")
@click.option("--service-name", default="service", show_default=True, help="Name of the service in the session.")
@click.option("--base", metavar="BASE_IMAGE", help="Image on which the encrypted one stands.  [default: an empty one]")
@click.option(
    "--command", metavar="SESSION_CMD", help="Command to run.  [default: ENTRYPOINT + CMD of the native image]"
)
@click.option("--env", multiple=True, metavar="KEY=VALUE", help="One more environment variable for the session.")
@click.option("--dir", "directories", multiple=True, metavar="DIRECTORY", help="Encrypt this directory.")
@click.option("--plain", multiple=True, metavar="DIRECTORY", help="Copy this directory unencrypted, but authenticated.")
@click.option("--plain-file", multiple=True, metavar="FILE", help="Copy this file unencrypted, but authenticated.")
@click.option("--host-path", multiple=True, metavar="PATH", help="Let the host provide this path, unprotected.")
@click.option("--cas", metavar="CAS_ADDR", help="CAS to use.  [default: an embedded one on this machine, for tests]")
@click.option("--cas-debug", is_flag=True, help="Permit the CAS to be in debug mode.")
@click.option("--las", default=DEFAULT_LAS, show_default=True, metavar="LAS_ADDR", help="LAS where the container runs.")
@click.option("--heap", default="1G", show_default=True, help="Heap size [SCONE_HEAP].")
@click.option("--stack", default="1M", show_default=True, help="Stack size [SCONE_STACK].")
@click.option("--dlopen", type=click.Choice(["0", "1", "2"]), default="1", show_default=True,
              help="Shared objects loaded later: 0 none, 1 protected ones, 2 any [SCONE_ALLOW_DLOPEN].")  # fmt: skip
@click.option("--fork", type=click.Choice(["0", "1"]), help="0 forbids fork [SCONE_FORK].  [default: allowed]")
@click.option("--key-file", type=click.Path(path_type=Path), metavar="FILE",
              help="File system key as 64 hex digits, for reproducible images.  [default: a fresh one]")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace TO_IMAGE if it exists.")
@click.option("--explain", "explain_only", is_flag=True, help="Show which path goes where and why; make nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.option("-v", "--verbose", is_flag=True, help="Show each path of --explain, and the session without secrets.")
@click.option("--no-color", is_flag=True, help="No colours.")
def sconify_image(
    *,
    native: str,
    target: str,
    binary: str,
    name: str | None,
    namespace: str | None,
    create_namespace: bool,
    service_name: str,
    base: str | None,
    command: str | None,
    env: Sequence[str],
    directories: Sequence[str],
    plain: Sequence[str],
    plain_file: Sequence[str],
    host_path: Sequence[str],
    cas: str | None,
    cas_debug: bool,
    las: str,
    heap: str,
    stack: str,
    dlopen: str,
    fork: str | None,
    key_file: Path | None,
    overwrite: bool,
    explain_only: bool,
    as_json: bool,
    verbose: bool,
    no_color: bool,
) -> None:
    """Turn a native container image into an encrypted, attested one.

    Prints NAMESPACE/SESSION, the name of the uploaded session. Then: docker run TO_IMAGE
    """
    variables = {
        "SCONE_ALLOW_DLOPEN": dlopen,
        "SCONE_HEAP": start_up_variable("SCONE_HEAP", heap, flag="--heap"),
        "SCONE_STACK": start_up_variable("SCONE_STACK", stack, flag="--stack"),
    }
    if fork is not None:
        variables["SCONE_FORK"] = fork
    if name is not None:
        check_name(name, flag="--name", nested=False)
    if namespace is not None:
        check_name(namespace, flag="--namespace", nested=True)
    request = Request(
        native=ImageReference.parse(native),
        target=ImageReference.parse(target),
        binary=binary,
        directories=tuple(directories),
        plain_directories=tuple(plain),
        plain_files=tuple(plain_file),
        host_paths=tuple(host_path),
        base=None if base is None else ImageReference.parse(base),
        command=command,
        environment=tuple(parse_variable(text) for text in env),
        session=name,
        namespace=namespace,
        create_namespace=create_namespace,
        service=check_name(service_name, flag="--service-name", nested=False),
        cas=cas,
        cas_debug=cas_debug,
        las=las,
        variables=variables,
        key_file=key_file,
        overwrite=overwrite,
    )
    if explain_only:
        print_explanation(explain(request), as_json=as_json, verbose=verbose, color=not no_color)
        return
    with TerminalProgress(color=not no_color) as progress:
        conversion = convert(request, progress=progress)
    click.echo(json.dumps(_document(conversion), indent=2) if as_json else conversion.session)


def _document(conversion: Conversion) -> dict[str, object]:
    return {
        "session": conversion.session,
        "session_hash": conversion.session_hash,
        "config_id": conversion.config_id,
        "measurement": conversion.measurement,
        "image": str(conversion.image.reference),
        "digest": conversion.image.digest,
        "image_id": conversion.image.image_id,
        "size": conversion.image.size,
        "native_size": conversion.native_size,
        "chosen_size": conversion.chosen_size,
        "cas": conversion.cas,
        "las": conversion.las,
        "steps": [{"name": step.name, "seconds": round(step.seconds, 3)} for step in conversion.steps],
    }


def main() -> None:
    """Run the command."""
    run_command(sconify_image, "sconify_image")
