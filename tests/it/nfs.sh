#!/bin/bash
# run-tests: 13 s, alone
# NFS: every procedure by the tests' own client, libnfs's tools, exports and squashing, handles and
# what was made durable across restarts and kill -9.
. tests/it/lib.sh
# tap NAME COMMAND...: the command's own TAP counts as one check; what failed of it is shown.
tap() {
    local name=$1 status=0
    shift
    "$@" >"$T/tap.out" 2>&1 || status=$?
    if [ $status = 0 ]; then
        ok "$name ($(grep -c '^ok' "$T/tap.out") checks)"
    else
        not_ok "$name"
        grep -v '^ok' "$T/tap.out" | sed 's/^/#   /'
    fi
}
port_of() { grep -o 'NFS on port [0-9]*' "$T/server.log" | grep -o '[0-9]*$'; }
INSECURE=
[ "$(id -u)" = 0 ] || INSECURE=,insecure

make_volume
serve --nfs 127.0.0.1:0 --export "/:no_root_squash$INSECURE" || { not_ok "the server starts"; finish; exit 1; }
PORT=$(port_of)
tap "the protocol" timeout 120 python3 tests/it/nfs_test.py "127.0.0.1:$PORT"

# libnfs's own client library
url() { echo "nfs://127.0.0.1/$1?version=3&nfsport=$PORT&mountport=$PORT"; }
head -c 5000000 /dev/urandom >"$T/random"
check "nfs-cp writes 5 MB" timeout 60 nfs-cp "$T/random" "$(url /random)"
timeout 60 nfs-cat "$(url /random)" >"$T/back"
check "nfs-cat reads them back" cmp "$T/random" "$T/back"
is "nfs-ls lists it" "$(timeout 60 nfs-ls "$(url /)" | awk '{print $NF}' | xargs)" "random"

"$V" status "$T/vol" --key-file "$T/key" --json >"$T/status"
check "status counts requests" grep -q '"nfs_requests": [1-9]' "$T/status"
check "the server ends well" stop

# It starts, stops and kills its own servers.
mkdir "$T/durable"
tap "restarts, kills, exports" timeout 300 python3 tests/it/nfs_durable.py "$V" "$T/durable"
mkdir "$T/again"
tap "requests sent again after kill -9" timeout 300 python3 tests/it/nfs_again.py "$V" "$T/again"
# tests/it/reader.py knows the records from docs/format.md alone.
kept=$("$V" fsck "$T/again/durable" --key-file "$T/again/durable.key" --json | grep -o '"replies": [0-9]*' | grep -o '[0-9]*')
is "fsck counts the replies that are kept" "$([ "${kept:-0}" -gt 300 ] && echo more than 300)" "more than 300"
for python in python3 /usr/bin/python3; do
    "$python" -c 'import cryptography, lz4.block, zstandard' 2>/dev/null && break
done
is "another reader finds as many" "$($python tests/it/reader.py --replies "$T/again/durable" "$T/again/durable.key")" "$kept"
finish
