#!/bin/bash
# run-tests: 65 s
# The kill test with the volume on real S3 servers: two servers, both kinds of durability. S3_KILLS kills in all (20; 50 or more in the long form).
. tests/it/lib.sh
need_fuse
S3_KILLS=${S3_KILLS:-20}
# kills STORE DURABILITY COUNT
kills() {
    local status=0
    STORE=$1 DURABILITY=$2 KILLS=$3 timeout 1200 tests/it/kill.sh >"$T/out" 2>&1 || status=$?
    if grep -q '^1..0 # SKIP' "$T/out"; then
        echo "# not run on $1: $(sed -n 's/^1..0 # SKIP //p' "$T/out")"
        return
    fi
    is "$1, $2: $(sed -n 's/^\(not \)\?ok 1 - //p' "$T/out")" \
        "$status $(grep -c '^ok' "$T/out") $(grep -c '^not ok' "$T/out")" "0 2 0"
    [ $status = 0 ] && ! grep -q '^not ok' "$T/out" || sed 's/^/#   /' "$T/out"
}
first=$((S3_KILLS * 2 / 5)) second=$((S3_KILLS * 3 / 10)) third=$((S3_KILLS * 3 / 20))
kills versitygw bucket $first
kills versitygw journal $second
kills moto bucket $third
kills moto journal $((S3_KILLS - first - second - third))
[ "$count" -gt 0 ] || skip_all "no S3 server could be installed"
finish
