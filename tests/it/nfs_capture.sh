#!/bin/bash
# run-tests: 12 s, alone
# A capture of NFS: WRITE says UNSTABLE when it is, and COMMIT is not answered before the store, or
# the journal, has acknowledged.
. tests/it/lib.sh
CAPTURE=
command -v tshark >/dev/null || skip_all "no tshark here"
[ "$(id -u)" = 0 ] || skip_all "capturing needs root"
timeout 20 tshark -q -i lo -a duration:1 -w "$T/probe.pcap" >/dev/null 2>&1 || skip_all "cannot capture here"

# capture WHERE [STRACE]: what nfs_capture.py makes, captured and checked.
capture() {
    local port status=0 wait
    port=$(grep -o 'NFS on port [0-9]*' "$T/server.log" | grep -o '[0-9]*$')
    rm -f "$T/nfs.pcap"
    timeout 120 tshark -q -i lo -f "tcp port $port" -w "$T/nfs.pcap" >"$T/tshark.log" 2>&1 &
    CAPTURE=$!
    for wait in $(seq 100); do
        [ -s "$T/nfs.pcap" ] && break
        sleep 0.1
    done
    sleep 0.5
    timeout 60 python3 tests/it/nfs_capture.py make "$port" >"$T/make.out" 2>&1 || cat "$T/make.out"
    sleep 0.5
    kill -INT $CAPTURE
    wait $CAPTURE
    [ -z "${STRACE_PID:-}" ] || { kill -INT "$STRACE_PID"; wait "$STRACE_PID"; }
    timeout 60 python3 tests/it/nfs_capture.py check "$1" "$T/nfs.pcap" "$port" ${2:-} >"$T/tap.out" 2>&1 || status=$?
    sed 's/^/# /' "$T/tap.out"
    return $status
}
make_volume
serve --nfs 127.0.0.1:0 --export /:no_root_squash --durability bucket --store-latency 150
if capture bucket:150; then ok "durability in a bucket"; else not_ok "durability in a bucket"; fi
stop
# strace sees the syncs of workers only; uring.sh counts those of io_uring.
VARVE_IO_URING=off serve --nfs 127.0.0.1:0 --export /:no_root_squash --durability journal
if command -v strace >/dev/null && timeout 5 strace -o /dev/null true 2>/dev/null; then
    timeout 120 strace -f -ttt -T -e trace=fdatasync -o "$T/strace" -p "$SERVER" 2>/dev/null &
    STRACE_PID=$!
    sleep 1
    if capture journal "$T/strace"; then ok "durability in a journal"; else not_ok "durability in a journal"; fi
else
    ok "durability in a journal # SKIP no strace here"
fi
check "the server ends well" stop
finish
