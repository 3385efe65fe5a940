#!/bin/bash
# run-tests: 20 s
# An idle server, freshly opened, with a mount and a 9P door: no thread of it runs, so it fires no timer and asks the store
# for nothing; and it takes little memory. Also after it has served something, once that is durable. And the end of
# the mount, being an event, is seen at once.
# Others would look at the mount (df does).
if [ "$(id -u)" = 0 ] && [ -z "${IDLE_ALONE:-}" ]; then
    IDLE_ALONE=1 exec unshare --mount --propagation private "$0"
fi
. tests/it/lib.sh
need_fuse
IDLE_S=6
RSS_MAX_KIB=32768
# How often its threads have run, as the kernel counts: each run ends with a switch, of its own accord or not.
switches() {
    cat "/proc/$SERVER"/task/*/status | awk '/ctxt_switches/ { sum += $2 } END { print sum }'
}
# Wait (a bounded time) until nothing happens any more, then count what happens in IDLE_S seconds.
runs_while_idle() {
    local before after=
    for _ in $(seq 10); do
        before=$(switches)
        sleep 2
        after=$(switches)
        [ "$before" = "$after" ] && break
    done
    before=$(switches)
    sleep "$IDLE_S"
    echo $(($(switches) - before))
}
make_volume
serve --mount "$T/mnt" && stop || { not_ok "the server starts"; finish; exit 1; }
serve --mount "$T/mnt" --9p "unix:$T/9p" || { not_ok "the server starts"; finish; exit 1; }
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$SERVER/status")
check "a server just opened uses less than 32 MiB ($rss KiB)" [ "$rss" -lt $RSS_MAX_KIB ]
is "and does nothing in $IDLE_S seconds (thread switches)" "$(runs_while_idle)" 0
for i in $(seq 50); do echo "$i" >"$T/mnt/file$i"; done
sync -f "$T/mnt"
rm "$T/mnt"/file*
is "nor when it has served something" "$(runs_while_idle)" 0
check "the mount is taken away" sh -c "umount '$T/mnt' 2>/dev/null || fusermount3 -u '$T/mnt'"
sleep 0.2
check "the 9P door goes on" kill -0 "$SERVER"
check "and the server stops" stop
serve --mount "$T/mnt" || { not_ok "the server starts again"; finish; exit 1; }
check "the mount is taken away from a server that has no other door" \
    sh -c "umount '$T/mnt' 2>/dev/null || fusermount3 -u '$T/mnt'"
for _ in $(seq 200); do
    kill -0 "$SERVER" 2>/dev/null || break
    sleep 0.01
done
check "which ends by itself, within two seconds" eval ! kill -0 "$SERVER" 2>/dev/null
check "in good order" wait "$SERVER"
SERVER=
finish
