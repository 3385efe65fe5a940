#!/bin/bash
# run-tests: 80 s, busy
# A real source tree (git's; a generated one of the same shape when it cannot be had) unpacked in the mount, compared byte
# by byte with a copy on the local disk, built there, and built again after a remount.
. tests/it/lib.sh
. tests/it/source_tree.sh
need_fuse
make_volume
serve --mount "$T/mnt" || { not_ok "the server starts"; finish; exit 1; }

get_tree
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
