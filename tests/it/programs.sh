#!/bin/bash
# What programs expect of a file system, through a FUSE mount.
. tests/it/lib.sh
need_fuse
[ "$(id -u)" = 0 ] || skip_all "needs root: it acts as several users"
make_volume
serve --mount "$T/mnt" || { not_ok "the server starts"; finish; exit 1; }
timeout 120 python3 tests/it/programs.py "$T/mnt" >"$T/programs"
tap_lines "$T/programs"
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
