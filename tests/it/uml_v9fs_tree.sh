#!/bin/bash
# run-tests: 40 s
# A source tree through the kernel's 9P client: unpacked, compared, built with make -j2, looked at from a new mount. Then
# kill -9 of the server under load: what was fsynced through v9fs is there after recovery and a new mount. System calls and
# program starts are slow in the guest, so the tree is a small one; UML_FULL=1 takes git's (4,456 files, 600 units).
# KILLS: how often (3).
. tests/it/uml_lib.sh
. tests/it/source_tree.sh
if [ -n "${UML_FULL:-}" ]; then
    get_tree outside
else
    tree=$(generate_tree "$T/src" 6)
    name="a small generated tree"
fi
make_volume
serve --9p "$UML_HOST:5640" || { not_ok "the server starts"; finish; exit 1; }
uml_start || { not_ok "the guest boots"; finish; exit 1; }
v9fs() {
    guest "mkdir -p $1 && mount -t 9p -o trans=tcp,port=5640,version=9p2000.L,msize=1048576,access=user,cache=$2 $UML_HOST $1"
}
files=$(find "$tree" -type f | wc -l)
echo "# $name, $files files"
tar -C "$tree" -cf "$T/tree.tar" .
options="NO_CURL=1 NO_OPENSSL=1 NO_EXPAT=1 NO_GETTEXT=1 NO_TCLTK=1 NO_PERL=1 NO_PYTHON=1 CFLAGS=-O0"
for mode in ${MODES:-none loose}; do
    check "mount with cache=$mode" v9fs /mnt/$mode $mode
    GUEST_TIMEOUT=600 check "unpack it" guest "mkdir /mnt/$mode/$mode && tar -C /mnt/$mode/$mode -xf $T/tree.tar"
    GUEST_TIMEOUT=600 check "every byte is the same" guest "diff -r --no-dereference $tree /mnt/$mode/$mode"
    GUEST_TIMEOUT=1500 check "make -j2 git" guest "make -C /mnt/$mode/$mode -j2 $options git"
    sum=$(guest "cd /mnt/$mode/$mode && sha256sum git")
    check "unmount it" guest "umount /mnt/$mode"
    v9fs /mnt/$mode none
    is "what was built is the same after a new mount" "$(guest "cd /mnt/$mode/$mode && sha256sum git")" "$sum"
    guest "umount /mnt/$mode"
done
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet

# ---- kill -9 ----
# has_lines COUNT FILE: wait until the guest sees so many lines in a file that is being written there (two minutes at most):
# on a busy machine its programs take their time to begin.
has_lines() {
    for _ in $(seq 240); do
        [ "$(guest "cat $2 2>/dev/null | wc -l")" -ge "$1" ] && return
        sleep 0.5
    done
    return 1
}
KILLS=${KILLS:-3}
rm -rf "$T/vol" "$T/key"
make_volume
echo '{"paths": {}, "files": {}}' >"$T/state"
bad=0
steps=0
for round in $(seq "$KILLS"); do
    serve --9p "$UML_HOST:5640" || { bad=$((bad + 1)); break; }
    v9fs "/mnt/load$round" none || { bad=$((bad + 1)); break; }
    # The history is a new file each time, and is whole when the loader has ended: the guest has a page cache of its own.
    guest_start load "python3 tests/it/kill.py load /mnt/load$round $T/history.$round $round $T/state"
    has_lines 20 "$T/history.$round"
    sleep "0.$((RANDOM % 90 + 10))"
    crash
    guest_wait load >/dev/null
    # Also what v9fs would have sent when it is unmounted cannot arrive any more.
    guest "umount -f /mnt/load$round || umount -l /mnt/load$round"
    steps=$((steps + $(grep -c done "$T/history.$round")))
    serve --9p "$UML_HOST:5640" || { bad=$((bad + 1)); break; }
    v9fs "/mnt/check$round" none
    # Requests of msize (1 MiB) less the header of a Twrite.
    if ! guest "REQUEST_BYTES=1048552 python3 tests/it/kill.py check /mnt/check$round $T/history.$round 0 $T/state >$T/state.$round"; then
        echo "# round $round: no prefix fits"
        bad=$((bad + 1))
    fi
    guest "umount /mnt/check$round"
    cp "$T/state.$round" "$T/state.new" && mv "$T/state.new" "$T/state"
    stop || bad=$((bad + 1))
done
is "$KILLS kills, $steps steps through v9fs: each recovery found a prefix with all that was fsynced" $bad 0

# With cache=loose the client holds writes back, so the order is its own; but what was fsynced must be there.
cat >"$T/syncer.py" <<'P'
import os, sys
os.chdir(sys.argv[1])
with open(sys.argv[2], "w", buffering=1) as log:
    for i in range(100000):
        try:
            fd = os.open(f"f{i % 300}", os.O_RDWR | os.O_CREAT)
            os.pwrite(fd, f"{i:08}".encode() * 1000, i % 7 * 4096)
            if i % 3 == 0:
                os.fsync(fd)
                log.write(f"{i}\n")
            os.close(fd)
        except OSError:
            break
P
serve --9p "$UML_HOST:5640"
v9fs /mnt/syncer loose
guest_start syncer "mkdir /mnt/syncer/s && python3 $T/syncer.py /mnt/syncer/s $T/synced"
has_lines 25 "$T/synced"
crash
guest_wait syncer
# Linux 6.1 panics when it unmounts a loose v9fs with dirty pages whose server is gone: this client gets a new kernel.
uml_crash
uml_start || { not_ok "the guest boots again"; finish; exit 1; }
serve --9p "$UML_HOST:5640"
check "cache=loose: a new client mounts it" v9fs /mnt/synced none
cat >"$T/look.py" <<'P'
import sys
count = int(open(sys.argv[2]).read().split()[-1]) + 1
lost = 0
for i in (i for i in range(count) if i % 3 == 0):
    later = [j for j in range(i, count + 300, 300)]  # these write the same file, in other places or here
    with open(f"{sys.argv[1]}/f{i % 300}", "rb") as file:
        file.seek(i % 7 * 4096)
        found = file.read(8)
    lost += found not in [f"{j:08}".encode() for j in later]
print(f"{len(range(0, count, 3))} synced, {lost} lost" if lost else "none lost")
P
synced=$(wc -l <"$T/synced")
check "cache=loose: some were synced ($synced)" [ "$synced" -gt 20 ]
is "cache=loose: of $synced synced writes" "$(guest "python3 $T/look.py /mnt/synced/s $T/synced")" "none lost"
check "the guest shuts down" uml_stop
check "the server ends well again" stop
check "fsck with --data finds nothing again" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
