#!/bin/bash
# run-tests: 15 s
# Space comes back from segments that are only partly dead: every second file of many is deleted, and a file is overwritten
# at random; the store then shrinks to little more than what is in use, also when the server is killed while it repacks. SPACE_MIB is written first (200).
. "$(dirname "$0")/lib.sh"
need_fuse
command -v python3 >/dev/null || skip_all "no python3"
mib=${SPACE_MIB:-200}

# files write|delete|check: files of 64 KiB, whose bytes follow from their numbers; every second one is deleted.
files() {
    python3 - "$T/mnt/files" "$mib" "$1" <<'PY'
import os, random, sys
directory, count, what = sys.argv[1], int(sys.argv[2]) * 16, sys.argv[3]
pool = random.Random(1).randbytes(1 << 22)
os.makedirs(directory, exist_ok=True)
for i in range(count):
    name = f"{directory}/{i}"
    at = i * 4099 % (len(pool) - 65536)
    if what == "write":
        with open(name, "wb") as file:
            file.write(pool[at:at + 65536])
    elif what == "delete" and i % 2:
        os.unlink(name)
    elif what == "check" and i % 2 == 0:
        if open(name, "rb").read() != pool[at:at + 65536]:
            sys.exit(f"{name} has other bytes")
if what == "check" and len(os.listdir(directory)) != (count + 1) // 2:
    sys.exit("there are other files")
os.sync()
PY
}
# one write|check: a file, and each of its blocks overwritten three times in random order.
one() {
    python3 - "$T/mnt/one" "$mib" "$1" <<'PY'
import os, random, sys
path, blocks, what = sys.argv[1], int(sys.argv[2]) * 256 // 10, sys.argv[3]
pool = random.Random(2).randbytes(1 << 20)
order = random.Random(3)
is_write = what == "write"
def block(i, turn):
    at = (i * 977 + turn * 31) % (len(pool) - 4096)
    return pool[at:at + 4096]
if what == "write":
    with open(path, "wb") as file:
        for i in range(blocks):
            file.write(block(i, 0))
        os.fsync(file.fileno())
    fd = os.open(path, os.O_WRONLY)
    for turn in (1, 2, 3):
        each = list(range(blocks))
        order.shuffle(each)
        for n, i in enumerate(each):
            os.pwrite(fd, block(i, turn), i * 4096)
            if n % 2000 == 0:
                os.fsync(fd)
    os.fsync(fd)
else:
    with open(path, "rb") as file:
        for i in range(blocks):
            if file.read(4096) != block(i, 3):
                sys.exit(f"block {i} has other bytes")
PY
}
field() {
    "$V" status --json "$VOL" | sed -n "s/^ *\"$1\": \([0-9a-z]*\).*/\1/p"
}
# MiB of everything but the journal.
held() {
    echo $(($(du -cs --apparent-size -B1 "$VOL"/data "$VOL"/log "$VOL"/sst 2>/dev/null | tail -n 1 | cut -f 1) >> 20))
}
live() {
    echo $(($(field live_bytes) >> 20))
}
flush() {
    timeout 60 "$V" flush "$VOL"
}

make_volume
check "serves" serve --mount "$T/mnt" --memory 128M
check "$mib MiB of small files are written" files write
check "and flushed" flush
full=$(held)
check "every second one is deleted" files delete
flush & flusher=$!
for i in $(seq 200); do
    [ "$(field is_repacking)" = true ] && break
    sleep 0.02
done
is "repacking begins" "$(field is_repacking)" true
sleep 0.1
crash
wait $flusher
check "killed while it repacks, it serves again" serve --mount "$T/mnt" --memory 16M
check "the files are there" files check
check "a change" touch "$T/mnt/changed"
check "is flushed" flush
now=$(held)
used=$(live)
echo "# $full MiB were held, then $now MiB for $used MiB in use; $(field segments_repacked) segments were repacked"
check "$now MiB are held for $used MiB in use: less than 1.5 times as much" test $((2 * now)) -lt $((3 * used))
check "the files are there" files check
check "a file is overwritten three times over, at random" one write
check "and flushed" flush
now=$(held)
used=$(live)
echo "# $now MiB are held for $used MiB in use; $(field segments_repacked) segments were repacked"
check "$now MiB are held for $used MiB in use: less than 1.5 times as much and 64 MiB" test $((2 * (now - 64))) -lt $((3 * used))
check "the file is as it was written last" one check
crash
check "killed again, it serves again" serve --mount "$T/mnt" --memory 16M
check "the files are there" files check
check "and the one that was overwritten" one check
check "it stops" stop
check "fsck --data finds nothing" "$V" fsck "$VOL" --key-file "$T/key" --data --quiet
finish
