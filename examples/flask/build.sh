#!/usr/bin/env bash
# Builds the native image of the example: a Debian root file system with Flask, the service, and a fresh TLS key.
# The root file system is made once and kept in $SCONIFY_CACHE. Usage: build.sh IMAGE
set -euo pipefail

image=${1:?usage: build.sh IMAGE}
here=$(cd "$(dirname "$0")" && pwd)
cache=${SCONIFY_CACHE:-/var/cache/sconify}
rootfs=$cache/debian-flask.tar
base=sconify-example/debian-flask:bookworm

mkdir -p "$cache"
if [ ! -f "$rootfs" ]; then
    echo "making the Debian root file system (once)" >&2
    SOURCE_DATE_EPOCH=1700000000 mmdebstrap --quiet --format=tar --variant=minbase \
        --include=python3,python3-flask bookworm "$rootfs.part"
    mv "$rootfs.part" "$rootfs"
fi
docker image inspect "$base" >/dev/null 2>&1 || docker import "$rootfs" "$base" >/dev/null

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$here/rest_api.py" "$here/Dockerfile" "$context"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -keyout "$context/flask.key" -out "$context/flask.crt" 2>/dev/null
chmod 0644 "$context/flask.key" # the service may run as any user of the container
if ! docker build --quiet --build-arg "BASE=$base" --tag "$image" "$context" >"$context/log" 2>&1; then
    cat "$context/log" >&2
    exit 1
fi
