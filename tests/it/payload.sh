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
    check "$1: $((after - before)) layers were handed over" [ $((after - before)) -ge 400 ]
}
for memory in 256M 16M; do
    serve --memory $memory --mount "$T/mnt" || { not_ok "the server starts"; break; }
    write_all fuse -
    check "all of it is well" timeout 60 "$V" flush "$T/vol"
    check "the server ends well, with $memory" stop
done
finish
