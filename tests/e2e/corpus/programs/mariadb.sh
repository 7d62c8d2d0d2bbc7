#!/bin/sh
# Makes the system tables, then becomes the server.
set -e
if [ ! -d /var/lib/mysql/mysql ]; then
    mariadb-install-db --user=mysql --skip-test-db --auth-root-authentication-method=normal >&2
    printf '%s\n' "CREATE USER IF NOT EXISTS tester@'%';" "GRANT ALL ON *.* TO tester@'%';" > /var/lib/mysql/init.sql
fi
exec mariadbd --user=mysql --bind-address=0.0.0.0 --init-file=/var/lib/mysql/init.sql
