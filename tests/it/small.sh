#!/bin/bash
# run-tests: 25 s
# Little memory, little space. A volume of 832 MiB beside --memory 16M, filled, churned and read while the server is
# killed; then a store on a disk of its own that becomes full: by what is written, and by others.
#   SMALL_FILES=2600   how many files of 320 KiB
. "$(dirname "$0")/lib.sh"
need_fuse
command -v python3 >/dev/null || skip_all "no python3"
files=${SMALL_FILES:-2600}
small() {
    timeout 240 python3 tests/it/small.py "$@"
}
peak_mib() {
    awk '$1 == "VmHWM:" { print int($2 / 1024) }' "/proc/$SERVER/status"
}

make_volume
# Filled in four runs; three end with a kill. What was synced is there when it goes on behind it.
done=0
for round in 1 2 3 4; do
    serve --mount "$T/mnt" --memory 16M || break
    small check "$T/mnt" "$done" >"$T/lost" || { echo "# after kill $round: $(cat "$T/lost")"; break; }
    : >"$T/synced"
    if [ $round -lt 4 ]; then
        small fill "$T/mnt" "$done" "$files" >"$T/synced" 2>/dev/null &
        filler=$!
        target=$((files * round / 4))
        for i in $(seq 1200); do
            [ "$(tail -n 1 "$T/synced" 2>/dev/null || echo 0)" -ge $target ] 2>/dev/null && break
            kill -0 $filler 2>/dev/null || break
            sleep 0.1
        done
        crash
        wait $filler
    else
        small fill "$T/mnt" "$done" "$files" >"$T/synced"
    fi
    [ -s "$T/synced" ] && done=$(($(tail -n 1 "$T/synced") + 1))
done
is "$((files * 320 / 1024)) MiB are written beside 16 MiB of memory, three kills between" "$done" "$files"
check "all of it is there" small check "$T/mnt" "$done"
small churn "$T/mnt" "$done" 1 >"$T/churn.log" 2>&1 &
churner=$!
sleep 5
echo "# peak resident memory $(peak_mib) MiB"
crash
wait $churner
check "after churning and a kill it serves" serve --mount "$T/mnt" --memory 16M
check "and all of it is there" small check "$T/mnt" "$done"
check "it can be removed" rm -rf "$T"/mnt/d?
check "it stops" stop
check "fsck finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --quiet
rm -rf "$T/vol" "$T/key"

# A disk of its own, small.
mkdir "$T/disk"
if mount -t tmpfs -o size=160m none "$T/disk" 2>/dev/null; then
    trap 'cleanup_disk; cleanup' EXIT
    cleanup_disk() {
        [ -n "$SERVER" ] && kill -KILL "$SERVER" 2>/dev/null && wait "$SERVER" 2>/dev/null
        umount -l "$T/mnt" 2>/dev/null
        umount -l "$T/disk" 2>/dev/null
    }
    mkdir "$T/disk/s"
    rmdir "$T/vol" 2>/dev/null
    ln -s "$T/disk/s/vol" "$T/vol"
    check "a volume on a disk of 160 MiB" "$V" init "$T/disk/s/vol" --key-file "$T/key" --quiet
    check "serves" serve --mount "$T/mnt" --memory 16M
    check "filled until there is no space, emptied, and filled again" small full "$T/mnt"
    grep 'MiB' "$T/check.out" | sed 's/^/# /'
    # Others take the space while files are written and synced; then give it back.
    check "a file is written and synced" small fill "$T/mnt" 0 20
    check "others take all space" small crowd "$T/disk/s" 0
    echo new >"$T/mnt/new" 2>/dev/null
    check "what is there can be read" small check "$T/mnt" 20
    check "files can be removed" rm "$T/mnt/d0/f1" "$T/mnt/d0/f2" "$T/mnt/d0/f3"
    timeout 90 python3 tests/it/small.py sync "$T/mnt/d0" >/dev/null 2>&1
    status=$?
    check "a sync comes to an end ($status)" test $status != 124
    rm "$T/disk/crowd"
    for i in $(seq 60); do
        small sync "$T/mnt/d0" 2>/dev/null && echo again >"$T/mnt/again" 2>/dev/null && break
        sleep 1
    done
    is "with space again, everything goes on" "$(cat "$T/mnt/again" 2>/dev/null)" again
    crash
    check "after a kill it serves" serve --mount "$T/mnt" --memory 16M
    is "the files removed are gone, the others there" "$(ls "$T/mnt/d0" | wc -l)" 17
    check "it stops" stop
    check "fsck finds nothing there either" "$V" fsck "$T/disk/s/vol" --key-file "$T/key" --data --quiet
    cleanup_disk
else
    echo "ok $((count += 1)) # SKIP cannot mount a tmpfs here: a disk that becomes full"
fi
finish
