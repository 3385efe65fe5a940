#!/bin/bash
# Two servers on one volume in a bucket, as if on two machines (each with a state directory of its own): the older one
# is fenced, says so, acknowledges nothing any more, and what it had made durable is there. With a journal, the second
# one is refused as long as the journal is elsewhere. Without STORE, for two S3 servers.
. tests/it/lib.sh
. tests/it/s3_lib.sh
need_fuse
if [ -z "${STORE:-}" ]; then
    for store in versitygw moto; do
        STORE=$store "$0" >"$T/out" 2>&1
        if grep -q '^1..0 # SKIP' "$T/out"; then
            echo "# not run on $store: $(sed -n 's/^1..0 # SKIP //p' "$T/out")"
            continue
        fi
        tap "$store" cat "$T/out"
    done
    [ "$count" -gt 0 ] || skip_all "no S3 server could be installed"
    finish
    exit 0
fi
use_store "$STORE"
make_volume
OTHER=(--endpoint "$ENDPOINT" --access-key-file "$T/access" --state "$T/other-host" --key-file "$T/key")
# start_other OPTIONS...: the second machine's server; its exit status when it ends instead of serving.
start_other() {
    : >"$T/newer.log"
    "$V" serve "$VOL" "${OTHER[@]}" --9p 127.0.0.1:0 "$@" >"$T/newer.log" 2>&1 &
    NEWER=$!
    local i
    for i in $(seq 400); do
        grep -q ^serving "$T/newer.log" && return 0
        kill -0 $NEWER 2>/dev/null || break
        sleep 0.05
    done
    wait $NEWER
}

# Bucket durability: whoever comes later has it.
serve --mount "$T/mnt" || { not_ok "the first server starts"; finish; exit 1; }
is "the default durability is" "$("$V" status "$VOL" "${STORE_OPTIONS[@]}" --json |
    python3 -c 'import json,sys; print(json.load(sys.stdin)["durability"])')" bucket
echo first >"$T/mnt/first"
check "the first server's fsync" sync "$T/mnt/first"
start_other --durability bucket
is "the second server takes over" $? 0
echo second >"$T/mnt/second"
if timeout 60 sync "$T/mnt/second" 2>"$T/out"; then not_ok "the fenced server's fsync fails"; else ok "the fenced server's fsync fails"; fi
status=0
wait "$SERVER" || status=$?
SERVER=
is "the fenced server ends with status 7" $status 7
check "and says why" grep -q "taken this volume over" "$T/server.log"
umount -l "$T/mnt" 2>/dev/null
kill -TERM $NEWER
wait $NEWER
is "the second server ends well" $? 0

# Journal durability: the journal is on the first machine.
serve --mount "$T/mnt" --durability journal || { not_ok "the first server starts with a journal"; finish; exit 1; }
is "what was durable before the take-over is there" "$(cat "$T/mnt/first")" first
is "what was not acknowledged is not" "$(ls "$T/mnt")" first
echo third >"$T/mnt/third"
check "an fsync to the journal" sync "$T/mnt/third"
start_other --durability bucket
is "a machine without the journal is refused" $? 5
check "and told why" grep -q "journal" "$T/newer.log"
status=0
"$V" serve "$VOL" "${STORE_OPTIONS[@]}" --key-file "$T/key" --durability journal --9p 127.0.0.1:0 >"$T/out" 2>&1 || status=$?
is "a second server on the first machine is refused" $status 5
start_other --durability bucket --abandon-journal
is "with --abandon-journal it takes over" $? 0
echo fourth >"$T/mnt/fourth"
sync "$T/mnt/fourth" 2>/dev/null
status=0
for i in $(seq 200); do kill -0 "$SERVER" 2>/dev/null || break; sleep 0.05; done
kill -0 "$SERVER" 2>/dev/null && kill -TERM "$SERVER"
wait "$SERVER" || status=$?
SERVER=
is "the server with the journal is fenced" $status 7
umount -l "$T/mnt" 2>/dev/null
kill -TERM $NEWER
wait $NEWER
is "the second server ends well" $? 0
check "fsck finds nothing" "$V" fsck "$VOL" --key-file "$T/key" "${STORE_OPTIONS[@]}" --data --quiet
finish
