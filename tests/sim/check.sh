#!/bin/bash
# run-tests: 150 s, busy
# The simulator's part of `make check`: SIM_SEEDS seeds (1,000) of 2,000 operations and 3 crashes, shared among the modes; 20 of
# them twice with the same end; and 100 of them under address and undefined-behaviour sanitizers.
set -u
B=${VARVE_BUILD:-build}
SEEDS=${SIM_SEEDS:-1000}
LARGE=${SIM_LARGE_SEEDS:-6} # of each mode with a large volume
JOBS=${SIM_JOBS:-2}
modes="journal dir plain mem slow cache storm faults outage full brim race late stale hasty moving down errors"
count=0
# run NAME PROGRAM OPTIONS...
run() {
    local name=$1 out
    shift
    count=$((count + 1))
    if out=$("$@" 2>&1); then
        echo "ok $count - $name"
    else
        echo "not ok $count - $name"
    fi
    echo "$out" | grep -v '^[0-9-]*T[0-9:.]*Z' | tail -n 4 | sed 's/^#*/#/'
    local repacked
    repacked=$(echo "$out" | grep '^# repacked: ' | tr -dc '0-9 ')
    [ -z "$repacked" ] || repack_count $repacked
}
# What repacking did in all seeds so far: segments emptied, frames moved, moves refused at finalise, kills meanwhile; and
# files whose st_blocks were added up, those of them with space set aside; writes that went into a layer of their commit.
repacks=(0 0 0 0 0 0 0)
repack_count() {
    local i=0 number
    for number in "$@"; do
        repacks[i]=$((repacks[i] + number))
        i=$((i + 1))
    done
}
number=$(echo "$modes" | wc -w)
each=$(((SEEDS + number - 1) / number))
for mode in $modes; do
    run "$each seeds of mode $mode" "$B/sim_fs" --mode "$mode" --seeds "1..$each" --ops 2000 --crashes 3 --jobs "$JOBS"
done
# A volume 52 times larger than memory: everything is evicted, flushed, merged and deleted while it runs.
for mode in large far crowded; do
    run "$LARGE seeds of mode $mode" "$B/sim_fs" --mode "$mode" --seeds "1..$LARGE" --ops 2000 --crashes 3 --jobs "$JOBS"
done
if [ "$SEEDS" -ge 500 ]; then
    run "repacking: ${repacks[0]} segments emptied, ${repacks[1]} frames moved, ${repacks[2]} moves refused, ${repacks[3]} kills meanwhile" \
        test "${repacks[0]}" -gt 1000 -a "${repacks[1]}" -gt 1000 -a "${repacks[2]}" -gt 100 -a "${repacks[3]}" -gt 20
    run "st_blocks of ${repacks[4]} files added up, ${repacks[5]} of them with space set aside" \
        test "${repacks[4]}" -gt 1000 -a "${repacks[5]}" -gt 100
    run "${repacks[6]} writes merged with those before them" test "${repacks[6]}" -gt 10000
fi
# pass NAME PROGRAM: for programs that print TAP themselves: their lines become ours.
pass() {
    local name=$1 lines line
    shift
    lines=$("$@" 2>/dev/null) || true
    while IFS= read -r line; do
        case $line in
        "ok "* | "not ok "*)
            count=$((count + 1))
            echo "$line" | sed "s/^\(not \)\?ok [0-9]*/\1ok $count/"
            ;;
        "1.."*) ;;
        *) echo "$line" ;;
        esac
    done <<<"$lines"
    run "$name to their end" grep -q '^1\.\.' <<<"$lines"
}
# Each trace of PROTOCOL's last table is one or more lines.
pass "the traces of PROTOCOL were played" "$B/sim_protocol"
pass "operations with each allocation failing were made" "$B/sim_failing"
pass "cold operations over a far store were made" "$B/sim_cold"
run "20 seeds end alike twice" "$B/sim_fs" --mode all --seeds 1..20 --twice --jobs "$JOBS"
run "the model agrees with the host's file system" "$B/sim_model"
# A killed process leaves its libraries' memory behind; what the engine leaks is counted by domain instead.
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
if [ "${SIM_SANITIZE:-1}" = 1 ]; then
    S=$B/sanitized
    if tools/configure "$S" -Dsanitize=address >"$B/sanitized.log" 2>&1 && ninja -C "$S" sim_fs sim_protocol sim_failing >>"$B/sanitized.log" 2>&1; then
        run "the traces under sanitizers" "$S/sim_protocol"
        run "each allocation failing, under sanitizers" "$S/sim_failing"
        for mode in $modes; do
            run "10 seeds of mode $mode under sanitizers" "$S/sim_fs" --mode "$mode" --seeds 2001..2010 --jobs "$JOBS"
        done
    else
        count=$((count + 1))
        echo "not ok $count - the sanitized build"
        tail -n 5 "$B/sanitized.log" | sed 's/^/# /'
    fi
fi
echo "1..$count"
