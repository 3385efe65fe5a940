#!/bin/bash
# Programs that ask much of a file system: SQLite with a write-ahead log shared by processes, git; and what users see when a
# server dies: nothing hangs, and the next server takes the dead mount's place.
. tests/it/lib.sh
need_fuse

make_volume
serve --mount "$T/mnt" || { not_ok "the server starts"; finish; exit 1; }
tap "SQLite with a write-ahead log" timeout 120 python3 tests/it/sqlite.py "$T/mnt"

# ---- git ----
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
G() {
    timeout 100 git -c user.name=varve -c user.email=varve@localhost -c safe.directory='*' -c gc.auto=0 \
        -c core.fsync=all -C "$@"
}
commits() {
    local i
    for i in 1 2 3 4 5; do
        echo "$i" >"$T/mnt/repo/number"
        git mv "$T/mnt/repo/src/moved$((i - 1))" "$T/mnt/repo/src/moved$i" &&
            G "$T/mnt/repo" add -A && G "$T/mnt/repo" commit -qm "number $i" || return 1
    done
}
if command -v git >/dev/null; then
    check "git init" G "$T/mnt" init -q repo
    cp -r src tests "$T/mnt/repo"
    mkdir "$T/mnt/repo/src/moved0" && echo x >"$T/mnt/repo/src/moved0/file"
    check "git add and commit" eval 'G "$T/mnt/repo" add -A && G "$T/mnt/repo" commit -qm first'
    check "five more commits, with renames" eval 'cd "$T/mnt/repo" && commits'
    cd "$OLDPWD" 2>/dev/null || true
    is "git status sees no change" "$(G "$T/mnt/repo" status --porcelain)" ""
    check "git gc" G "$T/mnt/repo" gc -q --prune=now
    check "git fsck" G "$T/mnt/repo" fsck --full --strict
    check "git clone, with hard links" G "$T/mnt" clone -q repo clone
    check "the clone is the same" diff -r --exclude=.git "$T/mnt/repo" "$T/mnt/clone"
else
    ok "git # SKIP not installed"
fi

# ---- a server that dies ----
echo held >"$T/mnt/held"
# Who works in the mount while its server dies; one waits for a lock that another holds, who lets go when all others are done.
victims() {
    python3 - "$T/mnt" <<'P' >"$T/victims" 2>&1 &
import errno, fcntl, os, sys, threading
mount = sys.argv[1]
results = {}
def run(name, fn):
    try:
        fn()
        results[name] = "went on"
    except OSError as error:
        results[name] = errno.errorcode[error.errno]
def write():
    with open(f"{mount}/victim", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 70000)
def look():
    while True:
        os.listdir(mount)
        os.stat(f"{mount}/held")
        open(f"{mount}/held", "rb").read()
def sync():
    with open(f"{mount}/synced", "wb", buffering=0) as file:
        while True:
            file.write(b"y")
            os.fsync(file)
held = open(f"{mount}/held", "r+b")
other = open(f"{mount}/held", "r+b")
fcntl.flock(held, fcntl.LOCK_EX)
threads = [threading.Thread(target=run, args=(fn.__name__, fn), daemon=True) for fn in (write, look, sync)]
waiter = threading.Thread(target=run, args=("lock", lambda: fcntl.flock(other, fcntl.LOCK_EX)), daemon=True)
for thread in threads + [waiter]:
    thread.start()
print("started", flush=True)
for thread in threads:
    thread.join(30)
waiter.join(5)
is_waiting = waiter.is_alive()
try:
    held.close()
except OSError:
    pass
waiter.join(30)
alive = sum(thread.is_alive() for thread in threads + [waiter])
print("hanging:", alive, "lock:", "waits for its holder" if is_waiting else "fails", *(f"{name}={results[name]}" for name in sorted(results)), flush=True)
os._exit(0)
P
    local victims=$!
    for _ in $(seq 100); do grep -q started "$T/victims" && break; sleep 0.05; done
    sleep 1
    kill -KILL "$SERVER"
    wait "$SERVER" 2>/dev/null
    SERVER=
    wait $victims
    sed 's/^/# /' "$T/victims"
}
victims
is "who works in the mount of a server that dies gets an error, nobody hangs" \
    "$(grep -o 'hanging: [0-9]*' "$T/victims") $(grep -o 'lock: fails' "$T/victims") $(grep -o '=E[A-Z]*' "$T/victims" | wc -l) errors" "hanging: 0 lock: fails 4 errors"
serve --mount "$T/mnt" --local-locks || { not_ok "a new server takes the dead mount's place"; finish; exit 1; }
victims
is "... with --local-locks, too, but who waits for a lock waits for its holder" \
    "$(grep -o 'hanging: [0-9]*' "$T/victims") $(grep -o '[a-z]*=E[A-Z]*' "$T/victims" | grep -vc lock) errors, $(grep -o 'lock: [a-z ]*holder' "$T/victims")" \
    "hanging: 0 3 errors, lock: waits for its holder"
check "the dead mount says what it is" sh -c "ls '$T/mnt' 2>&1 | grep -q 'not connected'"
serve --mount "$T/mnt" || { not_ok "a new server takes the dead mount's place"; finish; exit 1; }
is "a new server takes the dead mount's place" "$(cat "$T/mnt/held")" held
check "and says so" grep -q "taking a dead mount away" "$T/server.log"
is "there is one mount" "$(grep -c " $T/mnt " /proc/mounts)" 1
check "the database is whole after the crash" timeout 60 python3 tests/it/sqlite.py "$T/mnt" check
check "stop" stop

# ---- a mount that was detached while somebody was in it ----
if [ "$(id -u)" = 0 ]; then
    serve --mount "$T/mnt" || { not_ok "the server starts"; finish; exit 1; }
    (cd "$T/mnt" && exec sleep 60) &
    user=$!
    for _ in $(seq 100); do [ "$(readlink "/proc/$user/cwd")" = "$T/mnt" ] && break; sleep 0.05; done
    umount -l "$T/mnt"
    check "a server whose mount was detached goes on for who is in it" \
        timeout 20 cat "/proc/$user/cwd/held"
    check "and stops when it is told to" stop
    is "with nothing to complain about" "$(grep -c ERROR "$T/server.log")" 0
    kill "$user"
fi
check "fsck finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet
finish
