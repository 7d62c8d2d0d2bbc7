# What people build and serve with, one after the other: compilers, interpreters, tools, servers. Each says how it ended and what it printed.
mkdir /tmp/work && cd /tmp/work || exit 1
export HOME=/tmp/work

step() {
    name=$1
    shift
    output=$(timeout 120 "$@" 2>&1)
    printf '%s: %s\n%s\n' "$name" $? "$output"
}

# Waits until a port takes connections, and says what is there.
page() {
    for _ in $(seq 100); do
        curl --silent --fail "http://127.0.0.1:$1/" && return
        sleep 0.1
    done
    echo "nothing at port $1"
}

printf '#include <math.h>\n#include <stdio.h>\nint main(void) { printf("%%.3f\\n", sqrt(2)); }\n' >root.c
step gcc gcc -O2 -o root root.c -lm
step built ./root
mkdir many
for number in $(seq 40); do echo "int f$number(int x) { return x + $number; }" >"many/f$number.c"; done
printf 'OBJECTS = $(patsubst %%.c,%%.o,$(sort $(wildcard *.c)))\nlib.a: $(OBJECTS)\n\tar rcs $@ $(OBJECTS)\n' >many/Makefile
step make make --silent --directory=many --jobs=4
step archive ar t many/lib.a
step ruby ruby -rjson -rdigest -e 'puts JSON.generate({a: Digest::SHA256.hexdigest("x")}), `echo below`; Dir.mkdir("d"); File.write("d/a", "b"); p Dir.children("d")'
step php php -r 'echo hash("sha256", "x"), "\n"; file_put_contents("p", "1"); var_dump(stat("p")["size"], stat("p")["nlink"], glob("*.c"));'
step lua lua5.4 -e 'print(#io.open("root.c"):read("a"), os.rename("p", "q"), os.rename("p", "q"))'
echo 'puts [exec echo below]; puts [expr {[file mtime root.c] > 0}]; puts [lsort [glob *.c]]' >t.tcl
step tcl tclsh t.tcl
step erlang erl -noshell -eval 'io:format("~p ~p~n", [lists:sum(lists:seq(1, 1000)), element(1, file:read_file("root.c"))]), halt().'
step lisp sbcl --noinform --non-interactive --eval '(format t "~a ~a~%" (loop for i to 100 sum i) (probe-file "root.c"))'
step scheme guile --no-auto-compile -c '(display (apply + (iota 100)))'
step ocaml ocaml -e 'print_endline (string_of_int (List.fold_left (+) 0 [1; 2; 3]))'
step image convert -size 200x200 gradient:red-blue g.png
step identify identify -format '%m %wx%h %k\n' g.png
step rsync rsync --archive many/ copy/
step again rsync --archive --itemize-changes many/ copy/
step compare diff --recursive many copy
step tar sh -c 'tar cf many.tar many && tar xf many.tar -C d && diff -r many d/many && rm -r d/many'
step zip sh -c 'zip -qr many.zip many && unzip -tq many.zip'
step gawk gawk 'BEGIN { while (("ls many" | getline line) > 0) count++; print count }'
step sort sh -c 'seq 200000 | sort --random-source=root.c --random-sort | sort --numeric-sort | md5sum'
step pipe sh -c 'mkfifo pipe; (echo through >pipe &); cat pipe'
step links sh -c 'ln -s root.c link; readlink -f link; ln root.c hard; stat -c %h hard; cp --archive link kept; readlink kept'

mkdir www
echo hello >www/index.html
printf 'server.document-root="/tmp/work/www"\nserver.port=8123\nindex-file.names=("index.html")\n' >lighttpd.conf
step lighttpd lighttpd -f lighttpd.conf
page 8123
cat >haproxy.cfg <<'END'
global
  stats socket /tmp/work/haproxy.sock
defaults
  mode http
  timeout connect 9s
  timeout client 9s
  timeout server 9s
listen front
  bind 127.0.0.1:8124
  server back 127.0.0.1:8123
END
step haproxy haproxy -D -f haproxy.cfg
page 8124
mkdir apache
cat >apache.conf <<'END'
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
ServerRoot /tmp/work/apache
ServerName localhost
PidFile pid
DefaultRuntimeDir .
Mutex file:. default
ErrorLog log
Listen 127.0.0.1:8125
DocumentRoot /tmp/work/www
DirectoryIndex index.html
END
step apache apache2 -f /tmp/work/apache.conf
page 8125
memcached -d -l 127.0.0.1 -p 8126 -u nobody -P /tmp/work/memcached.pid
for _ in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/8126) 2>/dev/null && break; sleep 0.1; done
step memcached bash -c 'exec 3<>/dev/tcp/127.0.0.1/8126; printf "set a 0 0 1\r\nx\r\nget a\r\nquit\r\n" >&3; cat <&3'
