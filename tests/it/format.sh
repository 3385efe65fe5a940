#!/bin/bash
# docs/format.md is enough to read a volume: a reader in Python that was written from it alone lists what was
# written through the mount, after an orderly end and after a kill, for each cipher and compression.
. tests/it/lib.sh
need_fuse
PYTHON=
for python in python3 /usr/bin/python3; do
    "$python" -c 'import cryptography, lz4.block, zstandard' 2>/dev/null && PYTHON=$python && break
done
[ -n "$PYTHON" ] || skip_all "python3-cryptography, python3-lz4 and python3-zstandard are not all there"
READER="$PYTHON tests/it/reader.py"

# Fills $1: all types, small and large files, holes, patches, links, odd names, many entries.
fill() {
    python3 - "$1" <<'PY'
import os, random, sys
os.chdir(sys.argv[1])
rng = random.Random(5)
os.makedirs("a/b/c/d/e")
for i in range(300):
    with open("a/b/n%d" % i, "wb") as file:
        file.write(rng.randbytes(i * 7))
for name, size in (("empty", 0), ("inline", 512), ("page", 4096), ("extent", 32768), ("odd", 100001),
                   ("large", 5 << 20)):
    with open("a/" + name, "wb") as file:
        file.write(rng.randbytes(size))
with open("text", "w") as file:
    file.write("the same line again and again\n" * 40000)
with open("sparse", "wb") as file:
    file.truncate(50 << 20)
    for at in (0, 70000, 1 << 20, (40 << 20) + 12345):
        file.seek(at)
        file.write(b"island %d" % at)
with open("short", "wb") as file:
    file.write(rng.randbytes(1 << 20))
    file.truncate(345678)
with open("aside", "w+b") as file:
    os.posix_fallocate(file.fileno(), 0, 3 << 20)
    for at in (0, 5000, 70000, 1 << 20, (2 << 20) + 123):
        os.pwrite(file.fileno(), rng.randbytes(9000), at)
    os.posix_fallocate(file.fileno(), 60000, 100000)
with open("aside-behind", "wb") as file:
    file.write(b"a few bytes")
    file.flush()
    os.posix_fallocate(file.fileno(), 100000, 1000)
    file.truncate(50000)
os.symlink("a/b/n5", "link")
os.symlink("x" * 4000, "long-link")
os.link("a/odd", "a/b/second")
os.link("a/odd", "third")
os.mkfifo("fifo", 0o640)
with open("a/name with \u00e4 and 'quotes'", "w") as file:
    file.write("x")
os.chmod("a/page", 0o4711)
os.mkdir("gone")
with open("gone/file", "wb") as file:
    file.write(rng.randbytes(200000))
os.unlink("gone/file")
os.rmdir("gone")
os.rename("a/b/c/d", "moved")
os.rename("a/b/n7", "a/b/n8")
os.setxattr("a/page", "user.some", b"value")
PY
}

# Changes what is there, so that extents have pieces, and leaves the last of it to the journal.
patch() {
    python3 - "$1" <<'PY'
import os, random, sys
os.chdir(sys.argv[1])
rng = random.Random(6)
for round in range(3):
    with open("a/large", "r+b") as file:
        for _ in range(40):
            file.seek(rng.randrange(5 << 20))
            file.write(rng.randbytes(rng.randrange(1, 9000)))
        os.fsync(file.fileno())
with open("text", "r+") as file:
    file.truncate(50000)
with open("aside", "r+b") as file:
    os.pwrite(file.fileno(), rng.randbytes(200000), 1 << 19)
    file.truncate((1 << 20) + 5000)
with open("a/odd", "ab") as file:
    file.write(b"more")
os.unlink("third")
os.rename("short", "a/empty")
with open("last", "wb") as file:
    file.write(rng.randbytes(30000))
    os.fsync(file.fileno())
PY
}

same() {
    if [ -s "$T/wanted" ] && diff "$T/wanted" "$T/got" >"$T/diff"; then
        ok "$1: $(wc -l <"$T/wanted") files"
    else
        not_ok "$1"
        head -n 20 "$T/diff" | cut -c 1-200 | sed 's/^/#   /'
        tail -n 5 "$T/reader.log" | sed 's/^/#   /'
    fi
}

one() {
    local what="$1 and $2"
    rm -rf "$T/vol" "$T/key"
    make_volume --cipher "$1" --compression "$2"
    serve --mount "$T/mnt" || { not_ok "$what: serve"; return; }
    fill "$T/mnt"
    $READER --directory "$T/mnt" >"$T/wanted"
    check "$what: stop" stop
    $READER "$T/vol" "$T/key" >"$T/got" 2>"$T/reader.log"
    same "$what: read after an orderly end"
    serve --mount "$T/mnt" || { not_ok "$what: serve again"; return; }
    patch "$T/mnt"
    $READER --directory "$T/mnt" >"$T/wanted"
    crash
    $READER "$T/vol" "$T/key" >"$T/got" 2>"$T/reader.log"
    same "$what: read after a kill"
    check "$what: fsck after a kill" "$V" fsck "$T/vol" --key-file "$T/key" --data
    serve --mount "$T/mnt" || { not_ok "$what: serve after the kill"; return; }
    check "$what: stop again" stop
    $READER "$T/vol" "$T/key" >"$T/got" 2>"$T/reader.log"
    same "$what: read when the journal was put into the store"
    check "$what: fsck" "$V" fsck "$T/vol" --key-file "$T/key" --data
}

one aes-256-gcm lz4
one xchacha20-poly1305 zstd:3
one none none
finish
