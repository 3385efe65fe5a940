#!/bin/bash
# Power cuts under a file system on a device of varve, in a real kernel. dm-log-writes records every write that ext4 and xfs make
# on the kernel's nbd (the log is a device of varve, too); cut at sampled writes, the state is put on a device, flushed, the server
# killed and started again: the file system recovers, its checker finds nothing, and what was fsynced before the cut is there.
# Then dm-flakey drops what is written after the last fsync. CUTS: how many for each file system (3; more in `make soak`).
. tests/it/uml_lib.sh
command -v nbdcopy >/dev/null || skip_all "no nbdcopy here"
CUTS=${CUTS:-3}
start_server() { serve --nbd "$UML_HOST:10809" --memory 128M; }
uri() { echo "nbd://$UML_HOST:10809/$1"; }
attach() { guest "nbd-client $UML_HOST 10809 /dev/nbd$2 -N $1 -t 30"; }
detach() { guest "nbd-client -d /dev/nbd$1"; }
log() { timeout 60 python3 tests/it/writelog.py "$@"; }

declare -A mkfs=([ext4]="mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0" [xfs]="mkfs.xfs -q")
declare -A fsck=([ext4]="e2fsck -fn" [xfs]="xfs_repair -n")
declare -A size=([ext4]=64M [xfs]=300M)
make_volume
start_server || { not_ok "the server starts"; finish; exit 1; }
uml_start || { not_ok "the guest boots"; finish; exit 1; }
check "the guest's modules" guest "for m in nbd dm-log-writes dm-flakey ext4 xfs; do modprobe \$m || exit 1; done"
for name in ext4 xfs; do
    "$V" device create "$T/vol" $name ${size[$name]}
    "$V" device create "$T/vol" $name-log 1G
    "$V" device create "$T/vol" $name-cut ${size[$name]}
    attach $name 0 >/dev/null && attach $name-log 1 >/dev/null
    check "$name: every write is recorded" guest "mkdir -p /mnt/$name &&
        dmsetup create logged --table \"0 \$(blockdev --getsz /dev/nbd0) log-writes /dev/nbd0 /dev/nbd1\" &&
        ${mkfs[$name]} /dev/mapper/logged && dmsetup message logged 0 mark made && mount /dev/mapper/logged /mnt/$name &&
        python3 tests/it/writelog.py load /mnt/$name logged 40 && umount /mnt/$name && dmsetup remove logged"
    detach 0 >/dev/null
    detach 1 >/dev/null
    timeout 60 nbdcopy "$(uri $name-log)" "$T/log" || not_ok "$name: the log is read"
    truncate -s ${size[$name]} "$T/image"
    at=0
    for cut in $(log cuts "$T/log" "$CUTS" "${SEED:-$RANDOM}"); do
        synced=$(log replay "$T/log" "$T/image" $at "$cut")
        at=$cut
        timeout 60 nbdcopy --flush "$T/image" "$(uri $name-cut)" || not_ok "$name: the state is copied"
        crash
        start_server || not_ok "the server starts again"
        check "$name: cut at write $cut, $synced fsyncs before it: recovered, clean, all of them there" \
            guest "nbd-client $UML_HOST 10809 /dev/nbd2 -N $name-cut -t 30 && mount /dev/nbd2 /mnt/$name &&
                python3 tests/it/writelog.py look /mnt/$name $synced && umount /mnt/$name && ${fsck[$name]} /dev/nbd2"
        guest "umount /mnt/$name 2>/dev/null; nbd-client -d /dev/nbd2" >/dev/null
    done
    rm "$T/image" "$T/log"

    # The same device again, behind one that loses what comes after the last fsync.
    attach $name 0 >/dev/null
    sectors="\$(blockdev --getsz /dev/nbd0)"
    check "$name: dm-flakey loses what is written after the last fsync; recovered, clean, the synced is there" guest "set -e
        dmsetup create flaky --table \"0 $sectors linear /dev/nbd0 0\"
        ${mkfs[$name]} $([ $name = xfs ] && echo -f) /dev/mapper/flaky
        mount /dev/mapper/flaky /mnt/$name
        mkdir /mnt/$name/d; cp -a $PWD/src/rt $PWD/src/base /mnt/$name/d/; sync -f /mnt/$name
        cp -a $PWD/src/fs /mnt/$name/d/
        dmsetup suspend --nolockfs --noflush flaky
        dmsetup load flaky --table \"0 $sectors flakey /dev/nbd0 0 0 60 1 drop_writes\"
        dmsetup resume flaky
        cp -a $PWD/src/volume /mnt/$name/d/; umount /mnt/$name
        dmsetup load flaky --table \"0 $sectors linear /dev/nbd0 0\"
        dmsetup suspend flaky; dmsetup resume flaky
        mount /dev/mapper/flaky /mnt/$name
        diff -r src/rt /mnt/$name/d/rt; diff -r src/base /mnt/$name/d/base
        umount /mnt/$name
        ${fsck[$name]} /dev/mapper/flaky
        dmsetup remove flaky"
    detach 0 >/dev/null
done
check "the guest shuts down" uml_stop
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
