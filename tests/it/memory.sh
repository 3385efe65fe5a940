#!/bin/bash
# run-tests: 60 s
# Memory and idleness: what --memory bounds, and what a server costs that has nothing to do.
#   MEMORY_MIB=64   the budget; bytes written (16 times as many), files made (3,906 a MiB) and the limit
#                   (1.5 times as many) follow it. 256 is the full form: 4 GiB, a million files, 384 MiB.
. "$(dirname "$0")/lib.sh"
need_fuse
command -v python3 >/dev/null || skip_all "no python3"
command -v fio >/dev/null || skip_all "no fio"

memory=${MEMORY_MIB:-64}
limit=$((memory * 3 / 2))
files=$((memory * 1000000 / 256))

# A line of /proc/PID/status in KiB.
status_kib() {
    awk -v key="$1:" '$1 == key { print $2 }' "/proc/$SERVER/status"
}
# Processor ticks and voluntary switches of all threads so far.
activity() {
    local ticks switches
    ticks=$(cat /proc/"$SERVER"/task/*/stat | sed 's/.*) //' | awk '{ sum += $12 + $13 } END { print sum }')
    switches=$(cat /proc/"$SERVER"/task/*/status |
        awk '/^voluntary_ctxt_switches/ { sum += $2 } END { print sum }')
    echo "$ticks ticks, $switches switches"
}
requests() {
    "$V" status --json "$T/vol" | awk -F'[:,]' '/"fuse_requests"/ { print $2 }'
}
# idle WHAT: it is small, and does nothing at all for 6 seconds. Who lists mounts (df) asks this one too: then
# it is done again.
idle() {
    local asked before after rss i
    sleep 3 # what opening has begun comes to its end
    rss=$(($(status_kib VmRSS) / 1024))
    check "$1: $rss MiB resident, under 32" test "$rss" -lt 32
    for i in $(seq 8); do
        asked=$(requests)
        sleep 1
        before=$(activity)
        sleep 6
        after=$(activity)
        [ "$(requests)" != "$asked" ] || [ "$before" = "$after" ] || [ "$i" -lt 3 ] || break
        [ "$before" != "$after" ] || break
    done
    is "$1: nothing runs in 6 s" "$after" "$before"
}
# peak WHAT
peak() {
    local kib
    kib=$(status_kib VmHWM)
    check "$1: peak resident memory $((kib / 1024)) MiB, under $limit" test "$kib" -lt $((limit * 1024))
}

make_volume
check "serves with --memory ${memory}M" serve --mount "$T/mnt" --memory "${memory}M"
idle "a new volume"
check "$((memory * 16)) MiB of random bytes are written" python3 - "$T/mnt/bulk" "$memory" <<'PY'
import os, sys
pool = os.urandom(1 << 24)
with open(sys.argv[1], "wb", buffering=0) as file:
    for i in range(int(sys.argv[2]) * 16):
        at = i % 16 << 20
        file.write(pool[at:at + (1 << 20)])
    os.fsync(file.fileno())
PY
peak "after them"
check "$files files are created" python3 - "$T/mnt/d" "$files" <<'PY'
import os, sys
os.mkdir(sys.argv[1])
os.chdir(sys.argv[1])
for i in range(int(sys.argv[2])):
    os.close(os.open(f"file-{i:07}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
PY
peak "after those"
is "all are there" "$(find "$T/mnt/d" -type f | wc -l)" "$files"
peak "after listing them"
check "64 direct writes at once, for 8 s" timeout 60 fio --name=direct --filename="$T/mnt/direct" --size=256M --rw=randwrite \
    --bsrange=4k-8m --ioengine=libaio --iodepth=32 --direct=1 --time_based --runtime=8
peak "with 64 direct writes at once"
# What they took must not stay.
sleep 1
rss=$(($(status_kib VmRSS) / 1024))
check "after them: $rss MiB resident, under $limit" test "$rss" -lt "$limit"
check "stops" stop
check "serves again" serve --mount "$T/mnt" --memory "${memory}M"
idle "the volume, full"
check "stops" stop
finish
