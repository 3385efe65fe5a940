#!/bin/bash
# On a real mount and a real S3 server behind a proxy that records every request: no log object is put before the data
# segments that it refers to are durable. Several clients write, and fsync at last; then the server is killed, so that its log is
# still there, and the log objects are opened and compared with the times at which the proxy saw the puts take effect. A
# flush just before the kill leaves little of the log: again, until enough references were checked.
. tests/it/lib.sh
. tests/it/s3_lib.sh
need_fuse
S3=versitygw
tools/install-s3-servers "$B" versitygw >/dev/null 2>&1 || skip_all "versitygw could not be installed"
PYTHON=
for python in python3 /usr/bin/python3; do
    "$python" -c 'import cryptography, lz4.block, zstandard' 2>/dev/null && PYTHON=$python && break
done
[ -n "$PYTHON" ] || skip_all "python3-cryptography, python3-lz4 and python3-zstandard are not all there"
use_store "$S3"
proxy '{"delay_ms": 40}' --log "$T/requests"
make_volume --compression none
cat >"$T/load.py" <<'P'
import os, sys, threading, time
# While somebody syncs, data goes along with the commits (docs/decisions/0017): so each client syncs once, at its end.
end = time.monotonic() + 6
def run(i):
    fd = os.open(f"{sys.argv[1]}/mnt/f{i}", os.O_RDWR | os.O_CREAT)
    at = 0
    while time.monotonic() < end:
        for _ in range(1 + i):
            os.pwrite(fd, os.urandom(1 << 20), at % (32 << 20))
            at += 1 << 20
    os.fsync(fd)
for t in [threading.Thread(target=run, args=(i,)) for i in range(4)]:
    t.start()
P
CHECKED_MIN=8 ROUNDS_MAX=6
checked=0
for ((round = 1; round <= ROUNDS_MAX && checked < CHECKED_MIN; round++)); do
    serve --mount "$T/mnt" --durability bucket --compression none --memory 64M || exit 1
    check "four clients write for 6 s, and fsync" timeout 60 python3 "$T/load.py" "$T"
    crash
    check "each log object was put after the data segments that it refers to" \
        "$PYTHON" tests/it/s3_order.py "$T/gw/vol/some/where" "$T/key" "$T/requests" 0.040 "$T/checked"
    grep '^#' "$T/check.out"
    checked=$((checked + $(cat "$T/checked")))
done
check "enough references were checked: $checked" [ "$checked" -ge $CHECKED_MIN ]
finish
