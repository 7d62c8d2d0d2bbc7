#!/bin/bash
# Programs that change their user: by gosu, setpriv and perl, with and without exec, and what their children may open.
look='echo "$(id -u):$(id -g) $(id -G)"; cat /data/open; cat /data/closed; (cat /data/open); sh -c "cat /data/open"'
for drop in "gosu 1000:1000" "gosu nobody" "setpriv --reuid=1000 --regid=1000 --clear-groups" "setpriv --reuid=65534 --bounding-set=-all"; do
    echo "$drop"
    $drop sh -c "$look" 2>&1
done
perl -e '$( = $) = "1000 1000"; $< = $> = 1000; print -r "/data/closed" ? "readable" : "closed", "\n"; if (!fork) { open my $f, "<", "/data/open" or print "$!\n"; print <$f>; exit } wait; system "cat", "/data/open"; exec "id", "-u"'
perl -e '$) = "1000 1000"; $> = 1000; print -r "/data/closed" ? "readable" : "closed", "\n"; $> = 0; print -r "/data/closed" ? "readable" : "closed", "\n"'
