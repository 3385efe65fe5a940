#!/bin/bash
# Block devices over NBD, with the clients that users have: libnbd's tools, QEMU's, fio. NBD_KILLS
# says how often the server is killed under load (10).
. tests/it/lib.sh
for tool in nbdinfo nbdcopy qemu-img qemu-io fio openssl; do
    command -v $tool >/dev/null || skip_all "no $tool here"
done
/usr/bin/python3 -c 'import nbd' 2>/dev/null || skip_all "no python3-libnbd here"

S=$T/nbd.sock
py() { timeout 120 /usr/bin/python3 tests/it/nbd_client.py "$@"; }
uri() { echo "nbd+unix:///$1?socket=$S"; }
device() { "$V" device "$1" "$T/vol" "${@:2}"; }
field() { "$V" status --json "$T/vol" | tr -d ' ",' | sed -n "s/^$1://p"; }
info() { timeout 20 nbdinfo "$@"; }

make_volume
mount_option=()
[ -c /dev/fuse ] && [ "$(id -u)" = 0 ] && mount_option=(--mount "$T/mnt")
serve --nbd "unix:$S" "${mount_option[@]}" || { not_ok "the server starts"; finish; exit 1; }

# ---- devices ----
check "a device is made" device create disk 64M
is "once" "$(device create disk 64M 2>&1)" "varve: device create disk: File exists"
check "one of 2 TiB" device create large 2T
check "and of 2 EiB" device create huge 2E
is "not larger" "$(device create larger 4E 2>&1 | grep -c 'too large')" 1
is "not with a slash" "$(device create a/b 1M 2>&1 | grep -c 'no slash')" 1
is "LIST has them" "$(info --list --json "nbd+unix:///?socket=$S" | grep -o '"export-name": "[a-z]*"' | tr -d '\n')" \
    '"export-name": "disk""export-name": "large""export-name": "huge"'
is "INFO has the size" "$(info --size "$(uri huge)")" $((1 << 61))
info "$(uri disk)" >"$T/info"
for flag in can_cache can_df can_fast_zero can_flush can_fua can_multi_conn can_trim can_zero; do
    is "$flag" "$(grep -c "$flag: true" "$T/info")" 1
done
is "block sizes" "$(grep -o 'block_size_[a-z]*: [0-9]*' "$T/info" | tr '\n' ' ')" \
    "block_size_minimum: 1 block_size_preferred: 4096 block_size_maximum: 33554432 "

# ---- data ----
head -c 40000000 /dev/urandom >"$T/image"
truncate -s 64M "$T/image"
head -c 5000000 /dev/urandom | dd of="$T/image" bs=1M seek=50 conv=notrunc status=none
check "nbdcopy to the device" timeout 60 nbdcopy --flush "$T/image" "$(uri disk)"
check "nbdcopy from the device" timeout 60 nbdcopy "$(uri disk)" "$T/copy"
check "brings the same" cmp "$T/image" "$T/copy"
check "nbdcopy without structured replies" timeout 60 nbdcopy --synchronous "$(uri disk)" "$T/copy"
check "brings the same, too" cmp "$T/image" "$T/copy"
check "qemu-img convert to the device" timeout 60 qemu-img convert -n -f raw -O raw "$T/image" "nbd:unix:$S:exportname=disk"
check "qemu-img compare" timeout 60 qemu-img compare -f raw -F raw "$T/image" "nbd:unix:$S:exportname=disk"
check "qemu-img convert from the device" timeout 60 qemu-img convert -f raw -O qcow2 "nbd:unix:$S:exportname=disk" "$T/copy.qcow2"
check "brings the same as well" timeout 60 qemu-img compare -f raw -F qcow2 "$T/image" "$T/copy.qcow2"
qemu_io() { timeout 60 qemu-io -f raw "$@" "nbd:unix:$S:exportname=disk" >"$T/qemu-io" 2>&1 && ! grep -qi "fail\|error" "$T/qemu-io"; }
check "qemu-io patterns" qemu_io -c 'write -P 0xaa 1M 3M' -c 'write -P 0xbb -f 1536k 77k' \
    -c 'read -P 0xaa 1M 512k' -c 'read -P 0xbb 1536k 77k' -c 'read -P 0xaa 1613k 100k' \
    -c 'write -z 2M 64k' -c 'read -P 0 2M 64k' -c 'write -z -u 3M 512k' -c 'read -P 0 3M 512k' \
    -c 'discard 1M 256k' -c 'read -P 0 1M 256k' -c 'aio_write -P 0xcc 8M 1M' -c 'aio_flush' \
    -c 'flush' -c 'read -P 0xcc 8M 1M' -c 'write -P 1 0 1' -c 'read -P 1 0 1'
check "block status agrees with what was written" py status "$(uri disk)"
check "the edges of 2 EiB" py edges "$(uri huge)"
check "fio verifies 4 KiB random writes, 32 deep, on 4 connections" timeout 100 fio --name=verify \
    --ioengine=nbd --uri="$(uri disk)" --rw=randwrite --bs=4k --iodepth=32 --numjobs=4 --size=16M \
    --offset_increment=16M --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --output="$T/fio"

# ---- space ----
check "64 MiB are written" py write "$(uri large)" $((1 << 40)) $((64 << 20)) 1
check "flushed" "$V" flush "$T/vol"
before=$(field live_bytes)
seconds=$(py trim "$(uri large)" $((4095 << 20)))
check "and after the device is trimmed" "$V" flush "$T/vol"
is "their space is free" $((before - $(field live_bytes) >= 64 << 20)) 1
echo "# trimming 2 TiB that hold 64 MiB: $seconds s"
is "also of the segments" $(($(field held_bytes) < before)) 1
is "and it is a hole" "$(info --map --totals "$(uri large)" | tr -s ' ' | sed 's/^ //')" "2199023255552 100.0% 3 hole,zero"

# ---- other doors ----
if [ ${#mount_option[@]} -gt 0 ]; then
    check "a file of the mount" py write "$(uri disk)" 0 1000000 2
    head -c 4096 "$T/mnt/.nbd/disk" >"$T/cached" # the kernel keeps it
    check "a device has other bytes" py write "$(uri disk)" 0 1000000 3
    check "which the mount shows" /usr/bin/python3 -c 'import random, sys
sys.exit(open(sys.argv[1], "rb").read(1000000) != random.Random(3).randbytes(1000000))' "$T/mnt/.nbd/disk"
    head -c 1000000 "$T/image" | dd of="$T/mnt/.nbd/disk" conv=notrunc status=none
    check "and the other way round" timeout 60 qemu-io -f raw -c 'read 0 512' "nbd:unix:$S:exportname=disk"
    timeout 60 nbdcopy "$(uri disk)" "$T/copy"
    check "byte for byte" cmp -n 1000000 "$T/image" "$T/copy"
    truncate -s 12345678 "$T/mnt/.nbd/by-hand"
    is "a device made by truncate" "$(info --size "$(uri by-hand)")" 12345678
    check "is resized" device resize by-hand 20M
    is "which who connects sees" "$(info --size "$(uri by-hand)")" $((20 << 20))
    is "and the mount" "$(stat -c %s "$T/mnt/.nbd/by-hand")" $((20 << 20))
    chmod a-w "$T/mnt/.nbd/by-hand"
    is "chmod makes it read-only" "$(info "$(uri by-hand)" | grep -c 'is_read_only: true')" 1
    check "and it is removed" device remove by-hand
    is "for good" "$(ls "$T/mnt/.nbd" | grep -c by-hand)" 0
fi

# ---- crashes ----
check "device for the crashes" device create crash 1M
bad=0
for round in 0 1 2 3; do
    py multi "$(uri crash)" "$round" "$SERVER" >"$T/why" 2>&1 || { echo "# round $round: $(cat "$T/why")"; bad=$((bad + 1)); }
    crash
    durability=journal
    [ "$round" = 2 ] && durability=bucket
    serve --nbd "unix:$S" --durability $durability || bad=$((bad + 1))
    for earlier in $(seq 0 "$round"); do
        py after "$(uri crash)" "$earlier" >"$T/why" 2>&1 || { echo "# $(cat "$T/why")"; bad=$((bad + 1)); }
    done
done
is "a flush on one connection covers what three others wrote, after kill -9" $bad 0
crash
bad=0
lines=0
kills=${NBD_KILLS:-10}
: >"$T/history"
serve --nbd "unix:$S" || bad=1
check "zeros again" timeout 60 qemu-io -f raw -c 'write -z 0 1M' -c flush "nbd:unix:$S:exportname=crash"
for round in $(seq "$kills"); do
    py load "$(uri crash)" "$T/history" "$round" >"$T/load.log" 2>&1 &
    loader=$!
    for i in $(seq 200); do grep -q connected "$T/load.log" && break; sleep 0.05; done
    sleep "0.$((RANDOM % 60 + 20))"
    crash
    wait $loader || { echo "# round $round: $(cat "$T/load.log")"; bad=$((bad + 1)); break; }
    lines=$((lines + $(wc -l <"$T/history")))
    durability=journal
    [ $((round % 3)) = 0 ] && durability=bucket
    serve --nbd "unix:$S" --durability $durability || { bad=$((bad + 1)); break; }
    py check "$(uri crash)" "$T/history" >"$T/why" 2>&1 || { echo "# round $round: $(cat "$T/why")"; bad=$((bad + 1)); break; }
done
is "$kills kills, $lines steps: each time a prefix with all that was flushed" $bad 0

# ---- TLS ----
mkdir -p "$T/pki"
(
    cd "$T/pki" || exit 1
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=authority" \
        -keyout ca-key.pem -out ca-cert.pem
    for who in server client other; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$who" -keyout $who-key.pem -out $who.csr
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >$who.ext
        if [ $who = other ]; then # signs itself
            openssl x509 -req -in $who.csr -signkey $who-key.pem -days 2 -out $who-cert.pem
        else
            openssl x509 -req -in $who.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile $who.ext -out $who-cert.pem
        fi
    done
) >"$T/openssl.log" 2>&1
mkdir "$T/pki-other"
cp "$T/pki/ca-cert.pem" "$T/pki-other"
cp "$T/pki/other-cert.pem" "$T/pki-other/client-cert.pem"
cp "$T/pki/other-key.pem" "$T/pki-other/client-key.pem"
printf 'alice:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n' >"$T/keys.psk"
printf 'alice:ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n' >"$T/wrong.psk"
chmod 600 "$T"/*.psk
stop
serve --nbd 127.0.0.1:0 --nbd-tls-cert "$T/pki/server-cert.pem" --nbd-tls-key "$T/pki/server-key.pem" \
    --nbd-tls-ca "$T/pki/ca-cert.pem" --nbd-psk-file "$T/keys.psk" || { not_ok "a server with TLS"; finish; exit 1; }
port=$(sed -n 's/.*NBD on port \([0-9]*\).*/\1/p' "$T/server.log")
certificate() { echo "nbds://localhost:$port/disk?tls-certificates=$1"; }
key() { echo "nbds://$1@localhost:$port/disk?tls-psk-file=$2"; }
is "nothing without TLS" "$(info "nbd://localhost:$port/disk" >"$T/out" 2>&1; echo $?)" 1
check "and it says so" grep -q TLS "$T/out"
check "with a certificate" info "$(certificate "$T/pki")"
is "it says so" "$(info "$(certificate "$T/pki")" | head -n 1)" "protocol: newstyle-fixed with TLS, using structured packets"
is "not with another's" "$(info "$(certificate "$T/pki-other")" >"$T/out" 2>&1; echo $?)" 1
is "not with the wrong key" "$(info "$(key alice "$T/wrong.psk")" >"$T/out" 2>&1; echo $?)" 1
check "data through TLS" py write "$(certificate "$T/pki")" 1000 3000000 4
check "comes back" py same "$(certificate "$T/pki")" 1000 3000000 4
check "nbdcopy through TLS, on several connections" timeout 60 nbdcopy --flush "$T/image" "$(certificate "$T/pki")"
check "qemu-img compare through TLS" timeout 60 qemu-img compare --object tls-creds-x509,id=tls0,dir="$T/pki",endpoint=client \
    --image-opts driver=nbd,host=localhost,port="$port",export=disk,tls-creds=tls0 driver=raw,file.driver=file,file.filename="$T/image"
stop
serve --nbd 127.0.0.1:0 --nbd-psk-file "$T/keys.psk" --nbd-tls allow || { not_ok "a server with keys"; finish; exit 1; }
port=$(sed -n 's/.*NBD on port \([0-9]*\).*/\1/p' "$T/server.log")
check "with a pre-shared key" info "$(key alice "$T/keys.psk")"
check "data with it" py write "$(key alice "$T/keys.psk")" 1000 3000000 5
check "comes back" py same "$(key alice "$T/keys.psk")" 1000 3000000 5
is "not with a wrong one" "$(info "$(key alice "$T/wrong.psk")" >"$T/out" 2>&1; echo $?)" 1
check "QEMU, too" timeout 60 qemu-img convert --object tls-creds-psk,id=tls0,dir="$T",endpoint=client,username=alice \
    --image-opts -O raw driver=nbd,host=localhost,port="$port",export=disk,tls-creds=tls0 "$T/copy"
check "and without TLS, which is allowed here" info "nbd://localhost:$port/disk"
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
