"""Chooses what the output holds: what the user named, and what the program needs to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sconify.errors import UserError
from sconify.image.model import Entry, EntryType
from sconify.image.source import Image
from sconify.program.binary import DEFAULT_PATH, Program, detect_symlinks, load_program, locate
from sconify.program.closure import shared_objects
from sconify.program.entrypoint import derive_command
from sconify.program.health import ATTRIBUTE, HealthCheck, health_check
from sconify.program.services import service_of
from sconify.program.system_files import system_files
from sconify.program.trace import traced_paths
from sconify.program.users import home_directory, numbered_user
from sconify.program.view import RootView, absolute
from sconify.request import Request, read_policy_file
from sconify.shield.embed import check_embeddable
from sconify.shield.plan import WRITABLE_PATHS, Plan, Planner
from sconify.shield.regions import RegionKind


@dataclass(frozen=True)
class Choice:
    """The plan, and how the program is started."""

    plan: Plan
    program: Program
    """A regular file; the sconified binary stands at its path in the output."""
    command: tuple[str, ...]
    working_directory: str
    environment: Mapping[str, str]
    """The whole environment of the program."""
    policy_command: bool
    """Whether the command was written for the policy, so that placeholders in it count."""
    health_check: HealthCheck | None
    """What the image's HEALTHCHECK runs, inside the shield."""
    user: str
    """Whom the output image names as its user: by number if the engine can't look up names in it."""


def choose(request: Request, native: Image, base: Image | None, *, warnings: Iterable[str] = ()) -> Choice:
    """Decide what goes into the output image, and why; ``warnings`` are put before its own.

    Raises:
        UserError: If something that the user named is missing, or the program can't be converted.
        UntrustedDataError: If a file of the image is malformed.
    """
    root = native.root
    working_directory = absolute(native.config.working_dir, working_dir="/")
    native_environment = native.config.env
    program = load_program(root, request.binary, environment=native_environment, working_dir=working_directory)
    command = derive_command(
        root,
        program=program,
        entrypoint=native.config.entrypoint,
        cmd=native.config.cmd,
        command=request.command,
        environment=native_environment,
        working_dir=working_directory,
    )
    environment = _environment(request, native)
    planner = Planner(root, embedded=request.binary_fs)
    for warning in warnings:
        planner.warn(warning)
    _declare(planner, request, program, working_directory)
    _declare_writable(planner, native)
    _need(
        planner, request=request, root=root, program=program, environment=environment,
        working_directory=working_directory,
    )  # fmt: skip
    health = _health_check(
        planner, request=request, native=native, environment=environment, working_directory=working_directory
    )
    if health is not None:
        planner.attach(program.path, ATTRIBUTE, health.attribute())
    user = _numbered(planner, native) if request.binary_fs else native.config.user
    plan = planner.plan(None if base is None else base.root)
    if request.binary_fs:
        volumes = [region.prefix for region in plan.regions if region.kind.value == "volume"]
        check_embeddable(plan, program.path, volumes=volumes)
    return Choice(
        plan=plan,
        program=program,
        command=command.argv,
        working_directory=working_directory,
        environment=environment,
        policy_command=request.command is not None,
        health_check=health,
        user=user,
    )


def _environment(request: Request, native: Image) -> dict[str, str]:
    """Return the program's environment: what the engine sets, the image's variables, and those that the user gave."""
    copied = dict(native.config.env) if request.native_environment else {}
    if not request.library_path:
        copied.pop("LD_LIBRARY_PATH", None)
    return {
        "PATH": DEFAULT_PATH,
        "HOME": home_directory(native.root, native.config.user),
        **copied,
        **dict(request.environment),
    }


def _numbered(planner: Planner, native: Image) -> str:
    """Return the configured user by numbers: an image with one file has none to look names up in."""
    found = numbered_user(native.root, native.config.user)
    if found.further_groups:
        planner.warn(
            f"USER {native.config.user} is in the groups {', '.join(found.further_groups)} as well, which the image "
            "can't say by number: run it with --group-add for those that it needs"
        )
    return found.text


def _declare(planner: Planner, request: Request, program: Program, working_directory: str) -> None:
    """Make regions of what the user named."""
    if request.trace is not None:
        text = read_policy_file(request.trace, flag="--trace")
        planner.declare_traced(
            traced_paths(text, working_dir=working_directory, source=f"--trace={request.trace}"),
            reason=f"--trace={request.trace}",
        )
    for path in request.directories:
        planner.declare_directory(path, RegionKind.ENCRYPTED, flag="--dir")
    for path in request.fs_directories:
        planner.declare_directory(path, RegionKind.ENCRYPTED, flag="--fs-dir")
    for path in request.fs_files:
        planner.declare_file(path, RegionKind.ENCRYPTED, flag="--fs-file")
    for path in request.plain_directories:
        _declare_plain(planner, planner.declare_directory, path, flag="--plain", beside=request.binary_fs)
    for path in request.plain_files:
        _declare_plain(planner, planner.declare_file, path, flag="--plain-file", beside=request.binary_fs)
    for path in request.host_paths:
        planner.declare_host_path(path)
    for volume in request.volumes:
        planner.declare_volume(volume.path, name=volume.name)
    planner.declare_file(program.path, RegionKind.ENCRYPTED, flag="--binary")


def _declare_plain(planner: Planner, declare: Callable[..., None], path: str, *, flag: str, beside: bool) -> None:
    if beside:
        planner.declare_beside(path, flag=flag)
    else:
        declare(path, RegionKind.AUTHENTICATED, flag=flag)


def _declare_writable(planner: Planner, native: Image) -> None:
    """Let the program write where programs expect to: what they write is in memory, and gone at exit."""
    for path, mode in WRITABLE_PATHS.items():
        planner.declare_writable(path, reason="writable in every container", mode=mode)
    for path in ("/var/lock", "/var/run"):
        planner.need_alone(path, "leads to /run")
    for path in native.config.volumes:
        if planner.declare_writable(absolute(path, working_dir="/"), reason=f"VOLUME {path}") is not None:
            planner.warn(
                f"VOLUME {path} is ephemeral: what the program writes there is gone when the container ends;"
                f" give --volume=NAME:{path} to keep it, encrypted,"
                f" or --host-path={path} to let the host have it, unprotected"
            )


def _need(
    planner: Planner,
    *,
    request: Request,
    root: RootView,
    program: Program,
    environment: Mapping[str, str],
    working_directory: str,
) -> None:
    """Take what the program needs and the user did not name."""
    embeds_defaults = request.binary_fs and request.binary_fs_defaults
    takes_defaults = embeds_defaults or not request.binary_fs
    modules = planner.shared_objects()
    service = service_of(root, program)
    if service is not None:
        libraries = service.libraries(root, program, environment=environment)
        if request.service_libraries and takes_defaults:
            for inclusion in libraries.inclusions:
                planner.need(inclusion.trail, inclusion.reason)
            modules.extend(libraries.modules)
        if request.binary_symlinks:
            for link in libraries.links:
                planner.add(link, f"{service.name} is called by this name")
    if embeds_defaults:
        planner.all_shared_objects("a shared object of the native image")
    if request.shared_objects and takes_defaults:
        _need_shared_objects(
            planner, root=root, program=program, environment=environment, working_directory=working_directory,
            modules=modules,
        )  # fmt: skip
    if request.binary_symlinks:
        for link in detect_symlinks(root, program, environment=environment, working_dir=working_directory):
            planner.need_alone(link.path, f"a link to {program.path}")
    for file in system_files(root, libc=program.libc, environment=environment):
        planner.need(file.trail, file.reason)
    if not planner.need_alone(working_directory, "the working directory"):
        planner.add(Entry(path=working_directory, type=EntryType.DIRECTORY, mode=0o755), "the working directory")


def _need_shared_objects(
    planner: Planner,
    *,
    root: RootView,
    program: Program,
    environment: Mapping[str, str],
    working_directory: str,
    modules: list[Entry],
) -> None:
    closure = shared_objects(root, program, environment=environment, working_dir=working_directory, modules=modules)
    for dependency in closure.dependencies:
        planner.need(dependency.trail, dependency.reason)
    for missing in closure.missing:
        if missing.required:
            raise UserError(
                missing.message(),
                remedy="mend the native image: the program can't start there either; or give "
                "--disable-copy-shared-object-dependencies and a --base that has it",
            )
        planner.warn(missing.message())


def _health_check(
    planner: Planner, *, request: Request, native: Image, environment: Mapping[str, str], working_directory: str
) -> HealthCheck | None:
    """Take what the health check needs, as far as it can be found; the container is unhealthy if something lacks."""
    root = native.root
    try:
        check = health_check(
            root, native.config.healthcheck, environment=environment, working_dir=working_directory
        )  # fmt: skip
    except UserError as error:
        planner.warn(f"HEALTHCHECK is left out: {error.what}")
        return None
    for name in check.commands if check is not None else ():
        try:
            trail = locate(root, name, environment=environment, working_dir=working_directory)
        except UserError:
            # A command of the shell's own, such as exit.
            continue
        planner.need(trail, f"HEALTHCHECK runs {name}")
        try:
            program = load_program(root, name, environment=environment, working_dir=working_directory)
        except UserError as error:
            planner.warn(f"HEALTHCHECK: {error.what}; name what it needs, with --plain-file for instance")
            continue
        if request.shared_objects:
            _need_shared_objects(
                planner, root=root, program=program, environment=environment, working_directory=working_directory,
                modules=[],
            )  # fmt: skip
    return check
