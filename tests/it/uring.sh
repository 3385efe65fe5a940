#!/bin/bash
# Synced writes by io_uring (docs/decisions/0015): status says so, each fsync flushes the disk, the switch turns it off, and a
# write that a killed server had on its way is over before the next server reads the journal.
. tests/it/lib.sh
need_fuse
make_volume
synced_writes() {
    "$V" status "$T/vol" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["synced_writes"])'
}
ring_writes() {
    "$V" status "$T/vol" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["io_uring_writes"])'
}
# sync_some COUNT NAME: one write and fsync after the other.
sync_some() {
    timeout 100 python3 - "$T/mnt/$2" "$1" <<'P'
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
for i in range(int(sys.argv[2])):
    os.write(fd, b"%04d" % i * 1024)
    os.fsync(fd)
P
}
# The disk (major:minor) that the scratch folder is on; nothing when it is not on one.
disk() {
    local at
    at=$(readlink -f "/sys/dev/block/$(stat -c '%Hd:%Ld' "$T")") || return 0
    [ ! -e "$at/partition" ] || at=${at%/*}
    [ ! -e "$at/stat" ] || cat "$at/dev"
}
flushes() {
    awk '{print $16}' "/sys/dev/block/$DISK/stat"
}
DISK=$(disk)

VARVE_IO_URING=off serve --mount "$T/mnt" || { not_ok "serve"; finish; exit 1; }
is "turned off, workers serve" "$(synced_writes)" "worker threads"
check "and data is synced" sync_some 20 workers
crash
serve --mount "$T/mnt" || { not_ok "serve"; finish; exit 1; }
is "what was synced is there" "$(stat -c %s "$T/mnt/workers")" 81920
crash
export VARVE_IO_URING=on
serve --mount "$T/mnt" || { not_ok "serve"; finish; exit 1; }
if ! python3 -c 'import ctypes; exit(ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)) < 0)'; then
    is "io_uring is not to be had here: workers serve" "$(synced_writes)" "worker threads"
    finish
    exit 0
fi
is "io_uring is in use" "$(synced_writes)" io_uring
if [ -n "$DISK" ] && grep -q 'write back' "/sys/dev/block/$DISK/queue/write_cache"; then
    before=$(flushes)
    check "data is synced" sync_some 60 ring
    after=$(flushes)
    [ "$(stat -f -c %T "$T")" != ext2/ext3 ] || check "by io_uring ($(ring_writes) writes)" [ "$(ring_writes)" -ge 50 ]
    check "each fsync flushes the disk ($((after - before)) flushes for 60)" [ $((after - before)) -ge 60 ]
else
    check "data is synced" sync_some 60 ring
    ok "each fsync flushes the disk # SKIP the disk has no volatile cache, or there is none"
fi
crash
serve --mount "$T/mnt" || { not_ok "serve"; finish; exit 1; }
is "what was synced is there" "$(stat -c %s "$T/mnt/ring")" 245760

# A disk held to a trickle: killed with a write on its way, the server is gone at once, and the write lands later.
GROUP=/sys/fs/cgroup/blkio/varve-$$
if [ -z "$DISK" ] || ! mkdir "$GROUP" 2>/dev/null || ! echo "$DISK 1500" >"$GROUP/blkio.throttle.write_bps_device" 2>/dev/null; then
    ok "a write of a killed server is waited for # SKIP no disk that can be slowed down here (cgroup v1, blkio)"
    check "the server ends well" stop
    finish
    exit 0
fi
trap 'cleanup; rmdir "$GROUP" 2>/dev/null' EXIT
in_flight=0
for round in 1 2 3; do
    echo "$SERVER" >"$GROUP/cgroup.procs"
    sync_some 1 "slow$round" 2>/dev/null &
    writer=$!
    sleep $round
    crash
    wait $writer 2>/dev/null
    for file in "$T/vol/journal"/*.wal; do flock -n "$file" true || in_flight=1; done
    serve --mount "$T/mnt" || { not_ok "serve after a kill"; break; }
    [ $in_flight = 0 ] || break
done
is "a write outlived its server (round $round)" $in_flight 1
check "the next server waited for it" grep -q "waiting for a write" "$T/server.log"
for file in "$T/vol/journal"/*.wal; do flock -n "$file" true && not_ok "$file is not locked"; done
check "data is synced" sync_some 20 after
crash
serve --mount "$T/mnt" || not_ok "serve"
is "and is there" "$(stat -c %s "$T/mnt/ring" "$T/mnt/after" | tr '\n' ' ')" "245760 81920 "
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
