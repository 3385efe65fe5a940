#!/bin/bash
# run-tests: 60 s
# kill -9 of the server at random moments under three loads (mixed, full of syncs, full of renames): what is found after
# each restart must be a prefix of the history that holds everything fsynced, and fsck must find nothing. KILLS says how
# often (50), KILL_SEED which loads. s3_kill.sh runs it
# with other stores: STORE names one (s3_lib.sh), DURABILITY is bucket, journal or mixed, LOAD_S the seconds of load before
# each kill, CACHE=1 adds a disk cache that outlives the kills, PLAN what a proxy before the store does meanwhile.
. tests/it/lib.sh
. tests/it/s3_lib.sh
need_fuse
use_store "${STORE:-dir}"
make_volume
KILLS=${KILLS:-50}
DURABILITY=${DURABILITY:-mixed}
[ -z "${PLAN:-}" ] || plan "$PLAN"
CACHE_OPTIONS=()
[ -z "${CACHE:-}" ] || CACHE_OPTIONS=(--cache "$T/cache" --cache-size 64M)
SEED=${KILL_SEED:-0}
bad=0
steps=0
: >"$T/state"
echo '{"paths": {}, "files": {}}' >"$T/state"
for round in $(seq "$KILLS"); do
    memory=256M
    [ $((round % 2)) = 0 ] && memory=16M
    durability=$DURABILITY
    [ "$DURABILITY" = mixed ] && durability=journal && [ $((round % 5)) = 0 ] && durability=bucket
    serve --mount "$T/mnt" --memory $memory --durability $durability "${CACHE_OPTIONS[@]}" || { bad=$((bad + 1)); break; }
    rm -f "$T/history"
    loads=(mixed syncs renames)
    load=${loads[$((round % 3))]}
    python3 tests/it/kill.py load "$T/mnt" "$T/history" "$((SEED + round))" "$T/state" "$load" >"$T/load.log" 2>&1 &
    loader=$!
    for i in $(seq 100); do [ -s "$T/history" ] && break; sleep 0.05; done
    sleep "${LOAD_S:-0.$((RANDOM % 70 + 10))}"
    kill -0 "$SERVER" 2>/dev/null || { echo "# round $round: the server has gone"; bad=$((bad + 1)); }
    crash
    wait $loader
    steps=$((steps + $(grep -c done "$T/history")))
    serve --mount "$T/mnt" --memory $memory --durability $durability "${CACHE_OPTIONS[@]}" || { bad=$((bad + 1)); break; }
    if ! python3 tests/it/kill.py check "$T/mnt" "$T/history" 0 "$T/state" >"$T/state.new" 2>"$T/why"; then
        echo "# round $round, $load: $(cat "$T/why")"
        bad=$((bad + 1))
        crash
        break
    fi
    mv "$T/state.new" "$T/state"
    # Half of the rounds end in good order, half with the next crash right away.
    if [ $((round % 2)) = 0 ]; then
        stop || { echo "# round $round: the server did not stop well"; bad=$((bad + 1)); }
        if [ $((round % 10)) = 0 ] && ! "$V" fsck "$VOL" --key-file "$T/key" "${STORE_OPTIONS[@]}" --quiet >"$T/fsck" 2>&1; then
            echo "# round $round: fsck:"
            head -n 10 "$T/fsck" | sed 's/^/#   /'
            bad=$((bad + 1))
        fi
    else
        crash
    fi
done
[ "$steps" -ge "$KILLS" ] || { echo "# only $steps steps"; bad=$((bad + 1)); }
is "$KILLS kills, $steps steps: each restart found a prefix with all that was fsynced" $bad 0
[ -z "${PLAN:-}" ] || { counts; plan '{}'; }
# The last server's flush deletes what the killed ones left.
serve --mount "$T/mnt" && touch "$T/mnt/last" && "$V" flush "$VOL" "${STORE_OPTIONS[@]}" >"$T/flush" 2>&1 &&
    "$V" status "$VOL" --json "${STORE_OPTIONS[@]}" >"$T/status"
stop
find_nothing() {
    "$V" fsck "$VOL" --key-file "$T/key" "${STORE_OPTIONS[@]}" --data --json >"$T/fsck" || { cat "$T/fsck"; return 1; }
    cat "$T/flush"
    grep '_objects"' "$T/fsck"
    # But for tables of a merge that the stop came upon. A proxy may have let a put arrive later.
    [ -n "${PLAN:-}" ] || grep -q '"garbage_objects": [0-3],' "$T/fsck"
}
check "fsck with --data finds nothing, nor what the killed servers left" find_nothing
echo "# the last server deleted $(grep -o '"leftovers_deleted": [0-9]*' "$T/status" | tr -dc 0-9) of them"
finish
