#!/bin/bash
# run-tests: 30 s
# The kernel's 9P client, in each of its cache and access modes; two of them at once; message sizes; interruptions.
. tests/it/uml_lib.sh
# 9P tells the server who asks but not his groups, so the users of the test must be known here: to this script only.
for file in passwd group; do
    cp /etc/$file "$T/$file"
done
printf 'it%d:x:%d:%d::/:/bin/sh\n' 1 12001 12002 3 12003 12003 9 12009 12003 >>"$T/passwd"
printf 'it%d:x:%d:\n' 2 12002 3 12003 >>"$T/group"
for file in passwd group; do
    mount --bind "$T/$file" /etc/$file
done

make_volume
serve --9p "$UML_HOST:5640" || { not_ok "the server starts"; finish; exit 1; }
uml_start || { not_ok "the guest boots"; finish; exit 1; }
# v9fs DIRECTORY OPTIONS
# The old system call: with the new one mount asks for the root's attributes before it is there, as root, and with access=UID that is refused.
v9fs() {
    guest "mkdir -p $1 && LIBMOUNT_FORCE_MOUNT2=always mount -t 9p -o trans=tcp,port=5640,version=9p2000.L,$2 $UML_HOST $1"
}

# What 9P2000.L has no words for (rename2, tmpfile), and what v9fs does by itself: it places appends, cuts times to
# seconds from 1970 on, and knows ACLs only with access=client,posixacl. Without a cache there are no shared mappings; with a
# loose one it makes up the blocks of holes and, until it asks again, the times of changes.
always="rename2 tmpfile append times"
for mode in ${MODES:-none loose fscache mmap client}; do
    missing=$always
    options=access=user,cache=$mode
    [ $mode = client ] && options=access=client,posixacl,cache=none || missing="$missing acl"
    case $mode in
    none | client) missing="$missing mmap" ;;
    loose | fscache) missing="$missing blocks cached-times" ;;
    esac
    check "mount with $options" v9fs /mnt/$mode "msize=1048576,$options"
    guest_tap "PROGRAMS_ENTRIES=1000 PROGRAMS_TIMES=${PROGRAMS_TIMES:-} timeout 110 python3 tests/it/programs.py /mnt/$mode --without $missing"
    check "unmount it" guest "umount /mnt/$mode"
done

# Two clients of one kernel: what one does, the other sees.
v9fs /mnt/a msize=65536,access=user,cache=none
v9fs /mnt/b msize=1048576,access=user,cache=none
is "what one client writes, the other reads" "$(guest 'echo one >/mnt/a/f; cat /mnt/b/f; echo two >>/mnt/b/f; cat /mnt/a/f')" \
    $'one\none\ntwo'
check "what one removes, the other misses" guest 'rm /mnt/a/f; ! test -e /mnt/b/f'
is "what one renames, the other finds" "$(guest 'mkdir -p /mnt/a/d/e; : >/mnt/a/d/e/f; mv /mnt/b/d /mnt/b/c; ls /mnt/a/c/e')" f
# By a process itself: when flock(1) ends, v9fs unlocks for it, as the process that locked, what its parent goes on holding.
for kind in flock lockf; do
    rm -f "$T/held"
    guest_start holder "python3 -c 'import fcntl, time
file = open(\"/mnt/a/lock\", \"w\")
fcntl.$kind(file, fcntl.LOCK_EX)
open(\"$T/held\", \"w\").close()
time.sleep(1.5)'"
    is "what one client has by $kind, the other waits for" "$(guest "until [ -e $T/held ]; do sleep 0.05; done; python3 -c 'import fcntl
file = open(\"/mnt/b/lock\", \"w\")
try:
    fcntl.$kind(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print(\"busy\")
fcntl.$kind(file, fcntl.LOCK_EX)
print(\"mine\")'")" $'busy\nmine'
    guest_wait holder
done
is "no more room for one than for the other" "$(guest 'stat -f -c "%T %s %l" /mnt/a; stat -f -c "%T %s %l" /mnt/b')" \
    $'v9fs 4096 255\nv9fs 4096 255'
guest 'umount /mnt/a /mnt/b'

# Message sizes: what is agreed on works; more than the server takes is cut by it.
head -c 3000001 /dev/urandom >"$T/bytes"
for msize in 4096 8192 65536 1048576 16777216; do
    v9fs /mnt/m "msize=$msize,access=user,cache=none" >"$T/mount.out" 2>&1
    check "3 MB there and back in messages of $msize" \
        guest "cp $T/bytes /mnt/m/bytes && cmp $T/bytes /mnt/m/bytes && ls /mnt/m >/run/ls && umount /mnt/m"
done

# Interrupted requests: the client gives up and flushes them; the server answers both, and all goes on. (Without what the shell
# says of those that were killed: it may come last.)
v9fs /mnt/i msize=65536,access=user,cache=none
guest_start slow 'exec 2>/dev/null; for i in {1..20}; do dd if=/dev/zero of=/mnt/i/f$i bs=1M count=2 conv=fsync & done; sleep 0.3
    kill -KILL $(jobs -p); wait; echo interrupted >/mnt/i/after; cat /mnt/i/after'
sleep 0.2
kill -STOP "$SERVER"
sleep 1
kill -CONT "$SERVER"
is "requests that are given up" "$(guest_wait slow 2>&1 | tail -n 1)" interrupted
check "the connection goes on" guest 'cp -r tests/it /mnt/i/copy && diff -r tests/it /mnt/i/copy && rm -r /mnt/i/copy'
guest 'umount /mnt/i'

# access=UID: one user is let in, and the rest is not.
v9fs /mnt/u msize=65536,access=user,cache=none
guest 'mkdir /mnt/u/his; chown 12001:12002 /mnt/u/his; umount /mnt/u'
v9fs /mnt/u msize=65536,access=12001,uname=it1,cache=none
check "access=12001 lets that user in" \
    guest 'setpriv --reuid 12001 --regid 12002 --clear-groups sh -c "echo his >/mnt/u/his/f; cat /mnt/u/his/f"'
check "and no other" guest '! setpriv --reuid 12003 --regid 12003 --clear-groups ls /mnt/u'
guest 'umount /mnt/u'

# Sixteen mounts at once, each with its own connection.
check "16 clients at once" guest 'for i in {1..16}; do mkdir -p /mnt/n$i
    mount -t 9p -o trans=tcp,port=5640,version=9p2000.L,msize=65536,access=user,cache=none '"$UML_HOST"' /mnt/n$i || exit 1; done
    for i in {1..16}; do (echo $i >/mnt/n$i/many$i; dd if=/dev/zero of=/mnt/n$i/zero$i bs=64k count=4) & done; wait
    for i in {1..16}; do [ "$(cat /mnt/n$i/many$((17 - i)))" = $((17 - i)) ] || exit 1; done
    for i in {1..16}; do umount /mnt/n$i || exit 1; done'
check "the guest's kernel has nothing to complain about" guest '! dmesg | grep -iE "9p.*(err|bug|warn|unknown)|WARNING|BUG:"'
check "the guest shuts down" uml_stop
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
