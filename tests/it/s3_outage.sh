#!/bin/bash
# run-tests: 70 s
# A real S3 server that is away for a minute (503 to every request) under a mount with a disk cache: reads of what the
# cache holds go on, an fsync fails at its deadline and the next one as well, the writer's data is kept, and when the
# server is back fsync succeeds and everything is in the bucket. The server never ends by itself. OUTAGE_S seconds (62).
. tests/it/lib.sh
. tests/it/s3_lib.sh
need_fuse
OUTAGE_S=${OUTAGE_S:-62}
S3=versitygw
tools/install-s3-servers "$B" versitygw >/dev/null 2>&1 || S3=moto
tools/install-s3-servers "$B" "$S3" >/dev/null 2>&1 || skip_all "no S3 server could be installed"
PLAN='{}'
use_store "$S3"
make_volume --compression none
serve --mount "$T/mnt" --durability bucket --memory 32M --cache "$T/cache" --cache-size 256M || exit 1
head -c 24000000 /dev/urandom >"$T/noise"
cp "$T/noise" "$T/mnt/noise" && sync "$T/mnt/noise"
pid=$SERVER
plan '{"down": "503"}'
cat >"$T/client.py" <<'P'
import errno, os, sys, time
t, outage = sys.argv[1], float(sys.argv[2])
begun = time.monotonic()
def sync(fd):
    at = time.monotonic()
    try:
        os.fsync(fd)
        return "ok", time.monotonic() - at
    except OSError as e:
        return errno.errorcode[e.errno], time.monotonic() - at
fd = os.open(t + "/mnt/small", os.O_RDWR | os.O_CREAT)
os.write(fd, b"precious")
for i in range(2):
    print("during %s %.1f" % sync(fd), flush=True)
while time.monotonic() - begun < outage:
    time.sleep(0.2)
os.system("touch " + t + "/over")
while not os.path.exists(t + "/back"):
    time.sleep(0.05)
for i in range(40):
    result, took = sync(fd)
    if result == "ok":
        break
print("after %s %.1f" % (result, took), flush=True)
P
python3 "$T/client.py" "$T" "$OUTAGE_S" >"$T/client.out" 2>&1 &
CLIENT=$!
HELPERS+=($CLIENT)
sleep 2
cat >"$T/read.py" <<'P'
import mmap, os, sys
# O_DIRECT: the kernel keeps nothing of it.
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
buf = mmap.mmap(-1, 1 << 20)
with open(sys.argv[2], "rb") as f:
    while (n := os.readv(fd, [buf])) > 0:
        if buf[:n] != f.read(n):
            sys.exit("other bytes")
    sys.exit(0 if not f.read(1) else "too short")
P
check "reads of what the disk cache holds go on while the store is away" timeout 30 python3 "$T/read.py" "$T/mnt/noise" "$T/noise"
( head -c 40000000 /dev/zero >"$T/mnt/flood" ) 2>/dev/null &
FLOOD=$!
HELPERS+=($FLOOD)
for i in $(seq $((OUTAGE_S * 2))); do [ -e "$T/over" ] && break; sleep 0.5; done
check "a second time, too, while a writer waits for memory" timeout 30 python3 "$T/read.py" "$T/mnt/noise" "$T/noise"
check "which is still waiting" kill -0 "$FLOOD"
sed 's/^/# /' "$T/client.out"
is "fsync failed at its deadline, twice" "$(awk '/^during/ {print $2}' "$T/client.out" | tr '\n' ' ')" "EIO EIO "
check "the server has not ended" kill -0 "$pid"
plan '{}'
touch "$T/back"
for i in $(seq 120); do kill -0 "$CLIENT" 2>/dev/null || break; sleep 0.5; done
grep '^after' "$T/client.out" | sed 's/^/# /'
is "when the store is back fsync succeeds" "$(awk '/^after/ {print $2}' "$T/client.out")" ok
for i in $(seq 120); do kill -0 "$FLOOD" 2>/dev/null || break; sleep 0.5; done
is "the writer ends, with all of it" "$(stat -c %s "$T/mnt/flood")" 40000000
check "the server stops in good order" stop
rm -r "$T/cache"
serve --mount "$T/mnt" --durability bucket || exit 1
is "nothing was dropped: what was fsynced is in the bucket" "$(cat "$T/mnt/small")" precious
check "and the rest" cmp "$T/noise" "$T/mnt/noise"
check "with what the writer wrote" cmp -n 40000000 /dev/zero "$T/mnt/flood"
stop
check "fsck finds nothing" "$V" fsck "$VOL" --key-file "$T/key" "${STORE_OPTIONS[@]}" --data
finish
