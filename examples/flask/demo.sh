#!/usr/bin/env bash
# The whole path: a native Flask image becomes an encrypted one, runs, is attested, and answers over HTTPS.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
native=sconify-example/flask:native
encrypted=sconify-example/flask:encrypted
work=$(mktemp -d)
container=
cleanup() {
    [ -z "$container" ] || docker rm --force "$container" >/dev/null 2>&1 || true
    sconify embedded stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
megabytes() { docker image inspect --format '{{.Size}}' "$1" | awk '{printf "%.0f MB", $1 / 1e6}'; }

say "1. The native image: Debian, Python, Flask, the service and its TLS key"
"$here/build.sh" "$native"
echo "$native: $(megabytes "$native")"

say "2. One command makes it confidential"
cat <<END
sconify_image --from=$native --to=$encrypted --binary=/usr/bin/python3 --dir=/app --dir=/tls
END
sconify_image --from="$native" --to="$encrypted" --binary=/usr/bin/python3 --dir=/app --dir=/tls \
    --overwrite --json >"$work/result.json"
python - "$work/result.json" <<'END'
import json, sys

result = json.load(open(sys.argv[1], encoding="utf-8"))
print(f"session      {result['session']}")
print(f"measurement  {result['measurement']}")
for step in result["steps"]:
    print(f"  {step['seconds']:6.2f} s  {step['name']}")
END
echo "$encrypted: $(megabytes "$encrypted") (native: $(megabytes "$native"))"

say "3. What the host sees of the protected files: nothing"
docker create --name sconify-demo-look "$encrypted" >/dev/null
docker export sconify-demo-look | tar -t | grep -E '^(app|tls|\.sconify)' || true
docker rm sconify-demo-look >/dev/null

say "4. A plain docker run; it attests, gets its key, and serves"
echo "docker run --rm $encrypted"
container=$(docker run --detach --rm "$encrypted")
address=$(docker inspect --format '{{.NetworkSettings.IPAddress}}' "$container")
for _ in $(seq 100); do
    curl --silent --insecure --max-time 5 "https://$address:4996/" >"$work/answer" 2>/dev/null && break
    sleep 0.1
done
if [ ! -s "$work/answer" ]; then
    echo "the service does not answer; its log:" >&2
    docker logs "$container" >&2 || true
    exit 1
fi
echo "GET https://$address:4996/"
cat "$work/answer"
