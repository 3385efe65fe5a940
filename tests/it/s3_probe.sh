#!/bin/bash
# Stores that break what the commit protocol needs are found before anything is written, named, and refused. A proxy
# before a real server plays them.
. tests/it/lib.sh
. tests/it/s3_lib.sh
S3=versitygw
tools/install-s3-servers "$B" versitygw >/dev/null 2>&1 || S3=moto
use_store $S3
proxy '{}'
# refused NAME PLAN TEXT
refused() {
    local status=0
    plan "$2"
    rm -rf "$T/host"
    timeout 60 "$V" init "$VOL" --key-file "$T/key" "${STORE_OPTIONS[@]}" --quiet >"$T/out" 2>&1 || status=$?
    is "$1: init is refused" $status 1
    check "$1: the reason is named" grep -q "$3" "$T/out"
    check "$1: what to do is said" grep -q -- "--unsafe-no-fencing" "$T/out"
    plan '{}'
    is "$1: nothing of a volume was written" "$(timeout 60 "$V" status "$VOL" --key-file "$T/key" "${STORE_OPTIONS[@]}" 2>&1 | grep -c 'there is no volume')" 1
}
refused "put-if-absent is ignored" '{"absent_ignored": true}' "put-if-absent is ignored"
refused "LIST lags" '{"list_lag_ms": 3000}' "list lags behind put"
refused "PUT is answered early" '{"put_early_ms": 700}' "put is answered before the object can be read"

# Who insists gets a volume, and is told each time.
plan '{"absent_ignored": true}'
rm -rf "$T/host"
check "--unsafe-no-fencing goes on" \
    sh -c "'$V' init '$VOL' --key-file '$T/key' ${STORE_OPTIONS[*]} --unsafe-no-fencing >'$T/out' 2>&1"
check "and warns" grep -q "nothing keeps a second server out" "$T/out"
check "serve refuses it without the option" sh -c "! timeout 30 '$V' serve '$VOL' --key-file '$T/key' ${STORE_OPTIONS[*]} --9p 127.0.0.1:0 >'$T/out' 2>&1"
check "with the same reason" grep -q "put-if-absent is ignored" "$T/out"

# A store that passed is remembered: the next opening makes no request for it.
plan '{}'
before=$(proxy_counts)
serve --9p 127.0.0.1:0 && stop
between=$(proxy_counts)
serve --9p 127.0.0.1:0 && stop
after=$(proxy_counts)
python3 - "$before" "$between" "$after" >"$T/out" <<'P'
import json, sys
before, between, after = (json.loads(text)["kinds"] for text in sys.argv[1:])
probed = {k: between[k] - before.get(k, 0) for k in between}
plain = {k: after[k] - between.get(k, 0) for k in after}
print(f"# requests to open and close: {probed} with the probe, {plain} without")
print("ok" if sum(probed.values()) >= sum(plain.values()) + 10 else "not ok")
P
grep '^#' "$T/out"
is "the probe is remembered" "$(grep -v '^#' "$T/out")" ok
finish
