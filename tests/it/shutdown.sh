#!/bin/bash
# run-tests: 12 s
# FS_IOC_SHUTDOWN on the mount, as xfs and ext4 have it: who may; what is durable by then in each of its three ways; that
# nothing is to be had through any door after it, until the volume is served again; and that it is as good as a crash: under
# load, what is found afterwards is a prefix that holds all that was fsynced. SHUTDOWNS: how often (4), SHUTDOWN_SEED which loads.
# In a mount namespace of its own: who makes one meanwhile would hold a copy of the mount, which then does not end with umount.
if [ -z "${SHUTDOWN_INSIDE:-}" ] && unshare -m true 2>/dev/null; then SHUTDOWN_INSIDE=1 exec unshare -m "$0" "$@"; fi
. tests/it/lib.sh
need_fuse
[ "$(id -u)" = 0 ] || skip_all "needs root: nobody else may shut a mount down"
/usr/bin/python3 -c 'import nbd' 2>/dev/null || skip_all "no python3-libnbd here"
py() { timeout 60 /usr/bin/python3 tests/it/shutdown.py "$@"; }
SHUTDOWNS=${SHUTDOWNS:-4}
SEED=${SHUTDOWN_SEED:-$RANDOM}
# The server after its mount is gone: its exit status.
unmounted() {
    local i status=0
    umount "$T/mnt" || return 99
    for i in $(seq 200); do kill -0 "$SERVER" 2>/dev/null || break; sleep 0.05; done
    kill -0 "$SERVER" 2>/dev/null && return 98
    wait "$SERVER" 2>/dev/null || status=$?
    SERVER=
    return $status
}
fsck() { "$V" fsck "$VOL" --key-file "$T/key" --data --quiet; }

chmod 711 "$T"
make_volume --label "first light"
serve --mount "$T/mnt" --9p "unix:$T/9p" --nfs 127.0.0.1:0 --export /:no_root_squash,insecure --nbd "unix:$T/nbd" ||
    { not_ok "serve"; finish; exit 1; }
"$V" device create "$T/vol" disk 1M >/dev/null || not_ok "a device"
is "the label that init gave" "$(py label "$T/mnt")" "first light"
mkdir "$T/py" && cp tests/it/{shutdown,nfs_client,ninep_client}.py "$T/py" # who built it may be alone in seeing the checkout
is "a user may not give another" "$(timeout 60 setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 "$T/py/shutdown.py" label "$T/mnt" mine)" EPERM
is "root may" "$(py label "$T/mnt" "holiday pictures")" "holiday pictures"
tap "who may shut it down" py refused "$T/mnt"
PORT=$(grep -o 'NFS on port [0-9]*' "$T/server.log" | grep -o '[0-9]*$')
tap "nothing is to be had through any door" py doors "$T/mnt" "unix:$T/9p" "$PORT" "nbd+unix:///disk?socket=$T/nbd"
is "status says so" "$("$V" status "$VOL" --json | python3 -c 'import json,sys; s=json.load(sys.stdin); print(s["is_shut_down"], s["is_fenced"])')" "True False"
check "in words, too" sh -c "'$V' status '$VOL' | grep -q 'shut down: everything fails'"
status=0
unmounted || status=$?
is "the server ends with its mount, though it has other doors" $status 1
check "and says why" grep -q "the volume was shut down" "$T/server.log"
serve --mount "$T/mnt" || not_ok "serve again"
is "the label is durable, and status shows it" "$("$V" status "$VOL" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["label"])')" "holiday pictures"
is "what was fsynced is there" "$(stat -c %s "$T/mnt/kept")" 80000
check "and the volume takes more" sh -c "echo more >$T/mnt/more && sync $T/mnt/more"
check "stop" stop

# The three ways, and what programs wrote and did not sync.
for durability in journal bucket; do
    for how in 0 1; do
        rm -rf "$T/vol"
        "$V" init "$VOL" --key-file "$T/key" --quiet || exit 1
        serve --mount "$T/mnt" --durability $durability || not_ok "serve"
        py write "$T/mnt" >"$T/names"
        check "$durability, way $how" py down "$T/mnt" $how
        unmounted
        serve --mount "$T/mnt" --durability $durability || not_ok "serve"
        check "$durability, way $how: all that was written is there" py same "$T/mnt" $([ $how = 0 ] && echo mapped || echo written)
        check "stop" stop
    done
done

# --hear-syncs (src/front/fuse/loop.h): what sync(2) was asked for survives, and what was there when umount returned. Older kernels tell no server of sync(2).
rm -rf "$T/vol"
"$V" init "$VOL" --key-file "$T/key" --quiet || exit 1
if [ ! -c /dev/loop-control ]; then
    ok "--hear-syncs # SKIP no loop devices here"
elif serve --mount "$T/mnt" --hear-syncs --durability bucket; then
    is "a mount that seems to lie on a loop device" "$(findmnt -n -o FSTYPE "$T/mnt")" fuseblk.varve
    if [ "$(printf '%s\n' 6.18 "$(uname -r)" | sort -V | head -n 1)" = 6.18 ]; then
        # mount of Debian 13 says the mount's own options again when it remounts, which no FUSE mount is let.
        for asked in "sync -f $T/mnt" "mount -i --options-mode ignore -o remount,ro $T/mnt"; do
            rm -rf "$T"/mnt/*
            py write "$T/mnt" >"$T/names"
            check "${asked%%[- ]*}" $asked
            check "and at once a shutdown" py down "$T/mnt" 2
            unmounted
            serve --mount "$T/mnt" --hear-syncs --durability bucket || not_ok "serve"
            check "all that was written is there" py same "$T/mnt" written
        done
    fi
    echo last >"$T/mnt/last"
    umount "$T/mnt"
    crash
    serve --mount "$T/mnt" --hear-syncs || not_ok "serve"
    is "what was written before umount returned is there, though the server was killed then" "$(cat "$T/mnt/last")" last
    loop=$(findmnt -n -o SOURCE "$T/mnt")
    echo unsynced >"$T/mnt/unsynced"
    kill -KILL "$SERVER"
    wait "$SERVER" 2>/dev/null
    check "a sync(2) of everything waits for no dead server" timeout 60 sync
    crash
    for i in $(seq 40); do losetup -n -O BACK-FILE "$loop" 2>/dev/null | grep -q memfd:varve || break; sleep 0.05; done
    check "the loop device goes with it" [ "$i" -lt 40 ]
else
    not_ok "serve with --hear-syncs"
fi

# Under load.
bad=0
steps=0
echo '{"paths": {}, "files": {}}' >"$T/state"
rm -rf "$T/vol"
"$V" init "$VOL" --key-file "$T/key" --quiet || exit 1
for round in $(seq "$SHUTDOWNS"); do
    durability=journal
    [ $((round % 3)) = 0 ] && durability=bucket
    serve --mount "$T/mnt" --memory 16M --durability $durability || { bad=$((bad + 1)); break; }
    rm -f "$T/history"
    loads=(mixed syncs renames)
    python3 tests/it/kill.py load "$T/mnt" "$T/history" "$((SEED + round))" "$T/state" "${loads[$((round % 3))]}" >"$T/load.log" 2>&1 &
    loader=$!
    for i in $(seq 100); do [ -s "$T/history" ] && break; sleep 0.05; done
    sleep "0.$((RANDOM % 70 + 10))"
    py down "$T/mnt" $((round % 2 + 1)) >"$T/out" 2>&1 || { echo "# round $round: $(cat "$T/out")"; bad=$((bad + 1)); }
    wait $loader
    steps=$((steps + $(grep -c done "$T/history")))
    status=0
    unmounted || status=$?
    [ $status = 1 ] || { echo "# round $round: the server ends with $status"; bad=$((bad + 1)); }
    serve --mount "$T/mnt" --memory 16M --durability $durability || { bad=$((bad + 1)); break; }
    if ! python3 tests/it/kill.py check "$T/mnt" "$T/history" 0 "$T/state" >"$T/state.new" 2>"$T/why"; then
        echo "# round $round: $(cat "$T/why")"
        bad=$((bad + 1))
        break
    fi
    mv "$T/state.new" "$T/state"
    stop || bad=$((bad + 1))
done
[ "$steps" -ge "$SHUTDOWNS" ] || { echo "# only $steps steps"; bad=$((bad + 1)); }
is "$SHUTDOWNS shutdowns under load (seed $SEED), $steps steps: each found a prefix with all that was fsynced" $bad 0
check "fsck with --data" fsck
finish
