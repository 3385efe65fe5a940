#!/bin/bash
# run-tests: 4 s
# overlayfs with its layers on a FUSE mount, as containers have it: a file that was copied up remembers where it came from by a
# handle of the lower file. When the kernel has forgotten that file, it makes an entry for it that hangs nowhere, and asks
# this server whether the entry is still right, by a name that no file can have ("/").
# In a mount namespace of its own: who makes one meanwhile would hold a copy of the mounts.
if [ -z "${OVERLAY_INSIDE:-}" ] && unshare -m true 2>/dev/null; then OVERLAY_INSIDE=1 exec unshare -m "$0" "$@"; fi
. tests/it/lib.sh
need_fuse
[ "$(id -u)" = 0 ] || skip_all "needs root: it mounts"
grep -q '[[:space:]]overlay$' /proc/filesystems || modprobe overlay 2>/dev/null || skip_all "no overlayfs here"
merge() { mount -t overlay -o "lowerdir=$T/mnt/lower,upperdir=$T/mnt/upper,workdir=$T/mnt/work" overlay "$T/merged"; }

make_volume
mkdir "$T/merged"
serve --mount "$T/mnt" || { not_ok "serve"; finish; exit 1; }
mkdir "$T/mnt/lower" "$T/mnt/upper" "$T/mnt/work"
for name in copied written link; do echo lower >"$T/mnt/lower/$name"; done
ln -sf lower "$T/mnt/lower/link"
check "mount an overlay" merge
check "a file is copied up for its mode" chmod 600 "$T/merged/copied"
echo upper >>"$T/merged/written"
check "a link is copied up for its owner" chown -h 1:1 "$T/merged/link"
umount "$T/merged"
check "stop" stop
# Another mount: the kernel knows none of these files.
serve --mount "$T/mnt" || not_ok "serve again"
check "mount the overlay again" merge
for round in 1 2 3; do # the first looks the names up, the others ask whether they are still right
    is "look $round" "$(stat -c %a "$T/merged/copied" 2>&1; stat -c %u "$T/merged/link" 2>&1; tail -n 1 "$T/merged/written" 2>&1)" $'600\n1\nupper'
done
is "ls shows all" "$(ls -l "$T/merged" 2>&1 | grep -c '^[-l]')" 3
check "one more change" chmod 640 "$T/merged/copied"
check "and a new name" mv "$T/merged/copied" "$T/merged/moved"
is "the lower layer is as it was" "$(cat "$T"/mnt/lower/{copied,written}; readlink "$T/mnt/lower/link")" $'lower\nlower\nlower'
rm "$T/merged/moved" "$T/merged/written" "$T/merged/link"
is "all is gone from the merged tree" "$(ls "$T/merged")" ""
umount "$T/merged"
check "stop" stop
check "fsck with --data finds nothing" "$V" fsck "$VOL" --key-file "$T/key" --data --quiet
finish
