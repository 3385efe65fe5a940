#!/bin/bash
# 9P by itself, then 9P and a mount, and NFS with both: what one door changes, the others show.
. tests/it/lib.sh
need_fuse
make_volume
serve --mount "$T/mnt" --9p "unix:$T/9p" --nfs 127.0.0.1:0 --export /:no_root_squash,insecure || { not_ok "the server starts"; finish; exit 1; }
tap "9P" timeout 120 python3 tests/it/ninep_client.py "unix:$T/9p"
tap "9P and a mount" timeout 120 python3 tests/it/doors.py "$T/mnt" "unix:$T/9p"
PORT=$(grep -o 'NFS on port [0-9]*' "$T/server.log" | grep -o '[0-9]*$')
tap "NFS, 9P and a mount" timeout 120 python3 tests/it/nfs_doors.py "$T/mnt" "unix:$T/9p" "$PORT"
check "the server ends well" stop
finish
