#!/bin/bash
# run-tests: 5 s
# A FUSE mount that is mounted again with users mapped (ALLOW_IDMAP, Linux 6.12), as containers do.
. tests/it/lib.sh
need_fuse
[ "$(id -u)" = 0 ] || skip_all "needs root: it maps users"
[ "$(printf '6.12\n%s\n' "$(uname -r)" | sort -V | head -n 1)" = 6.12 ] || skip_all "FUSE maps users since Linux 6.12"
make_volume
chmod 755 "$T" && mkdir "$T/mapped"
serve --mount "$T/mnt" || { not_ok "the server starts"; finish; exit 1; }
timeout 90 python3 tests/it/idmapped.py "$T/mnt" "$T/mapped" >"$T/idmapped" 2>&1
tap_lines "$T/idmapped"
umount "$T/mapped"
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
