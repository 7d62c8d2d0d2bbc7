#!/usr/bin/env bash
# Installs the Debian packages that the project needs and this machine lacks: engines to run images, skopeo for
# transports, mmdebstrap for real base images, a C compiler for the native parts.
set -euo pipefail

packages=(
    btrfs-progs
    build-essential
    ca-certificates
    chromium
    curl
    docker-registry
    docker.io
    fuse3
    gnupg
    gocryptfs
    iproute2
    libnss3-tools
    mmdebstrap
    musl
    netavark
    openssl
    pkg-config
    podman
    postgresql
    python3-dev
    python3-venv
    skopeo
    strace
    wrk
    xfsprogs
)
# What the corpus of programs is compiled with, beside Rust's own tools.
command -v go >/dev/null || packages+=(golang-go)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if ! command -v cargo >/dev/null && ! [ -x "$HOME/.cargo/bin/cargo" ]; then
    echo "setup: Rust is missing: got no cargo, expected 1.85 or later; install it with rustup" >&2
    exit 1
fi
# The one program of the tests that is linked against musl.
rustup=$(command -v rustup || echo "$HOME/.cargo/bin/rustup")
if [ -x "$rustup" ] && ! "$rustup" target list --installed | grep -q '^x86_64-unknown-linux-musl$'; then
    "$rustup" target add x86_64-unknown-linux-musl ||
        echo "setup: Rust's standard library for musl can't be had: the test of a program linked against it will be skipped" >&2
fi
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "setup: these Debian packages are missing: ${missing[*]}; run make setup as root once, or apt-get install them" >&2
    exit 1
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
