#!/bin/bash
# Space set aside by fallocate counts in st_blocks, through FUSE: the steps of xfstests generic/568, 701 and 438, du, and what gives
# it back; then after a kill, and as the reader of docs/format.md counts it.
. "$(dirname "$0")/lib.sh"
need_fuse
command -v python3 >/dev/null || skip_all "no python3"
make_volume
serve --mount "$T/mnt" || { not_ok "serve"; finish; }
tap "sizes, writes, holes and ends" python3 tests/it/fallocate.py "$T/mnt"
is "du" "$(fallocate -l 10M "$T/mnt/du" && du -k "$T/mnt/du" | cut -f 1)" 10240
stat -c '%n %s %b' "$T"/mnt/* >"$T/before"
crash
serve --mount "$T/mnt" || { not_ok "serve after a kill"; finish; }
is "the same after a kill" "$(stat -c '%n %s %b' "$T"/mnt/*)" "$(cat "$T/before")"
check "writing it full adds nothing" python3 - "$T/mnt/du" <<'PY'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
before = os.fstat(fd).st_blocks
for at in range(0, 10 << 20, 1 << 20):
    os.pwrite(fd, b"x" * (1 << 20), at)
os.fsync(fd)
assert os.fstat(fd).st_blocks == before == 20480, (os.fstat(fd).st_blocks, before)
PY
check "flush" "$V" flush "$VOL" --key-file "$T/key"
is "the same after a flush" "$(stat -c '%n %s %b' "$T"/mnt/*)" "$(cat "$T/before")"
check "stop" stop
check "fsck" "$V" fsck "$VOL" --key-file "$T/key" --data
finish
