#!/bin/sh
# Makes a cluster, then becomes the server. Arguments go to the server.
set -e
bin=/usr/lib/postgresql/15/bin
data=/var/lib/postgresql/data
if [ ! -f $data/PG_VERSION ]; then
    $bin/initdb -D $data -A trust --data-checksums >&2
    echo 'host all all all trust' >> $data/pg_hba.conf
fi
exec $bin/postgres -D $data -c 'listen_addresses=*' -c unix_socket_directories=/var/lib/postgresql "$@"
