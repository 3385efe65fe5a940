#!/bin/bash
# What a mount owes to POSIX and Linux beyond what the doors' tests ask: locks of open file descriptions, file handles (also
# over a restart), setgid and ACLs, ctime, direct writes beside the page cache, access times; and locks wherever
# they are kept.
. tests/it/lib.sh
need_fuse
make_volume
# posix NAME "PARTS" OPTIONS...: parts of posix.py on a mount of its own.
posix() {
    local name=$1 parts=$2
    shift 2
    serve --mount "$T/mnt" "$@" || { not_ok "the server starts: $name"; finish; exit 1; }
    tap "$name" timeout 120 python3 tests/it/posix.py "$T/mnt" $parts
    check "stop" stop
}
posix "a mount" before --handles
[ "$(id -u)" != 0 ] || posix "after a restart" after --handles
[ "$(id -u)" != 0 ] || posix "without --handles" unopened
posix "locks in the server" server
posix "and beside a door that has some" server --9p "unix:$T/9p"
posix "locks in the kernel" "kernel relatime" --local-locks
posix "access times: never" noatime --atime noatime
posix "access times: always" strictatime --atime strictatime
check "fsck finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
