#!/bin/bash
# 9P by itself, then 9P and a mount at once: what one door changes, the other shows.
. tests/it/lib.sh
need_fuse
# tap NAME COMMAND...: the command's own TAP counts as one check; what failed of it is shown.
tap() {
    local name=$1 status=0
    shift
    "$@" >"$T/tap.out" 2>&1 || status=$?
    if [ $status = 0 ]; then
        ok "$name ($(grep -c '^ok' "$T/tap.out") checks)"
    else
        not_ok "$name"
        grep -v '^ok' "$T/tap.out" | sed 's/^/#   /'
    fi
}
make_volume
serve --mount "$T/mnt" --9p "unix:$T/9p" || { not_ok "the server starts"; finish; exit 1; }
tap "9P" timeout 120 python3 tests/it/ninep_client.py "unix:$T/9p"
tap "9P and a mount" timeout 120 python3 tests/it/doors.py "$T/mnt" "unix:$T/9p"
check "the server ends well" stop
finish
