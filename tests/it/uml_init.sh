#!/bin/bash
# The first program of a User-Mode Linux guest (tests/it/uml_lib.sh starts it, nothing else should). Its root is the
# host's, over hostfs; what the guest keeps for itself (devices, /run, mount points) lies on its own tmpfs. Then it
# takes numbers from the serial line: number N means: run $varve_dir/N.sh, its output to N.out, its status to N.rc.
# Commands run beside each other. The line "off" ends the guest.
export PATH=$varve_dir/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs mnt /mnt
# There is no udevd: device mapper must make its own nodes, and whoever asks udevadm to settle must not wait.
export DM_DISABLE_UDEV=1
ip link set lo up
ip address add "$varve_guest/24" dev vec0
ip link set vec0 up
ulimit -n 65536
stty raw -echo </dev/ttyS0

run() {
    local status=0
    bash "$varve_dir/$1.sh" >"$varve_dir/$1.out" 2>&1 </dev/null || status=$?
    echo $status >"$varve_dir/$1.new"
    mv "$varve_dir/$1.new" "$varve_dir/$1.rc"
}

echo 0 >"$varve_dir/up.new"
mv "$varve_dir/up.new" "$varve_dir/up.rc"
while read -r number; do
    [ "$number" = off ] && break
    run "$number" &
done </dev/ttyS0
echo o >/proc/sysrq-trigger
sleep 60
