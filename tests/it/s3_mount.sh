#!/bin/bash
# run-tests: 20 s
# A tree of files on a mount whose volume is on a real S3 server: compared byte by byte as it is, after a restart on
# the same machine, and by a "machine" that knows nothing of the volume but its key. Without STORE, for two servers.
. tests/it/lib.sh
. tests/it/s3_lib.sh
need_fuse
if [ -z "${STORE:-}" ]; then
    for store in versitygw moto; do
        for durability in bucket journal; do
            STORE=$store DURABILITY=$durability "$0" >"$T/out" 2>&1
            if grep -q '^1..0 # SKIP' "$T/out"; then
                echo "# not run on $store: $(sed -n 's/^1..0 # SKIP //p' "$T/out")"
                continue
            fi
            tap "$store, $durability" cat "$T/out"
        done
    done
    [ "$count" -gt 0 ] || skip_all "no S3 server could be installed"
    finish
    exit 0
fi
use_store "$STORE"
make_volume
serve --mount "$T/mnt" --durability "$DURABILITY" || { not_ok "the server starts"; finish; exit 1; }
mkdir "$T/tree"
python3 - "$T/tree" <<'P'
import os, random, sys
os.chdir(sys.argv[1])
rng = random.Random(3)
for d in range(20):
    os.makedirs(f"d{d}/e/f")
    for f in range(30):
        size = rng.choice([0, 10, 500, 3000, 4096, 20000, 32768, 70000])
        with open(f"d{d}/e/file{f}", "wb") as file:
            file.write(rng.randbytes(size))
    os.symlink("../e/file1", f"d{d}/e/f/link")
    os.link(f"d{d}/e/file2", f"d{d}/hard")
with open("large", "wb") as file:
    for _ in range(40):
        file.write(rng.randbytes(1 << 20))
with open("sparse", "wb") as file:
    file.truncate(100 << 20)
    file.seek(50 << 20)
    file.write(b"in the middle")
P
check "copy a tree into the mount" cp -a "$T/tree" "$T/mnt/tree"
check "sync" sync -f "$T/mnt"
check "every byte is the same" diff -r --no-dereference "$T/tree" "$T/mnt/tree"
rm -rf "$T/mnt/tree/d3" "$T/tree/d3"
mv "$T/mnt/tree/d4" "$T/mnt/tree/moved"
mv "$T/tree/d4" "$T/tree/moved"
is "status: what is durable where" "$("$V" status "$VOL" "${STORE_OPTIONS[@]}" --json |
    python3 -c 'import json,sys; s = json.load(sys.stdin); print(s["durability"], s["is_served"], s["bucket_commit"] <= s["durable_commit"] <= s["last_commit"])')" \
    "$DURABILITY True True"
check "stop" stop
serve --mount "$T/mnt" --durability "$DURABILITY" || { not_ok "the server starts again"; finish; exit 1; }
check "every byte is the same after a restart" diff -r --no-dereference "$T/tree" "$T/mnt/tree"
check "stop again" stop
# Another machine: no state directory, no journal. After an orderly end nothing is in the journal only.
mv "$T/host" "$T/host.away"
serve --mount "$T/mnt" --durability bucket --abandon-journal || { not_ok "another machine serves it"; finish; exit 1; }
check "every byte is the same on another machine" diff -r --no-dereference "$T/tree" "$T/mnt/tree"
check "stop there" stop
check "fsck with --data finds nothing" "$V" fsck "$VOL" --key-file "$T/key" "${STORE_OPTIONS[@]}" --data --quiet
finish
