#!/bin/bash
# The disk cache of a server whose store takes 30 ms for each request: what was written or read is read back without
# the store, also after a restart and a kill; damage and lost files are misses; only ciphertext lies there; it is
# bounded; and one directory is one server's.
. "$(dirname "$0")/lib.sh"
need_fuse
figure() {
    "$V" status "$T/vol" --json | python3 -c "import json,sys; print(json.load(sys.stdin)['$1'])"
}
mounted() { serve --mount "$T/mnt" --store-latency 30 --durability bucket --cache "$T/cache" "$@"; }
make_volume --compression none
mounted --cache-size 64M || exit 1
python3 - "$T" <<'P'
import os, sys
t = sys.argv[1]
line = b"a line that must not be legible in the cache\n"
with open(t + "/mnt/text", "wb") as f:
    f.write(line * 100000)
with open(t + "/mnt/noise", "wb") as f:
    f.write(os.urandom(8 << 20))
for i in range(200):
    with open(f"{t}/mnt/small{i}", "wb") as f:
        f.write(b"%d" % i * 1000)
os.sync()
P
sums() { (cd "$T/mnt" && cat text noise small* | sha256sum); }
before=$(sums)
stop
mounted --cache-size 64M || exit 1
is "after a restart the files are as written" "$(sums)" "$before"
is "and not a byte of them came from the store" "$(figure disk_cache_missed_bytes)" 0
hits=$(figure disk_cache_hits)
check "but $hits reads from the cache" test "$hits" -gt 10
check "nothing legible lies in it" sh -c "! grep -rq 'must not be legible' '$T/cache'"
second=$("$V" serve "$T/vol" --key-file "$T/key" --9p unix:"$T/sock" --read-only --cache "$T/cache" 2>&1)
status=$?
check "a second server is refused the directory ($status)" test "$status" -ne 0
check "with an explanation" sh -c "echo '$second' | grep -q 'another server uses this cache'"
crash
mounted --cache-size 64M || exit 1
is "after a kill the files are as written" "$(sums)" "$before"
# The log's tail and manifests may be asked for; data and tables may not.
missed=$(figure disk_cache_missed_bytes)
check "and $missed bytes came from the store" test "$missed" -lt 300000
stop
for f in "$T"/cache/*.vvc; do
    python3 - "$f" <<'P'
import os, random, sys
random.seed(5)
size = os.path.getsize(sys.argv[1])
with open(sys.argv[1], "r+b") as f:
    for _ in range(max(1, size // 200000)):
        f.seek(random.randrange(size))
        f.write(os.urandom(1))
P
done
mounted --cache-size 64M || exit 1
is "with damaged cache files the files are as written" "$(sums)" "$before"
damaged=$(figure disk_cache_damaged)
missed=$(figure disk_cache_misses)
check "$damaged entries were found damaged, $missed reads went to the store" test "$missed" -gt 0
stop
find "$T/cache" -name '*.vvc' | head -n 1 | xargs rm
mounted --cache-size 8M || exit 1
is "with a file gone, and a smaller cache, too" "$(sums)" "$before"
held=$(figure disk_cache_held_bytes)
check "which holds $held bytes" test "$held" -le $((8 << 20))
check "on the disk as well" test "$(du -sb "$T/cache" | cut -f1)" -le $((9 << 20))
memory=$(figure disk_cache_memory_bytes)
check "and its entries $memory bytes of memory" test "$memory" -gt 0 -a "$memory" -le "$(figure disk_cache_memory_max_bytes)"
stop
# A cache of which the memory can only know a part: the server says so, and goes on.
mounted --cache-size 1T --memory 16M || exit 1
check "more than --memory can keep in mind is warned of" grep -q 'with this --memory at most [0-9]* MiB of it' "$T/server.log"
is "and served" "$(sums)" "$before"
stop
check "fsck finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data
finish
