#!/bin/bash
# What a mount owes to POSIX and Linux beyond what the doors' tests ask: locks of open file descriptions, file handles (also
# over a restart), setgid and ACLs, ctime, direct writes beside the page cache.
. tests/it/lib.sh
need_fuse
make_volume
serve --mount "$T/mnt" || { not_ok "the server starts"; finish; exit 1; }
tap "a mount" timeout 120 python3 tests/it/posix.py "$T/mnt" before
check "stop" stop
if [ "$(id -u)" = 0 ]; then
    serve --mount "$T/mnt" || { not_ok "the server starts again"; finish; exit 1; }
    tap "after a restart" timeout 60 python3 tests/it/posix.py "$T/mnt" after
    check "stop again" stop
fi
check "fsck finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
