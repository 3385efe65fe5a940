# Shared by the scripts in tests/it: a scratch folder, a server, TAP lines. Source it; `plan N` at the end is done by
# `finish`. VARVE_BUILD names the build directory.
set -u
B=${VARVE_BUILD:-build}
case $B in /*) ;; *) B=$PWD/$B ;; esac
V=$B/varve
T=$(mktemp -d "${TMPDIR:-/tmp}/varve-it-XXXXXX")
SERVER=
# Where the volume is, and what each command needs to get there. use_store (s3_lib.sh) changes both.
VOL=$T/vol
STORE_OPTIONS=()
count=0

skip_all() {
    echo "1..0 # SKIP $1"
    exit 0
}
ok() {
    count=$((count + 1))
    echo "ok $count - $1"
}
not_ok() {
    count=$((count + 1))
    echo "not ok $count - $1"
}
# check NAME COMMAND...: ok when the command succeeds.
check() {
    local name=$1
    shift
    if "$@" >"$T/check.out" 2>&1; then
        ok "$name"
    else
        not_ok "$name"
        tail -n 20 "$T/check.out" | sed 's/^/#   /'
    fi
}
# is NAME GOT WANTED
is() {
    if [ "$2" = "$3" ]; then
        ok "$1"
    else
        not_ok "$1"
        echo "#   got: $2"
        echo "#   not: $3"
    fi
}
# tap NAME COMMAND...: the command's own TAP counts as one check; what failed of it is shown.
tap() {
    local name=$1 status=0
    shift
    "$@" >"$T/tap.out" 2>&1 || status=$?
    if [ $status = 0 ]; then
        ok "$name ($(grep -c '^ok' "$T/tap.out") checks)"
    else
        not_ok "$name"
        grep -v '^ok' "$T/tap.out" | sed 's/^/#   /'
    fi
}
need_fuse() {
    [ -c /dev/fuse ] || skip_all "no /dev/fuse here"
    [ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null || skip_all "cannot mount here"
}
# A new volume at $VOL with its key.
make_volume() {
    "$V" init "$VOL" --key-file "$T/key" --quiet "${STORE_OPTIONS[@]}" "$@" || exit 1
    mkdir -p "$T/mnt"
}
# serve OPTIONS...: start a server for $VOL and wait until it serves.
serve() {
    : >"$T/server.log"
    "$V" serve "$VOL" --key-file "$T/key" "${STORE_OPTIONS[@]}" "$@" >>"$T/server.log" 2>&1 &
    SERVER=$!
    local i
    for i in $(seq 600); do
        grep -q '^serving' "$T/server.log" && return 0
        kill -0 "$SERVER" 2>/dev/null || break
        sleep 0.05
    done
    echo "# the server did not start:"
    sed 's/^/#   /' "$T/server.log"
    SERVER=
    return 1
}
# Stop the server in good order; its exit status.
stop() {
    local status=0
    [ -n "$SERVER" ] || return 0
    kill -TERM "$SERVER" 2>/dev/null
    wait "$SERVER" || status=$?
    SERVER=
    return $status
}
# Kill it with no chance to tidy up.
crash() {
    [ -n "$SERVER" ] || return 0
    kill -KILL "$SERVER" 2>/dev/null
    wait "$SERVER" 2>/dev/null
    SERVER=
    umount -l "$T/mnt" 2>/dev/null || fusermount3 -uz "$T/mnt" 2>/dev/null
    return 0
}
# Processes that a script started besides the server, ended with it.
HELPERS=()
cleanup() {
    local pid
    for pid in "${HELPERS[@]}"; do kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
    [ -n "$SERVER" ] && kill -KILL "$SERVER" 2>/dev/null && wait "$SERVER" 2>/dev/null
    umount -l "$T/mnt" 2>/dev/null || fusermount3 -uz "$T/mnt" 2>/dev/null
    rm -rf "$T"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
finish() {
    echo "1..$count"
}
# tap_lines FILE: the results in it become this script's.
tap_lines() {
    local line seen=0
    while IFS= read -r line; do
        case $line in
        "ok "*) ok "${line#* - }"; seen=$((seen + 1)) ;;
        "not ok "*) not_ok "${line#* - }"; seen=$((seen + 1)) ;;
        "1.."*) ;;
        *) echo "# ${line#\# }" ;;
        esac
    done <"$1"
    grep -qx "1..$seen" "$1" || not_ok "it ran to its end ($seen results)"
}
