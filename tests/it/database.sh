#!/bin/bash
# run-tests: 17 s
# Databases on a FUSE mount: SQLite in WAL mode and a PostgreSQL cluster commit small transactions until the server and the
# database are killed; after recovery every committed transaction is there and whole. DATABASE_KILLS: how often each (3).
. tests/it/lib.sh
need_fuse
[ "$(id -u)" = 0 ] || skip_all "needs root: PostgreSQL must run as another user"
POSTGRES=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$POSTGRES/postgres" ] || skip_all "no PostgreSQL here"
id postgres >/dev/null 2>&1 || skip_all "no user postgres here"
KILLS=${DATABASE_KILLS:-3}
database() { timeout 120 python3 tests/it/database.py "$@"; }
# loading SECONDS COMMAND...: run it beside, until that long after its first committed transaction; its process is $LOADER.
loading() {
    local seconds=$1 i before
    shift
    before=$(cat "$LOG" 2>/dev/null | wc -l)
    "$@" >"$T/load.out" 2>&1 &
    LOADER=$!
    for i in $(seq 300); do
        [ "$(cat "$LOG" 2>/dev/null | wc -l)" -gt "$before" ] && break
        sleep 0.1
    done
    sleep "$seconds"
}
end_loader() {
    kill -KILL "$LOADER" 2>/dev/null
    wait "$LOADER" 2>/dev/null
}

make_volume
# ---- SQLite ----
LOG=$T/sqlite.log
: >"$LOG"
for round in $(seq "$KILLS"); do
    serve --mount "$T/mnt" || { not_ok "the server starts"; break; }
    loading "1.$((RANDOM % 90 + 10))" python3 tests/it/database.py load "$T/mnt" "$LOG"
    crash
    end_loader
    serve --mount "$T/mnt" || { not_ok "the server starts again"; break; }
    check "SQLite, kill $round: $(wc -l <"$LOG") transactions committed, all are there" database check "$T/mnt" "$LOG"
    stop || not_ok "the server ends well"
done

# ---- PostgreSQL ----
LOG=$T/postgres.log
: >"$LOG"
cluster=$T/mnt/cluster
sockets=$T/sockets
mkdir "$sockets"
chown postgres "$sockets"
chmod 755 "$T"
as_postgres() { cd / && exec setpriv --reuid postgres --regid postgres --init-groups "$@"; }
DATABASE=
start_postgres() {
    (as_postgres "$POSTGRES/postgres" -D "$cluster" -k "$sockets" -c listen_addresses= -c shared_buffers=16MB \
        -c max_wal_size=32MB -c checkpoint_timeout=30s) >>"$T/postgres.out" 2>&1 &
    DATABASE=$!
    local i
    for i in $(seq 600); do
        timeout 10 psql -h "$sockets" -U postgres -d postgres -qAtXc 'select 1' >/dev/null 2>&1 && return 0
        kill -0 "$DATABASE" 2>/dev/null || break
        sleep 0.1
    done
    echo "# PostgreSQL did not start:"
    tail -n 20 "$T/postgres.out" | sed 's/^/#   /'
    return 1
}
# Its processes end when the first one does, or when their files are gone.
kill_postgres() {
    local children
    [ -n "$DATABASE" ] || return 0
    children=$(ps -o pid= --ppid "$DATABASE")
    # shellcheck disable=SC2086
    kill -KILL "$DATABASE" $children 2>/dev/null
    wait "$DATABASE" 2>/dev/null
    DATABASE=
}
trap 'kill_postgres; cleanup' EXIT
serve --mount "$T/mnt" || { not_ok "the server starts"; finish; exit 1; }
mkdir "$cluster"
chown postgres "$cluster"
init() { (as_postgres timeout 120 "$POSTGRES/initdb" -D "$cluster" -A trust --no-instructions); }
check "initdb on the mount" init
for round in $(seq "$KILLS"); do
    check "PostgreSQL starts" start_postgres
    loading "2.$((RANDOM % 90 + 10))" python3 tests/it/database.py load "$T/mnt" "$LOG" "$sockets"
    crash
    kill_postgres
    end_loader
    umount -l "$T/mnt" 2>/dev/null
    serve --mount "$T/mnt" || { not_ok "the server starts again"; break; }
    check "PostgreSQL recovers" start_postgres
    check "PostgreSQL, kill $round: $(wc -l <"$LOG") transactions committed, all are there" \
        database check "$T/mnt" "$LOG" "$sockets"
    kill -INT "$DATABASE"
    wait "$DATABASE"
    is "PostgreSQL ends well" $? 0
    DATABASE=
done
check "the server ends well" stop
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
