#!/bin/bash
# Errors that users can act on: exit codes and texts, and that nothing durable is lost in any of them.
. tests/it/lib.sh
need_fuse

# fails NAME STATUS TEXT COMMAND...
fails() {
    local name=$1 status=$2 text=$3 got=0
    shift 3
    timeout 60 "$@" >"$T/out" 2>&1 </dev/null || got=$?
    is "$name: exit status" $got "$status"
    check "$name: says \"$text\"" grep -q -- "$text" "$T/out"
}

fails "no command" 2 "usage" "$V"
fails "unknown command" 2 "no command" "$V" frobnicate
fails "unknown option" 2 "unknown option" "$V" serve "$T/vol" --frobnicate
fails "no door" 2 "needs a door" "$V" serve "$T/vol"
fails "not a volume" 3 "no volume" "$V" serve "$T/nowhere" --key-file "$T/key" --9p 127.0.0.1:0
mkdir "$T/empty"
fails "an empty folder" 3 "no volume" "$V" serve "$T/empty" --key-file "$T/key" --9p 127.0.0.1:0
fails "another scheme" 2 "only file://" "$V" init gopher://x --key-file "$T/key"
make_volume
fails "a volume is there already" 3 "already is a volume" "$V" init "$T/vol" --key-file "$T/key"
is "the key file is private" "$(stat -c %a "$T/key")" 600
head -c 32 /dev/zero | od -An -v -tx1 | tr -d ' \n' >"$T/wrong"
fails "the wrong key" 4 "opens no key slot" "$V" serve "$T/vol" --key-file "$T/wrong" --9p 127.0.0.1:0
echo secret >"$T/passphrase"
echo other >"$T/passphrase2"
fails "a passphrase where there is none" 4 "opens no key slot" "$V" status "$T/vol" --passphrase-file "$T/passphrase"
check "passwd: key file to passphrase" "$V" passwd "$T/vol" --key-file "$T/key" --new-passphrase-file "$T/passphrase"
fails "the old key" 4 "opens no key slot" "$V" status "$T/vol" --key-file "$T/key"
check "the passphrase opens it" "$V" status "$T/vol" --passphrase-file "$T/passphrase"
check "passwd back" "$V" passwd "$T/vol" --passphrase-file "$T/passphrase" --new-key-file "$T/key"

serve --mount "$T/mnt" || not_ok "serve"
echo precious >"$T/mnt/precious"
sync "$T/mnt/precious"
fails "a second server (journal)" 5 "another process" "$V" serve "$T/vol" --key-file "$T/key" --9p 127.0.0.1:0
is "status sees the server" "$("$V" status "$T/vol" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["is_served"])')" True
check "passwd while it is served" "$V" passwd "$T/vol" --key-file "$T/key" --new-passphrase-file "$T/passphrase"
check "passwd back while it is served" "$V" passwd "$T/vol" --passphrase-file "$T/passphrase" --new-key-file "$T/key"
check "flush" "$V" flush "$T/vol"
check "stop" stop

# Two servers without a journal: the older one is fenced, says so, and loses nothing durable.
serve --mount "$T/mnt" --durability bucket || not_ok "serve in bucket mode"
echo first >"$T/mnt/first"
sync "$T/mnt/first"
older=$SERVER
cp "$T/server.log" "$T/older.log"
"$V" serve "$T/vol" --key-file "$T/key" --durability bucket --9p 127.0.0.1:0 >"$T/newer.log" 2>&1 &
newer=$!
for i in $(seq 200); do grep -q ^serving "$T/newer.log" && break; sleep 0.05; done
echo second >"$T/mnt/second"
if sync "$T/mnt/second" 2>"$T/out"; then not_ok "the fenced server's fsync fails"; else ok "the fenced server's fsync fails"; fi
status=0
wait "$older" || status=$?
is "the fenced server ends with status 7" $status 7
check "and says so" grep -q "taken this volume over" "$T/server.log"
SERVER=
umount -l "$T/mnt" 2>/dev/null
kill -TERM "$newer"
wait "$newer"
is "the newer server ends well" $? 0
serve --mount "$T/mnt" || not_ok "serve after the take-over"
is "what was durable is there" "$(cat "$T/mnt/precious" "$T/mnt/first")" "precious
first"
stop

# A stale mount is replaced.
serve --mount "$T/mnt" || not_ok "serve before the crash"
kill -KILL "$SERVER"
wait "$SERVER" 2>/dev/null
SERVER=
serve --mount "$T/mnt" || not_ok "serve over a stale mount"
is "a stale mount is replaced" "$(cat "$T/mnt/precious")" precious
head -c 300000 /dev/urandom >"$T/random"
cp "$T/random" "$T/mnt/damaged"
stop

# A damaged object: that read fails and is named; everything else goes on.
object=$(find "$T/vol/data" "$T/vol/log" -type f -size +200k 2>/dev/null | head -n 1)
printf '\xff\xff\xff\xff' | dd of="$object" bs=1 seek=5000 conv=notrunc 2>/dev/null
serve --mount "$T/mnt" || not_ok "serve a damaged volume"
if cmp -s "$T/random" "$T/mnt/damaged" 2>/dev/null; then not_ok "reading damaged data fails"; else ok "reading damaged data fails"; fi
check "the log names the object" grep -q "$(basename "$object")" "$T/server.log"
is "other files are read" "$(cat "$T/mnt/precious")" precious
check "other files are written" sh -c "echo more >'$T/mnt/more' && sync '$T/mnt/more'"
stop
status=0
"$V" fsck "$T/vol" --key-file "$T/key" --data --quiet >"$T/out" 2>&1 || status=$?
is "fsck --data finds the damage" $status 6

# A newer format.
rm -rf "$T/vol" "$T/key"
make_volume
manifest=$(find "$T/vol/manifest" -type f | sort | tail -n 1)
python3 - "$manifest" <<'P'
import struct, sys
def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
with open(sys.argv[1], "r+b") as file:
    head = bytearray(file.read(96))
    head[8:10] = struct.pack("<H", 99)
    head[92:96] = struct.pack("<I", crc32c(head[:92]))
    file.seek(0)
    file.write(head)
P
fails "a newer format" 1 "newer version" "$V" serve "$T/vol" --key-file "$T/key" --9p 127.0.0.1:0

# From the journal to the bucket while the store does not take what the journal holds (a file has the name that the
# folder of the next log needs): refused, and nothing is lost.
rm -rf "$T/vol" "$T/key"
make_volume
serve --mount "$T/mnt" --durability journal && mkdir "$T/mnt/first" && stop
serve --mount "$T/mnt" --durability journal && echo kept >"$T/mnt/kept" && sync "$T/mnt/kept"
epoch=$(sed -n 's/.*opened: epoch \([0-9]*\),.*/\1/p' "$T/server.log")
crash
blocked=$T/vol/log/$(printf '%016x' $((epoch + 1)))
mkdir -p "$T/vol/log" && touch "$blocked"
fails "leaving the journal while the store takes nothing" 1 "Not a directory" "$V" serve "$T/vol" --key-file "$T/key" \
    --mount "$T/mnt" --durability bucket
rm "$blocked"
serve --mount "$T/mnt" --durability bucket && is "what the journal held is there" "$(cat "$T/mnt/kept")" kept
stop

# A store that is full: what does not fit fails, deleting works, space comes back, and nothing is lost.
if mkdir "$T/small" && mount -t tmpfs -o size=160m none "$T/small" 2>/dev/null; then
    VOL=$T/small/vol
    rm "$T/key"
    make_volume
    serve --mount "$T/mnt" --memory 32M
    echo kept >"$T/mnt/kept"
    sync "$T/mnt/kept"
    status=0
    timeout 120 dd if=/dev/urandom of="$T/mnt/big" bs=1M count=200 conv=fsync 2>"$T/out" || status=$?
    check "filling the store fails" [ $status != 0 ]
    check "with a text about space, not a hang" [ $status != 124 ]
    is "reading goes on" "$(cat "$T/mnt/kept")" kept
    check "deleting works" timeout 60 rm "$T/mnt/big"
    sleep 3
    timeout 60 "$V" flush "$VOL" >/dev/null 2>&1
    check "space comes back" sh -c "echo again >'$T/mnt/again' && timeout 60 sync '$T/mnt/again'"
    check "stop after being full" stop
    serve --mount "$T/mnt"
    is "everything is there" "$(cat "$T/mnt/kept" "$T/mnt/again" 2>&1)" "kept
again"
    stop
    check "fsck finds nothing" "$V" fsck "$VOL" --key-file "$T/key" --data --quiet
    umount "$T/small"
else
    echo "# not run: a full store (no tmpfs mounts here)"
fi
finish
