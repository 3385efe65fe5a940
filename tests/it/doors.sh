#!/bin/bash
# 9P by itself, then 9P and a mount at once: what one door changes, the other shows.
. tests/it/lib.sh
need_fuse
make_volume
serve --mount "$T/mnt" --9p "unix:$T/9p" || { not_ok "the server starts"; finish; exit 1; }
tap "9P" timeout 120 python3 tests/it/ninep_client.py "unix:$T/9p"
tap "9P and a mount" timeout 120 python3 tests/it/doors.py "$T/mnt" "unix:$T/9p"
check "the server ends well" stop
finish
