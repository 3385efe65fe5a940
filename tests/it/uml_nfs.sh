#!/bin/bash
# run-tests: 25 s
# The kernel's NFS client: what programs expect; a source tree unpacked, compared and built (a small one: system calls and
# program starts are slow in the guest; UML_FULL=1 takes git's); and kill -9 of the server under an application that
# writes and fsyncs: on a hard mount it goes on without an error, and all that it has fsynced is there. NFS_KILLS: how often (3).
. tests/it/uml_lib.sh
. tests/it/source_tree.sh
KILLS=${NFS_KILLS:-3}
PORT=2049
export="/:no_root_squash@$UML_HOST/24"
make_volume
serve --nfs "$UML_HOST:$PORT" --export "$export" || { not_ok "the server starts"; finish; exit 1; }
uml_start || { not_ok "the guest boots"; finish; exit 1; }
# nfs DIRECTORY [OPTIONS]
nfs() {
    guest "mkdir -p $1 && mount -t nfs -o vers=3,nolock,tcp,mountproto=tcp,hard,port=$PORT,mountport=$PORT${2:+,$2} $UML_HOST:/ $1"
}
check "mount" nfs /mnt/n
is "with large requests" "$(guest "grep -o '[rw]size=[0-9]*' /proc/mounts | xargs")" "rsize=1048576 wsize=1048576"
# What NFSv3 has no words for (rename2, tmpfile, attributes, ACLs, times before 1970 and after 2106), and what its client
# does by itself: it places appends, and what is removed while it is open keeps a name (.nfsXXXX).
guest_tap "PROGRAMS_ENTRIES=1000 PROGRAMS_TIMES=${PROGRAMS_TIMES:-} timeout 110 python3 tests/it/programs.py /mnt/n --without ${WITHOUT:-rename2 tmpfile xattr trusted acl append range unlinked-attr}"

# ---- a source tree ----
if [ -n "${UML_FULL:-}" ]; then
    get_tree outside
else
    tree=$(generate_tree "$T/src" 4)
    name="a small generated tree"
fi
echo "# $name, $(find "$tree" -type f | wc -l) files"
tar -C "$tree" -cf "$T/tree.tar" .
GUEST_TIMEOUT=600 check "unpack a tree" guest "mkdir /mnt/n/tree && tar -C /mnt/n/tree -xf $T/tree.tar"
GUEST_TIMEOUT=600 check "every byte is the same" guest "diff -r --no-dereference $tree /mnt/n/tree"
options="NO_CURL=1 NO_OPENSSL=1 NO_EXPAT=1 NO_GETTEXT=1 NO_TCLTK=1 NO_PERL=1 NO_PYTHON=1 CFLAGS=-O0"
GUEST_TIMEOUT=1500 check "make -j2" guest "make -C /mnt/n/tree -j2 $options git"
sum=$(guest "sha256sum /mnt/n/tree/git")
check "unmount it" guest "umount /mnt/n"
nfs /mnt/n
is "what was built is the same after a new mount" "$(guest "sha256sum /mnt/n/tree/git")" "$sum"

# ---- kill -9 under a hard mount ----
guest_start load "python3 tests/it/nfs_syncer.py work /mnt/n/synced $T/synced $((KILLS * 4 + 2))"
killed=0
again=0
# again: how many requests this server has answered for the one before it.
recovered() { "$V" status "$T/vol" --key-file "$T/key" --json | grep -o '"nfs_recovered": [0-9]*' | grep -o '[0-9]*$'; }
for _ in $(seq "$KILLS"); do
    sleep "1.$((RANDOM % 90 + 10))"
    again=$((again + $(recovered)))
    crash
    sleep 0.5
    serve --nfs "$UML_HOST:$PORT" --export "$export" && killed=$((killed + 1))
done
is "the server is killed and comes back" $killed "$KILLS"
GUEST_TIMEOUT=300 check "the application goes on without an error" guest_wait load
again=$((again + $(recovered)))
echo "# $again requests had been done by a server that was killed, and were answered by the next"
guest "umount /mnt/n"
nfs /mnt/check
found=$(guest "python3 tests/it/nfs_syncer.py check /mnt/check/synced $T/synced")
check "all that it has fsynced is there ($found)" guest "python3 tests/it/nfs_syncer.py check /mnt/check/synced $T/synced"
guest "umount /mnt/check"
check "the guest's kernel has nothing to complain about" guest '! dmesg | grep -iE "nfs.*(bug|warn|error)|WARNING|BUG:"'
check "the guest shuts down" uml_stop
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
