#!/bin/bash
# A server is stopped in good order (SIGTERM, umount, both, twice) while clients of every door are busy, with requests under
# way that nobody waits for any more: it ends well and soon, and all that it acknowledged as durable is there. STOPS: how
# often (3; more in `make soak`). STOP_SEED chooses the loads.
. tests/it/lib.sh
need_fuse
[ "$(id -u)" = 0 ] || skip_all "needs root: NFS clients must have privileged ports"
/usr/bin/python3 -c 'import nbd' 2>/dev/null || skip_all "no python3-libnbd here"
STOPS=${STOPS:-3}
SEED=${STOP_SEED:-$RANDOM}
STOP_MAX_S=40
py() { timeout 60 /usr/bin/python3 tests/it/stop.py "$@"; }
open_doors() {
    serve --mount "$T/mnt" --9p "unix:$T/9p" --nfs 127.0.0.1:0 --export /:no_root_squash --nbd "unix:$T/nbd" "$@"
}
# The server ends by itself within STOP_MAX_S: its exit status, or that it did not.
wait_stopped() {
    local i status=0
    for i in $(seq $((STOP_MAX_S * 20))); do
        kill -0 "$SERVER" 2>/dev/null || break
        sleep 0.05
    done
    kill -0 "$SERVER" 2>/dev/null && { echo "# round $round: it does not end"; kill -ABRT "$SERVER"; }
    wait "$SERVER" 2>/dev/null || status=$?
    SERVER=
    return $status
}
make_volume
bad=0
longest=0
for round in $(seq "$STOPS"); do
    memory=(16M 256M 64M)
    durability=journal
    [ $((round % 3)) = 0 ] && durability=bucket
    open_doors --memory ${memory[$((round % 3))]} --durability $durability || { bad=$((bad + 1)); break; }
    [ "$round" -gt 1 ] || "$V" device create "$T/vol" disk 64M >/dev/null || { bad=$((bad + 1)); break; }
    port=$(sed -n 's/^serving.*NFS on port \([0-9]*\).*/\1/p' "$T/server.log")
    clients=()
    for i in 1 2; do
        seed=$((SEED * 100 + round * 10 + i))
        py 9p "unix:$T/9p" "$T/acks.$round.9p$i" $seed >"$T/9p$i.out" 2>&1 & clients+=($!)
        py nfs "127.0.0.1:$port" "$T/acks.$round.nfs$i" $seed >"$T/nfs$i.out" 2>&1 & clients+=($!)
        py nbd "nbd+unix:///disk?socket=$T/nbd" "$T/acks.$round.nbd$i" $seed >"$T/nbd$i.out" 2>&1 & clients+=($!)
        py mount "$T/mnt" "$T/acks.$round.mount$i" $seed >"$T/mount$i.out" 2>&1 & clients+=($!)
    done
    for i in $(seq 200); do
        [ "$(cat "$T"/acks."$round".* 2>/dev/null | awk '{ print $1 }' | sort -u | wc -l)" = 8 ] && break
        sleep 0.05
    done
    sleep 0.$((RANDOM % 90 + 10))
    begun=$(date +%s%N)
    case $((round % 4)) in
    1) kill -TERM "$SERVER" ;;
    2) umount -f "$T/mnt" 2>/dev/null; kill -TERM "$SERVER" ;;
    3) kill -TERM "$SERVER"; sleep 0.0$((RANDOM % 10)); kill -INT "$SERVER" 2>/dev/null ;;
    0) umount -l "$T/mnt"; kill -TERM "$SERVER" ;; # its users have ten seconds
    esac
    status=0
    wait_stopped || status=$?
    took=$((($(date +%s%N) - begun) / 1000000))
    [ $took -gt $longest ] && longest=$took
    [ $status = 0 ] || { echo "# round $round: status $status"; tail -n 30 "$T/server.log" | sed 's/^/#   /'; bad=$((bad + 1)); }
    umount -l "$T/mnt" 2>/dev/null
    wait "${clients[@]}" 2>/dev/null
    grep -l Traceback "$T"/*.out && { echo "# round $round: a client"; tail -n 5 "$T"/*.out | sed 's/^/#   /'; bad=$((bad + 1)); }
    serve --mount "$T/mnt" || { bad=$((bad + 1)); break; }
    py check "$T/mnt" "$T"/acks."$round".* >"$T/lost" 2>"$T/seen" || bad=$((bad + 1))
    [ -s "$T/lost" ] && { sed "s/^/# round $round: /" "$T/lost"; bad=$((bad + 1)); }
    stop || { echo "# round $round: the server did not stop well"; bad=$((bad + 1)); }
done
acks=$(cat "$T"/acks.* | wc -l)
check "$acks requests were acknowledged as durable" test "$acks" -ge $((STOPS * 8))
is "$STOPS stops under load: the server ended well each time, and all that was durable is there" $bad 0
echo "# the longest stop took $longest ms"
# What a program has mapped, changed and not synced. One processor and little memory: what the kernel writes back takes a while.
printf '#!/bin/sh\nexec taskset -c 0 "%s" "$@"\n' "$V" >"$T/one"
chmod +x "$T/one"
V=$T/one serve --mount "$T/mnt" --memory 16M || not_ok "a server on one processor"
timeout 60 /usr/bin/python3 tests/it/stop.py map "$T/mnt" "$T/copy" >/dev/null 2>&1 & mapper=$!
for i in $(seq 200); do [ -e "$T/copy" ] && break; sleep 0.05; done
check "a server is stopped while a file is mapped" stop
kill "$mapper"
wait "$mapper" 2>/dev/null
serve --mount "$T/mnt" && check "what was in the map is in the file" cmp "$T/copy" "$T/mnt/mapped"
stop
# Somebody detaches the mount, which is still used, and mounts another volume there: that one stays.
serve --mount "$T/mnt" || not_ok "the server starts"
first=$SERVER
sleep 50 <"$T/mnt" & user=$!
umount -l "$T/mnt"
"$V" init "$T/other" --key-file "$T/key2" --quiet
VOL=$T/other serve --mount "$T/mnt" --key-file "$T/key2" && echo new >"$T/mnt/new"
second=$SERVER
kill -TERM "$first"
sleep 1
kill "$user"
wait "$user" 2>/dev/null
status=0
wait "$first" || status=$?
is "a server stops whose place has another mount" $status 0
is "which goes on" "$(cat "$T/mnt/new" 2>&1)" new
SERVER=$second
check "until it is stopped" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
