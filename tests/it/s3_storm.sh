#!/bin/bash
# run-tests: 100 s
# A fault storm between a loaded server and a real S3 server: 500 and 503 before and after the effect, time-outs that
# took effect and that did not, resets, slow bodies, truncated bodies, wrong ETags. The server is killed at the end of each
# quarter, and opened again under the storm. No acknowledged durable write may be lost, no success be false, and the
# server must not end by itself. STORM_S seconds (60).
. tests/it/lib.sh
. tests/it/s3_lib.sh
need_fuse
STORM_S=${STORM_S:-60}
S3=versitygw
tools/install-s3-servers "$B" versitygw >/dev/null 2>&1 || S3=moto
tools/install-s3-servers "$B" "$S3" >/dev/null 2>&1 || skip_all "no S3 server could be installed"
for durability in bucket journal; do
    status=0
    STORE=$S3 DURABILITY=$durability KILLS=2 LOAD_S=$((STORM_S / 4)) PLAN='{"storm": 80}' S3_EXTRA="--store-timeout 2" \
        timeout $((STORM_S + 240)) tests/it/kill.sh >"$T/out" 2>&1 || status=$?
    grep '^#' "$T/out"
    is "$S3, $durability: $(sed -n 's/^\(not \)\?ok 1 - //p' "$T/out")" \
        "$status $(grep -c '^ok' "$T/out") $(grep -c '^not ok' "$T/out")" "0 2 0"
    faults=$(sed -n 's/^# the proxy: //p' "$T/out" | python3 -c 'import json,sys; c = json.load(sys.stdin)["faults"]; print(len(c) if min(c.values()) > 0 else 0)')
    check "$S3, $durability: at least eight kinds of faults happened ($faults)" [ "$faults" -ge 8 ]
done
finish
