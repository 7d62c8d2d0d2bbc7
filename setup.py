"""Builds the two native parts: the Python bindings and the static runtime, which is shipped as package data."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build import build
from setuptools_rust import Binding, RustExtension

TARGET = "x86_64-unknown-linux-gnu"
ROOT = Path(__file__).parent.resolve()
RUNTIME = Path("sconify", "runtime", "sconify-runtime")


class BuildRuntime(Command):
    """Builds ``crates/runtime`` as a static-pie that runs in an empty container, the same bytes wherever it is built.

    A sub-command of ``build``, so wheels and editable installs both have it. Not a RustExtension: that can't give
    flags to all crates of one binary, and the path of no build directory may stay in the file.
    """

    description = "build the static runtime"
    user_options: ClassVar = [("build-lib=", "b", "directory of the built package")]
    editable_mode = False

    def initialize_options(self) -> None:
        """Set the options of setuptools to their defaults."""
        self.build_lib = None

    def finalize_options(self) -> None:
        """Take the options that were not given from ``build``."""
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        """Build the runtime and put it beside the package's modules."""
        target_directory = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        cargo_home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
        flags = [
            "-Ctarget-feature=+crt-static",
            f"--remap-path-prefix={cargo_home}=/cargo",
            f"--remap-path-prefix={ROOT}=/sconify",
        ]
        command = ["cargo", "build", "--release", "--locked", "--package=sconify-runtime", "--bin=sconify-runtime"]
        subprocess.run(
            [*command, f"--target={TARGET}", f"--target-dir={target_directory}"],
            cwd=ROOT,
            env=os.environ | {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags)},
            check=True,
        )
        built = target_directory / TARGET / "release" / "sconify-runtime"
        output = self._output()
        output.parent.mkdir(parents=True, exist_ok=True)
        # A copy under another name first: a running runtime can't be written to, but it can be replaced.
        copy = output.with_suffix(".new")
        shutil.copy2(built, copy)
        copy.replace(output)

    def get_source_files(self) -> list[str]:
        """Return what a source distribution must have."""
        sources = [*ROOT.glob("crates/*/src/**/*.rs"), *ROOT.glob("crates/*/Cargo.toml")]
        workspace = [ROOT / name for name in ("Cargo.toml", "Cargo.lock", ".cargo/config.toml")]
        return [str(path.relative_to(ROOT)) for path in (*sources, *workspace)]

    def get_outputs(self) -> list[str]:
        """Return what ``run`` makes."""
        return [str(self._output())]

    def get_output_mapping(self) -> dict[str, str]:
        """Return which outputs are files of the source tree; none is."""
        return {}

    def _output(self) -> Path:
        return (ROOT / "src" if self.editable_mode else Path(self.build_lib)) / RUNTIME


build.sub_commands.append(("build_runtime", None))

setup(
    cmdclass={"build_runtime": BuildRuntime},
    rust_extensions=[
        RustExtension("sconify._shield", path="crates/bindings/Cargo.toml", binding=Binding.PyO3, debug=False),
    ],
)
