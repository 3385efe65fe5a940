#!/bin/bash
# Large writes through each door, of which the volume takes the memory over instead of copying it (payloads): aligned or
# not, with other requests among them, and with the least memory a server can have.
. tests/it/lib.sh
need_fuse
make_volume
field() { "$V" status --json "$T/vol" | tr -d ' ",' | sed -n "s/^$1://p"; }
# write_all DOOR ADDRESS: what payload.py says of it, and that layers were handed over.
write_all() {
    local before after
    before=$(field handed_layers)
    tap "$1" timeout 60 /usr/bin/python3 tests/it/payload.py "$1" "$T/mnt" "$2"
    after=$(field handed_layers)
    check "$1: $((after - before)) layers were handed over" [ $((after - before)) -ge 300 ]
}
for memory in 256M 16M; do
    serve --memory $memory --mount "$T/mnt" --9p 127.0.0.1:0 --nfs 127.0.0.1:0 --nbd "unix:$T/nbd" \
        --export /:no_root_squash,insecure || { not_ok "the server starts"; break; }
    port() { grep -o "$1 on port [0-9]*" "$T/server.log" | grep -o '[0-9]*$'; }
    [ -e "$T/mnt/.nbd/payload" ] || check "a device" "$V" device create "$T/vol" payload 12M
    write_all fuse -
    rm -f "$T/mnt/payload-9p" "$T/mnt/payload-nfs" "$T/mnt"/link-*
    write_all 9p "127.0.0.1:$(port 9P)"
    write_all nfs "127.0.0.1:$(port NFS)"
    if /usr/bin/python3 -c 'import nbd' 2>/dev/null; then write_all nbd "$T/nbd"; fi
    check "all of it is well" timeout 60 "$V" flush "$T/vol"
    check "the server ends well, with $memory" stop
done
finish
