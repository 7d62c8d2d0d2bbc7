"""The options of ``sconify_image``, and the request that they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sconify.cli.config_file import load_config
from sconify.cli.option_groups import Command, group
from sconify.errors import UserError
from sconify.image.compression import Compression
from sconify.image.reference import ImageReference
from sconify.image.registry import RegistryAccess
from sconify.request import (
    BUILD_RESOURCES,
    DEFAULT_LAS,
    Request,
    check_name,
    parse_size,
    parse_variable,
    start_up_variable,
)
from sconify.volume.option import parse_volumes

FILE = click.Path(path_type=Path)
LOG_LEVELS = ("trace", "info", "warning", "error", "fatal")
NOT_NEEDED = ("cli_image", "crosscompiler", "mprotect")
"""Options of other tools for the same job, which are accepted and have no effect here."""

_required = group("Required")
_optional = group("Optional")
_registry = group("Images and registries")
_defaults = group("Advanced: disable defaults")
_policy = group("Advanced: what the policy puts up with")
_binary_fs = group("Binary file system")
_variables = group("Start-up variables, measured")
_plan = group("Plan and result")
_debug = group("Debug")

_OPTIONS: tuple[Callable[..., Any], ...] = (
    _required("--from", "native", metavar="NATIVE_IMAGE", help="Native image to convert."),
    _required("--to", "target", metavar="TO_IMAGE", help="Encrypted image to make."),
    _required("--binary", metavar="BINARY",
              help="Binary of the native image which is to run: a path, a link or a bare name; --auto finds it."),
    _optional("--name", metavar="SESSION", help="Name of the session.  [default: TO_IMAGE without '/']"),
    _optional("--base", metavar="BASE_IMAGE", help="Image on which the encrypted one stands.  [default: an empty one]"),
    _optional("--command", metavar="SESSION_CMD",
              help="Command to run; may name secrets.  [default: ENTRYPOINT + CMD of the native image]"),
    _optional("--env", multiple=True, metavar="KEY=VALUE",
              help="One more variable for the session; may name secrets: $$SCONE::NAME$$."),
    _optional("--service-name", default="service", show_default=True, metavar="SERVICE_NAME",
              help="Name of the service in the session: SCONE_CONFIG_ID=NAMESPACE/SESSION/SERVICE_NAME."),
    _optional("--dir", "directories", multiple=True, metavar="DIRECTORY", help="Encrypt this directory."),
    _optional("--plain", multiple=True, metavar="DIRECTORY", help="Copy this directory unencrypted, authenticated."),
    _optional("--plain-file", multiple=True, metavar="FILE", help="Copy this file unencrypted, authenticated."),
    _optional("--host-path", multiple=True, metavar="PATH", help="Let the host provide this path, unprotected."),
    _optional("--volume", multiple=True, metavar="NAME:PATH[:[FROM_SESSION][:TO_SESSION...]]",
              help="Keep an encrypted volume at PATH; import it from a session, or export it to some."),
    _optional("--trace", type=FILE, metavar="TRACE_FILE",
              help="Encrypt the files that this output of strace, or this list of paths, names."),
    _optional("--replacement-image", multiple=True, metavar="IMAGE",
              help="Image with a build of BINARY that replaces one which can't run on the target platform."),
    _optional("--cas", metavar="CAS_ADDR",
              help="CAS to use, HOST[:CLIENT_PORT].  [default: an embedded one on this machine, for tests]"),
    _optional("--cas-enclave", metavar="[HOST][:PORT]",
              help="The CAS as the container reaches it.  [default: the host of --cas, port 18765]"),
    _optional("--cas-debug", is_flag=True, help="Permit the CAS to be in debug mode."),
    _optional("--cas-key", metavar="KEY_HASH", help="Key that the CAS must have.  [default: the one that is attested]"),
    _optional("--las", default=DEFAULT_LAS, show_default=True, metavar="LAS_ADDR",
              help="LAS, as the container reaches it."),
    _optional("--template", type=FILE, metavar="TEMPLATE_FILE",
              help="Template of the session, with $NAME variables.  [default: a built-in one]"),
    _optional("--session", "session_file", type=FILE, metavar="SESSION_FILE",
              help="Write the session into this file.  [default: session.yml in the build resources]"),
    _optional("--secrets", type=FILE, metavar="FILE", help="File with the policy's `secrets` section."),
    _optional("--injectedfiles", "injected_files", type=FILE, metavar="FILE",
              help="File with the policy's `injection_files` section."),
    _optional("--namespace", help="Namespace of the session.  [default: a random one, created]"),
    _optional("--create-namespace", is_flag=True, help="Create the namespace if it does not exist."),
    _optional("--identity", type=FILE, metavar="FILE",
              help="PEM (PKCS#8 key, certificate) or config.json to upload with.  [default: ~/.cas/config.json]"),
    _optional("--build-resources", type=FILE, metavar="DIRECTORY",
              help=f"Write Dockerfile, layers and session here.  [default: {BUILD_RESOURCES} if it is there]"),
    _optional("--key-file", type=FILE, metavar="FILE",
              help="File system key as 64 hex digits, for reproducible images.  [default: a fresh one]"),
    _optional("--overwrite", is_flag=True, help="Replace TO_IMAGE if it exists."),
    _registry("--push-image", "push", is_flag=True, help="Push TO_IMAGE to its registry and report its digest."),
    _registry("--compression", type=click.Choice(["zstd", "gzip", "none"]),
              help="Of the layers; zstd needs Docker 23.  [default: none for the local Docker engine, else gzip]"),
    _registry("--authfile", type=FILE, metavar="FILE",
              help="Credentials for registries.  [default: those of docker login or skopeo login]"),
    _registry("--registry-cert-dir", type=FILE, metavar="DIR",
              help="Certificates of registries' authorities (*.crt) and client certificates (*.cert, *.key)."),
    _registry("--insecure-registry", multiple=True, metavar="HOST[:PORT]",
              help="Registry without TLS, or with a certificate that nobody vouches for."),
    _registry("--allow-foreign-layers", is_flag=True,
              help="Fetch layers that an image keeps elsewhere from the URLs that it names; verified like all others."),
    _registry("--max-image-size", default="64G", show_default=True, metavar="SIZE",
              help="Refuse an image whose layers have more bytes uncompressed."),
    _registry("--cli", "cli_image", metavar="CLI_IMAGE", help="Accepted, not needed: no image is used to convert."),
    _registry("--crosscompiler", metavar="CROSSCOMPILER_IMAGE", help="Accepted, not needed: nothing is compiled."),
    _defaults("--disable-binary-symlink-detection", is_flag=True, help="Take no links to the binary along, make none."),
    _defaults("--disable-copy-shared-object-dependencies", is_flag=True,
              help="Leave the binary's shared objects out: the base image must have them."),
    _defaults("--disable-copy-service-libraries", is_flag=True,
              help="Leave the libraries of interpreters out; the list of them is below."),
    _defaults("--disable-copy-envvars", is_flag=True, help="Leave the native image's variables out of the session."),
    _defaults("--disable-ld-library-path-in-session", is_flag=True, help="Leave LD_LIBRARY_PATH out of the session."),
    _defaults("--disable-replace-unsconifiable-binaries", is_flag=True,
              help="Refuse a binary for another architecture, of 32 bits or with an unknown loader; replace none."),
    _defaults("--disable-session-upload/--enable-session-upload", default=False,
              help="Write the session to a file only; no CAS is contacted."),
    _defaults("--disable-update-session-if-exists", is_flag=True, help="Fail if the session exists already."),
    _defaults("--disable-attestation", is_flag=True, help="Do not attest the CAS. INSECURE."),
    _defaults("--disable-session-security-attestation", is_flag=True,
              help="Do not attest the service: anybody gets its secrets. INSECURE."),
    _binary_fs("--binary-fs", is_flag=True,
               help="Embed the file system in the binary, so that its measurement covers every file."),
    _binary_fs("--fs-dir", multiple=True, metavar="DIRECTORY", help="Embed this directory."),
    _binary_fs("--fs-file", multiple=True, metavar="FILE", help="Embed this file."),
    _binary_fs("--disable-binary-fs-defaults", is_flag=True,
               help="Embed no shared objects and no service libraries but those that are named."),
    _binary_fs("--binary-fs-plain", is_flag=True,
               help="Let everybody read what is embedded: measured as ever, but under a public key."),
    _binary_fs("--no-cache", is_flag=True, help="Do not remember how files compress, for the next conversion."),
    _policy("--allow-debug-mode", is_flag=True, help="Tolerate platforms in debug mode. INSECURE."),
    _policy("--allow-tcb-vulnerabilities", is_flag=True,
            help="Tolerate hyperthreading, an insecure iGPU or configuration, an outdated TCB, needed hardening."),
    _variables("--heap", default="1G", show_default=True, metavar="SIZE", help="Heap size [SCONE_HEAP]."),
    _variables("--stack", default="1M", show_default=True, metavar="SIZE", help="Stack size [SCONE_STACK]."),
    _variables("--dlopen", type=click.Choice(["0", "1", "2"]), default="1", show_default=True,
               help="Shared objects loaded later: 0 none, 1 protected ones, 2 any [SCONE_ALLOW_DLOPEN]."),
    _variables("--fork", type=click.Choice(["0", "1"]), help="0 forbids fork [SCONE_FORK].  [default: allowed]"),
    _variables("--mprotect", type=click.Choice(["0", "1"]), help="Accepted, not needed: programs may use mprotect."),
    _plan("--auto", is_flag=True, help="Find BINARY and the directories to encrypt in the image, and say why."),
    _plan("--config", type=FILE, metavar="FILE", is_eager=True, callback=load_config,
          help="YAML file with options; what stands on the command line wins. `sconify init` writes one."),
    _plan("--explain", "--dry-run", "explain_only", is_flag=True,
          help="Show which path goes where and why, and the expected measurement; make nothing."),
    _plan("--explain-html", type=FILE, metavar="FILE", help="Write that as a page, with the layout drawn by size."),
    _plan("--json", "as_json", is_flag=True, help="Print the result as one JSON document."),
    _debug("-x", "--debug", is_flag=True, help="Print each command that is run."),
    _debug("-v", "--verbose", is_flag=True,
           help="Print Dockerfile and session, without secrets; with --explain, each path."),
    _debug("--no-color", is_flag=True, help="No colours."),
    _debug("--log", "log_level", default="info", type=click.Choice(LOG_LEVELS, case_sensitive=False),
           show_default=True, help="What to print besides the result."),
)  # fmt: skip


def image_options(command: Command) -> Command:
    """Give a command the options, in the order above."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def request_of(values: dict[str, Any]) -> Request:
    """Return the request that the values of the options make.

    Raises:
        UserError: If one is missing or wrong; the message names it.
    """
    for name, flag in (("native", "--from"), ("target", "--to"), ("binary", "--binary")):
        if not values[name] and not (name == "binary" and values["auto"]):
            also = "; --auto finds it" if name == "binary" else ""
            raise UserError(
                f"{flag} is missing", remedy=f"give {flag}, on the command line or in the file of --config{also}"
            )
    if values["name"] is not None:
        check_name(values["name"], flag="--name", nested=False)
    if values["namespace"] is not None:
        check_name(values["namespace"], flag="--namespace", nested=True)
    if values["trace"] is not None and values["directories"]:
        raise UserError("--trace and --dir exclude each other", remedy="give one of the two")
    _check_mode(values)
    return Request(
        native=_image(values["native"], "--from"),
        target=_image(values["target"], "--to"),
        binary=values["binary"] or "",
        auto=values["auto"],
        directories=tuple(values["directories"]),
        plain_directories=tuple(values["plain"]),
        plain_files=tuple(values["plain_file"]),
        host_paths=tuple(values["host_path"]),
        volumes=parse_volumes(tuple(values["volume"])),
        binary_fs=values["binary_fs"],
        binary_fs_plain=values["binary_fs_plain"],
        binary_fs_defaults=not values["disable_binary_fs_defaults"],
        fs_directories=tuple(values["fs_dir"]),
        fs_files=tuple(values["fs_file"]),
        use_cache=not values["no_cache"],
        trace=values["trace"],
        base=None if values["base"] is None else _image(values["base"], "--base"),
        command=values["command"],
        environment=tuple(parse_variable(text) for text in values["env"]),
        session=values["name"],
        namespace=values["namespace"],
        create_namespace=values["create_namespace"],
        service=check_name(values["service_name"], flag="--service-name", nested=False),
        cas=values["cas"],
        cas_enclave=_cas_enclave(values),
        cas_debug=values["cas_debug"],
        cas_key=values["cas_key"],
        las=values["las"],
        variables=_start_up_variables(values),
        key_file=values["key_file"],
        overwrite=values["overwrite"],
        template=values["template"],
        secrets=values["secrets"],
        injected_files=values["injected_files"],
        session_file=values["session_file"],
        build_resources=values["build_resources"],
        identity=values["identity"],
        binary_symlinks=not values["disable_binary_symlink_detection"],
        replacement_images=tuple(_image(text, "--replacement-image") for text in values["replacement_image"]),
        replace_unsconifiable=not values["disable_replace_unsconifiable_binaries"],
        shared_objects=not values["disable_copy_shared_object_dependencies"],
        service_libraries=not values["disable_copy_service_libraries"],
        native_environment=not values["disable_copy_envvars"],
        library_path=not values["disable_ld_library_path_in_session"],
        upload=not values["disable_session_upload"],
        update_session=not values["disable_update_session_if_exists"],
        attest_cas=not values["disable_attestation"],
        attest_service=not values["disable_session_security_attestation"],
        allow_debug_mode=values["allow_debug_mode"],
        allow_tcb_vulnerabilities=values["allow_tcb_vulnerabilities"],
        push=values["push"],
        compression=None if values["compression"] is None else Compression[values["compression"].upper()],
        registry=RegistryAccess(
            authfile=values["authfile"],
            cert_dir=values["registry_cert_dir"],
            insecure=tuple(values["insecure_registry"]),
            foreign_layers=values["allow_foreign_layers"],
        ),
        max_image_size=parse_size(values["max_image_size"], flag="--max-image-size"),
    )


def _check_mode(values: dict[str, Any]) -> None:
    """Refuse options of one mode in the other."""
    if values["binary_fs"]:
        if values["directories"]:
            raise UserError(
                f"--dir={values['directories'][0]} and --binary-fs exclude each other",
                remedy=f"give --fs-dir={values['directories'][0]}, or leave --binary-fs out",
            )
        if values["trace"] is not None:
            raise UserError("--trace and --binary-fs exclude each other", remedy="give --fs-dir and --fs-file")
        if values["binary_fs_plain"] and values["key_file"] is not None:
            raise UserError("--binary-fs-plain and --key-file exclude each other", remedy="give one of the two")
        return
    for name, instead in (
        ("fs_dir", ", or give --dir"), ("fs_file", ""), ("binary_fs_plain", ""), ("disable_binary_fs_defaults", ""),
    ):  # fmt: skip
        if values[name]:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} needs --binary-fs", remedy=f"add --binary-fs{instead}")


def remarks(values: dict[str, Any]) -> list[str]:
    """Return what is to be said about options that were given and have no effect, or are insecure."""
    said = [
        f"--{name.removesuffix('_image')} is not needed and has no effect"
        for name in NOT_NEEDED
        if values[name] is not None
    ]
    if values["disable_session_security_attestation"]:
        said.append(
            "--disable-session-security-attestation: no service is attested, so whoever reaches the CAS gets the key "
            "of the image and every secret of the session"
        )
    return said


def _cas_enclave(values: dict[str, Any]) -> str | None:
    given: str | None = values["cas_enclave"]
    if given is not None and values["cas"] is None:
        raise UserError("--cas-enclave needs --cas", remedy="give --cas, or leave --cas-enclave out")
    return given


def _image(text: str, flag: str) -> ImageReference:
    try:
        return ImageReference.parse(text)
    except UserError as error:
        raise UserError(f"{flag}={text}: {error.what}", remedy=error.remedy) from None


def _start_up_variables(values: dict[str, Any]) -> dict[str, str]:
    variables = {
        "SCONE_ALLOW_DLOPEN": values["dlopen"],
        "SCONE_HEAP": start_up_variable("SCONE_HEAP", values["heap"], flag="--heap"),
        "SCONE_STACK": start_up_variable("SCONE_STACK", values["stack"], flag="--stack"),
    }
    if values["fork"] is not None:
        variables["SCONE_FORK"] = values["fork"]
    return variables
