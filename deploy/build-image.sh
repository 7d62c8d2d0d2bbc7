#!/usr/bin/env bash
# Builds the container image of the CAS from this directory's sources and the locked versions of what they need.
# Usage: build-image.sh IMAGE [BASE]; BASE is an image with Debian's python3, of the same version as this machine's.
set -euo pipefail

image=${1:?usage: build-image.sh IMAGE [BASE]}
project=$(cd "$(dirname "$0")/.." && pwd)
pip=${PIP:-$project/.venv/bin/pip}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

cp "$project/deploy/Dockerfile" "$context"
"$pip" download --quiet --require-hashes -r "$project/requirements.lock" --dest "$context/wheels"
"$pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$context/wheels" "$project"
if ! docker build --quiet ${2:+--build-arg "BASE=$2"} --tag "$image" "$context" >"$context/log" 2>&1; then
    cat "$context/log" >&2
    exit 1
fi
