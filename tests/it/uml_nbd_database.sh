#!/bin/bash
# Databases on ext4 on a device of varve, in a real kernel: SQLite in WAL mode and a PostgreSQL cluster commit small transactions
# until the server is killed; a new kernel (the guest is killed, too) recovers ext4 and the database from the server started again,
# and every committed transaction is there and whole. DATABASE_KILLS: how often (1).
. tests/it/uml_lib.sh
POSTGRES=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$POSTGRES/postgres" ] || skip_all "no PostgreSQL here"
id postgres >/dev/null 2>&1 || skip_all "no user postgres here"
KILLS=${DATABASE_KILLS:-1}
start_server() { serve --nbd "$UML_HOST:10809" --memory 128M; }
# What the guest writes to the host's files stays in its page cache for a while and dies with it, so the loaders' notes come
# over the network, a stream each, to a listener here.
cat >"$T/listen.py" <<'P'
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen()
open(f"{sys.argv[3]}.listening", "w").close()
connection, _ = listener.accept()
with open(sys.argv[3], "ab", buffering=0) as log:
    while piece := connection.recv(65536):
        log.write(piece)
P
LISTENERS=
listen() {
    rm -f "$1.listening"
    python3 "$T/listen.py" "$UML_HOST" "$2" "$1" &
    LISTENERS="$LISTENERS $!"
    for i in $(seq 100); do [ -e "$1.listening" ] && break; sleep 0.05; done
}
lines() { wc -l <"$T/$1.log"; }
mount_device() {
    guest "modprobe nbd && nbd-client $UML_HOST 10809 /dev/nbd0 -N disk -t 5 && mkdir -p /mnt/d && mount /dev/nbd0 /mnt/d"
}
cat >"$T/postgres.sh" <<P
cd /
mkdir -p /run/postgres && chown postgres /run/postgres
setpriv --reuid postgres --regid postgres --init-groups $POSTGRES/postgres -D /mnt/d/cluster -k /run/postgres \
    -c listen_addresses= -c shared_buffers=16MB -c max_connections=10 -c max_wal_size=32MB >/run/postgres.out 2>&1 &
for i in \$(seq 300); do
    psql -h /run/postgres -U postgres -d postgres -qAtXc 'select 1' >/dev/null 2>&1 && exit 0
    sleep 0.1
done
cat /run/postgres.out
exit 1
P
mkdir "$T/cluster" && chown postgres "$T/cluster" && chmod 755 "$T"
(cd / && setpriv --reuid postgres --regid postgres --init-groups "$POSTGRES/initdb" -D "$T/cluster" -A trust) >/dev/null
make_volume
start_server || { not_ok "the server starts"; finish; exit 1; }
"$V" device create "$T/vol" disk 512M
uml_start || { not_ok "the guest boots"; finish; exit 1; }
check "ext4 on the device, with a cluster" guest "modprobe nbd && nbd-client $UML_HOST 10809 /dev/nbd0 -N disk -t 5 &&
    mkfs.ext4 -q /dev/nbd0 && mkdir -p /mnt/d && mount /dev/nbd0 /mnt/d && mkdir /mnt/d/sqlite &&
    cp -a $T/cluster /mnt/d/ && sync -f /mnt/d"
: >"$T/sqlite.log"
: >"$T/postgres.log"
check "PostgreSQL starts" guest "bash $T/postgres.sh"
for round in $(seq "$KILLS"); do
    before_sqlite=$(lines sqlite)
    before_postgres=$(lines postgres)
    listen "$T/sqlite.log" 7000
    listen "$T/postgres.log" 7001
    guest_start sqlite "exec 5<>/dev/tcp/$UML_HOST/7000; python3 tests/it/database.py load /mnt/d/sqlite - >&5"
    guest_start postgres "exec 5<>/dev/tcp/$UML_HOST/7001; python3 tests/it/database.py load - - /run/postgres >&5"
    for i in $(seq 300); do
        [ "$(lines sqlite)" -gt "$before_sqlite" ] && [ "$(lines postgres)" -gt "$before_postgres" ] && break
        sleep 0.1
    done
    sleep "2.$((RANDOM % 90 + 10))"
    crash
    sleep 0.3
    uml_crash
    # shellcheck disable=SC2086
    kill $LISTENERS 2>/dev/null
    wait $LISTENERS 2>/dev/null
    LISTENERS=
    start_server || { not_ok "the server starts again"; break; }
    uml_start || { not_ok "the guest boots again"; break; }
    check "ext4 recovers" mount_device
    check "PostgreSQL recovers" guest "bash $T/postgres.sh"
    for kind in sqlite postgres; do
        cp "$T/$kind.log" "$T/$kind.log.$round"
        sockets=
        [ $kind = sqlite ] || sockets=/run/postgres
        check "some were committed ($(lines $kind))" [ "$(lines $kind)" -gt 0 ]
        check "$kind, kill $round: $(lines $kind) transactions committed, all are there" \
            guest "python3 tests/it/database.py check /mnt/d/sqlite $T/$kind.log.$round $sockets"
    done
done
guest 'kill -INT $(head -n 1 /mnt/d/cluster/postmaster.pid); for i in $(seq 100); do [ -e /mnt/d/cluster/postmaster.pid ] || break; sleep 0.1; done'
check "unmounted" guest "umount /mnt/d"
check "e2fsck finds nothing" guest "e2fsck -fn /dev/nbd0"
check "the guest shuts down" uml_stop
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
