#!/usr/bin/env bash
# Runs a command with a Docker engine: the one that runs, or one that is started for it and stopped afterwards.
set -euo pipefail

if docker info >/dev/null 2>&1; then
    exec "$@"
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "with-docker: no Docker engine answers and only root can start one; start it, or run this as root" >&2
    exit 1
fi
log=$(mktemp /tmp/dockerd.XXXXXX.log)
dockerd >"$log" 2>&1 &
engine=$!
stop() {
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    rm -f "$log"
}
trap stop EXIT
for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && break
    if ! kill -0 "$engine" 2>/dev/null; then
        echo "with-docker: dockerd ended at once:" >&2
        tail -n 5 "$log" >&2
        exit 1
    fi
    sleep 0.5
done
"$@"
