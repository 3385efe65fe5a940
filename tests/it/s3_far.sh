#!/bin/bash
# run-tests: 100 s
# A mount on a real S3 server behind a proxy that adds 30 ms to each request, counted at the proxy: an fsync of a small
# change is one PUT, 64 at the same time share few, `find` over many files and a cold sequential read ask for little more
# than they need, and an idle volume asks for nothing (IDLE_S seconds: 60). Times and rates are printed, not judged; the
# simulator has them exactly (sim_bucket).
# Others would look at the mount while it is to be idle.
if [ "$(id -u)" = 0 ] && [ -z "${FAR_ALONE:-}" ]; then
    FAR_ALONE=1 exec unshare --mount --propagation private "$0"
fi
. tests/it/lib.sh
. tests/it/s3_lib.sh
need_fuse
IDLE_S=${IDLE_S:-60}
FILES=${FILES:-100000}
S3=versitygw
tools/install-s3-servers "$B" versitygw >/dev/null 2>&1 || S3=moto
tools/install-s3-servers "$B" "$S3" >/dev/null 2>&1 || skip_all "no S3 server could be installed"
PLAN='{}'
use_store "$S3"
make_volume --compression none
far() {
    plan '{"delay_ms": 30, "bytes_per_s": 60000000}'
    serve --mount "$T/mnt" --durability bucket --memory 256M --compression none || exit 1
}
# count KIND: requests of a kind so far ("" = all); bytes: what came down.
count() { proxy_counts | python3 -c 'import json,sys; c=json.load(sys.stdin); k=sys.argv[1]; print(c["requests"] if not k else c["kinds"].get(k, 0))' "$1"; }
down() { proxy_counts | python3 -c 'import json,sys; print(json.load(sys.stdin)["down_bytes"])'; }
serve --mount "$T/mnt" --durability bucket --compression none || exit 1
head -c 64000000 /dev/urandom >"$T/noise"
cp "$T/noise" "$T/mnt/noise"
python3 - "$T/mnt" $FILES <<'P'
import os, sys
for i in range(int(sys.argv[2])):
    if i % 500 == 0:
        d = f"{sys.argv[1]}/d{i // 500}"
        os.mkdir(d)
    os.close(os.open(f"{d}/file{i:06}", os.O_CREAT | os.O_WRONLY))
P
stop
far
before=$(count "")
found=$(find "$T/mnt" -name 'file*' -printf '%s\n' | wc -l)
made=$(($(count "") - before))
is "find sees all files" "$found" $FILES
check "and makes $made requests, at most 1 for 200 files" test "$made" -le $((FILES / 200))
down_before=$(down)
begun=$(date +%s%N)
check "a cold file reads right" cmp "$T/noise" "$T/mnt/noise"
took=$((($(date +%s%N) - begun) / 1000000))
got=$(($(down) - down_before))
check "with $got bytes fetched for 64000000 (at most 1.1)" test "$got" -le 70400000
echo "# in $took ms over a line of 60 MB/s: $((64000000 / (took + 1))) KB/s"
cat >"$T/sync.py" <<'P'
import os, sys, threading, time
t, count, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fds = [os.open(f"{t}/mnt/sync{i}", os.O_RDWR | os.O_CREAT) for i in range(threads)]
for fd in fds:
    os.write(fd, b"begin")
os.sync()
time.sleep(3)
print("go", flush=True)
sys.stdin.readline()
took = []
gate = threading.Barrier(threads)
def run(fd):
    gate.wait()
    for i in range(count):
        os.pwrite(fd, b"%d" % i * 20, 100)
        at = time.monotonic()
        os.fsync(fd)
        took.append(time.monotonic() - at)
all = [threading.Thread(target=run, args=(fd,)) for fd in fds]
for a in all: a.start()
for a in all: a.join()
took.sort()
print("# %d fsyncs, %d at a time: median %.1f ms, longest %.1f" % (len(took), threads, took[len(took) // 2] * 1000, took[-1] * 1000), flush=True)
print("end", flush=True)
sys.stdin.readline()
P
# syncs COUNT THREADS: sets $puts.
syncs() {
    coproc S { python3 "$T/sync.py" "$T" "$1" "$2"; }
    read -r line <&"${S[0]}"
    puts=$(count PUT)
    echo >&"${S[1]}"
    read -r line <&"${S[0]}" && echo "$line"
    read -r line <&"${S[0]}"
    puts=$(($(count PUT) - puts))
    echo >&"${S[1]}"
    wait "$S_PID" 2>/dev/null
}
syncs 30 1
is "30 fsyncs of a small change are 30 PUTs" "$puts" 30
syncs 1 64
check "64 fsyncs at the same time share $puts PUTs" test "$puts" -le 8
sleep 8
before=$(count "")
cp "$T/requests" "$T/requests.before"
sleep "$IDLE_S"
made=$(($(count "") - before))
is "an idle volume makes no request in $IDLE_S seconds" "$made" 0
[ "$made" = 0 ] || diff "$T/requests.before" "$T/requests" | sed 's/^/#   /'
stop
finish
