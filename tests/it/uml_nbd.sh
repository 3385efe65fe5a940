#!/bin/bash
# run-tests: 40 s
# File systems of a real kernel on block devices of varve: made, filled, synced; the server killed under load and started
# again; then their own checkers find nothing and all that was synced is there. What is discarded is free.
. tests/it/uml_lib.sh
field() { "$V" status --json "$T/vol" | tr -d ' ",' | sed -n "s/^$1://p"; }
start_server() { serve --nbd "$UML_HOST:10809" --memory 128M; }
attach() { guest "nbd-client $UML_HOST 10809 /dev/nbd$2 -N $1 -C 2 -t 30"; }
# The tree that is written: this project's own, some of it twice, and a large file.
mkdir -p "$T/tree"
cp -a src docs tests "$T/tree/"
cp -a src "$T/tree/again"
head -c 20000000 /dev/urandom >"$T/tree/large"
truncate -s 100M "$T/tree/sparse"

make_volume
start_server || { not_ok "the server starts"; finish; exit 1; }
uml_start || { not_ok "the guest boots"; finish; exit 1; }
check "the guest's nbd" guest "modprobe nbd nbds_max=8 && for m in ext4 xfs btrfs; do modprobe \$m; done"
systems=(ext4 xfs btrfs)
declare -A mkfs=([ext4]="mkfs.ext4 -q" [xfs]="mkfs.xfs -q" [btrfs]="mkfs.btrfs -q")
declare -A fsck=([ext4]="e2fsck -fn" [xfs]="xfs_repair -n" [btrfs]="btrfs check --readonly")
for i in 0 1 2; do
    name=${systems[$i]}
    "$V" device create "$T/vol" "$name" 2G
    check "$name: the device is attached" attach "$name" "$i"
    check "$name: mkfs" guest "${mkfs[$name]} /dev/nbd$i"
    check "$name: mount" guest "mkdir -p /mnt/$name && mount /dev/nbd$i /mnt/$name"
    check "$name: a tree is written and synced" guest "cp -a $T/tree /mnt/$name/ && sync -f /mnt/$name"
done
# More is written, and never synced, while the server dies.
for name in "${systems[@]}"; do
    guest_start "load-$name" "for i in \$(seq 100); do cp -a $T/tree/src /mnt/$name/more\$i && rm -rf /mnt/$name/more\$((i - 1)) || exit 0; done"
done
sleep 2
crash
for name in "${systems[@]}"; do guest_wait "load-$name" >"$T/load-$name" 2>&1; done
for i in 0 1 2; do
    name=${systems[$i]}
    check "$name: unmounted, without its device" guest "umount -f /mnt/$name || umount -l /mnt/$name; nbd-client -d /dev/nbd$i; true"
done
check "the server starts again" start_server
for i in 0 1 2; do
    name=${systems[$i]}
    j=$((i + 3))
    check "$name: attached again" attach "$name" $j
    check "$name: mounted again, which replays its journal" guest "mount /dev/nbd$j /mnt/$name"
    check "$name: all that was synced is there" guest "diff -r --no-dereference $T/tree /mnt/$name/tree"
    check "$name: unmounted" guest "umount /mnt/$name"
    check "$name: its checker finds nothing" guest "${fsck[$name]} /dev/nbd$j"
done
check "flush" "$V" flush "$T/vol"
before=$(field live_bytes)
for i in 0 1 2; do
    name=${systems[$i]}
    j=$((i + 3))
    check "$name: removed, and trimmed" guest "mount /dev/nbd$j /mnt/$name && rm -rf /mnt/$name/* && sync -f /mnt/$name && fstrim /mnt/$name && umount /mnt/$name"
done
check "flush" "$V" flush "$T/vol"
after=$(field live_bytes)
is "their space is free in varve status" $((after < before / 3)) 1
echo "# file data in use: $before bytes before, $after after"
check "the guest shuts down" uml_stop
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
