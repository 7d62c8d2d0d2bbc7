#!/bin/sh
# Makes the system tables, then becomes the server.
set -e
if [ ! -d /var/lib/mysql/mysql ]; then
    mariadb-install-db --user=mysql --skip-test-db --auth-root-authentication-method=normal >&2
    printf '%s\n' "CREATE USER tester@'%';" "GRANT ALL ON *.* TO tester@'%';" > /run/mysqld/init.sql
fi
exec mariadbd --user=mysql --bind-address=0.0.0.0 --init-file=/run/mysqld/init.sql
