#!/bin/bash
# A real source tree (git's; a generated one of the same shape when it cannot be had) unpacked in the mount, compared byte
# by byte with a copy on the local disk, built there, and built again after a remount.
. tests/it/lib.sh
need_fuse
make_volume
serve --mount "$T/mnt" || { not_ok "the server starts"; finish; exit 1; }

generate() {
    mkdir -p "$T/src/tree"
    python3 - "$T/src/tree" <<'P'
import os, random, sys
rng = random.Random(1)
root = sys.argv[1]
units = []
for d in range(60):
    folder = f"{root}/part{d}"
    os.makedirs(folder)
    for f in range(75):
        body = "".join(f"int f{d}_{f}_{k}(int x) {{ return x * {rng.randrange(99)} + {k}; }}\n"
                       for k in range(rng.randrange(1, 40)))
        name = f"{folder}/unit{f}.c" if f < 4 else f"{folder}/file{f}.txt"
        units += [name] if f < 4 else []
        with open(name, "w") as file:
            file.write(body)
objects = " ".join(os.path.relpath(u, root)[:-2] + ".o" for u in units)
with open(f"{root}/Makefile", "w") as file:
    file.write(f"git: {objects}\n\tld -r -o git $^\n%.o: %.c\n\t$(CC) $(CFLAGS) -c -o $@ $<\n"
               f"clean:\n\trm -f git {objects}\n")
P
    echo "$T/src/tree"
}

if tree=$(tools/fetch-source git "$T/src" 2>"$T/fetch.log"); then
    name="git's source"
else
    tree=$(generate)
    name="a generated tree"
fi
files=$(find "$tree" -type f | wc -l)
check "$name has at least 4000 files ($files)" [ "$files" -ge 4000 ]
tar -C "$tree" -cf "$T/tree.tar" .
mkdir "$T/mnt/tree"
check "unpack it in the mount" tar -C "$T/mnt/tree" -xf "$T/tree.tar"
check "every byte is the same" diff -r --no-dereference "$tree" "$T/mnt/tree"
options="NO_CURL=1 NO_OPENSSL=1 NO_EXPAT=1 NO_GETTEXT=1 NO_TCLTK=1 NO_PERL=1 NO_PYTHON=1 CFLAGS=-O0"
# shellcheck disable=SC2086
check "make -j2 in the mount" make -C "$T/mnt/tree" -j2 $options git
sum=$(sha256sum <"$T/mnt/tree/git")
check "stop" stop
serve --mount "$T/mnt" || { not_ok "the server starts again"; finish; exit 1; }
is "the program built is still the same" "$(sha256sum <"$T/mnt/tree/git")" "$sum"
check "make clean after the remount" make -C "$T/mnt/tree" clean
# shellcheck disable=SC2086
check "make -j2 after the remount" make -C "$T/mnt/tree" -j2 $options git
# What the build made is only in the mount; everything else is as it was.
is "the sources are still the same" \
    "$(diff -r --no-dereference "$tree" "$T/mnt/tree" | grep -v "^Only in $T/mnt/tree" | head -n 5)" ""
check "stop again" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
