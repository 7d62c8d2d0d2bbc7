#!/bin/sh
# Pipes, substitutions, applets by their own names, job control, traps.
echo "$0 $#: $*"
[ "$1" = first ] && exit 8
/app/nested a "b c"; echo "nested $?"
ls -l /data | awk '{print $1, $1 ~ /^d/ ? "" : $5, $9}'
sha256sum /data/* | sort
seq 1 1000 | awk '{sum += $1} END {print sum}'
find / -xdev -name 'small' -type f 2>/dev/null | sort
cat /data/small | (read line; echo "first: $line")
for i in 1 2 3; do sh -c 'exit '$i; echo "exit $?"; done
(sleep 0.2; exit 9) & wait $!; echo "background $?"
trap 'echo caught' USR1; kill -USR1 $$; echo after
sh -c 'kill -TERM $$'; echo "killed $?"
touch /data/new 2>/dev/null || echo "read-only"
cd /data/.. && pwd && cd / && pwd
readlink /bin/cat; readlink -f /bin/cat
tar -cf - -C /data small | tar -tf -
gzip -c /data/big | gzip -dc | cmp - /data/big && echo same
env | grep -E '^(PATH|GREETING)=' | sort
exec /bin/sh -c 'echo "$0 $1"; exit 5' zero one
