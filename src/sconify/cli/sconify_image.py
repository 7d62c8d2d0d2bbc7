"""``sconify_image``: convert an image with one command. Only the result goes to standard output."""

from __future__ import annotations

import json
import logging
from typing import Any

import click

from sconify import __version__
from sconify.cli.errors import run_command
from sconify.cli.explanation import print_explanation
from sconify.cli.explanation_page import write_page
from sconify.cli.image_options import image_options, remarks, request_of
from sconify.cli.option_groups import GroupedCommand
from sconify.cli.progress import Detail, TerminalProgress
from sconify.convert import Conversion, convert
from sconify.explanation import explain
from sconify.program.services import SUPPORTED

_EPILOG = f"""\b
Images are named as skopeo names them: docker://NAME, oci:DIRECTORY:TAG, oci-archive:FILE, docker-archive:FILE,
docker-daemon:NAME, containers-storage:NAME; a bare name is looked up in the local Docker engine, then in podman's
store, then in its registry.

\b
Service libraries are found for:
{SUPPORTED}
"""


@click.command(
    cls=GroupedCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=_EPILOG,
)
@image_options
@click.version_option(__version__, message="%(version)s")
def sconify_image(**values: Any) -> None:
    """Turn a native container image into an encrypted, attested one.

    Prints NAMESPACE/SESSION, the name of the uploaded session. Then: docker run TO_IMAGE
    """
    detail = Detail.of(values["log_level"], debug=values["debug"], verbose=values["verbose"])
    color = not values["no_color"]
    with TerminalProgress(color=color, detail=detail) as progress, _commands_shown(progress):
        request = request_of(values)
        for remark in remarks(values):
            progress.warn(remark)
        if values["explain_only"] or values["explain_html"] is not None:
            explanation = explain(request, note=progress.note)
            if values["explain_html"] is not None:
                write_page(explanation, values["explain_html"])
            print_explanation(explanation, as_json=values["as_json"], verbose=values["verbose"], color=color)
            return
        conversion = convert(request, progress=progress)
    click.echo(json.dumps(_document(conversion), indent=2) if values["as_json"] else conversion.session)


class _commands_shown(logging.Handler):  # noqa: N801 - used as a context manager
    """Hands what is logged, which is the commands that are run, to the progress."""

    def __init__(self, progress: TerminalProgress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.debug(record.getMessage())

    def __enter__(self) -> None:
        logger = logging.getLogger("sconify")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("sconify").removeHandler(self)


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
