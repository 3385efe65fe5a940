# A real Linux kernel as a client: Debian's user-mode-linux, booted on the host's root. Source this INSTEAD of lib.sh, as
# the first thing of a script (it starts the script again in namespaces of its own, and sources lib.sh there).
#
# The script, its servers and the guest live in their own network, process and mount namespaces. So the guest's
# network is always $UML_HOST (where servers listen) and $UML_GUEST, other scripts' are never met, and every process,
# tap device and mount ends with the script, however that ends.
#
#   uml_start                  boot the guest (2 s); $UML_MEM is its memory (1G)
#   guest COMMAND              run a bash command line there and wait; output and status are the command's
#   GUEST_TIMEOUT=600 guest... it may take that long (120 s); then the status is 124
#   guest_start NAME COMMAND   run it beside others there
#   guest_wait NAME            wait for it; output and status as above
#   guest_tap COMMAND          run it there, its TAP lines become this script's
#   uml_stop / uml_crash       shut the guest down / pull its plug
#   outside COMMAND...         run a command in the network outside (to reach a package archive)
#
# The guest sees the host's files (those under $T too) but over a page cache of its own: what it has read
# once it need not read again, so hand things over in new files. Its /mnt, /run, /dev are its own.
if [ -z "${VARVE_UML_INSIDE:-}" ]; then
    uml_cannot=
    [ "$(id -u)" = 0 ] || uml_cannot="a guest's network device needs root"
    command -v linux.uml >/dev/null || uml_cannot="no user-mode-linux here"
    [ -c /dev/net/tun ] || uml_cannot="no /dev/net/tun here"
    [ -n "$uml_cannot" ] || unshare --net --pid --fork --mount-proc true 2>/dev/null || uml_cannot="no namespaces here"
    if [ -n "$uml_cannot" ]; then
        echo "1..0 # SKIP $uml_cannot"
        exit 0
    fi
    exec 9</proc/self/ns/net
    export VARVE_UML_INSIDE=1
    exec unshare --net --pid --fork --mount-proc --kill-child "$0" "$@"
fi
. tests/it/lib.sh

UML_HOST=10.77.0.1
UML_GUEST=10.77.0.2
UML_MEM=${UML_MEM:-1G}
UML=
uml_commands=0
declare -A uml_jobs

outside() {
    nsenter --net=/proc/self/fd/9 "$@"
}

# The network, and the guest's modules where its modprobe looks (this mount is the script's own).
uml_prepare() {
    local version
    ip link set lo up
    ip tuntap add dev uml0 mode tap &&
        ip address add "$UML_HOST/24" dev uml0 && ip link set uml0 up || return 1
    mkdir -p /lib/modules
    mount -t tmpfs modules /lib/modules || return 1
    for version in /usr/lib/uml/modules/*; do
        ln -s "$version" /lib/modules/
    done
}

uml_start() {
    UML_DIR=$T/uml
    mkdir -p "$UML_DIR/bin"
    [ -e /sys/class/net/uml0 ] || ip link show uml0 >/dev/null 2>&1 || uml_prepare || return 1
    ln -sf /bin/true "$UML_DIR/bin/udevadm"
    if [ ! -d "$UML_DIR/memory" ]; then
        # The guest's memory: a file that must allow programs to be run from it, which /dev/shm does not everywhere.
        mkdir "$UML_DIR/memory"
        mount -t tmpfs -o "size=$UML_MEM,exec" memory "$UML_DIR/memory" || return 1
    fi
    rm -f "$UML_DIR"/*.rc "$UML_DIR"/line*
    # The serial line: what goes in, and what comes out (nothing does, but the kernel wants to wait for room there).
    mkfifo "$UML_DIR/line" "$UML_DIR/line.out"
    exec 8<>"$UML_DIR/line" 7<>"$UML_DIR/line.out"
    TMPDIR=$UML_DIR/memory linux.uml mem="$UML_MEM" umid=varve uml_dir="$UML_DIR/" \
        root=/dev/root rootfstype=hostfs rootflags=/ rw init="$PWD/tests/it/uml_init" con=null con0=null,fd:1 ssl0=fd:8,fd:7 \
        vec0:transport=tap,ifname=uml0,mac=02:00:00:00:00:02,depth=128,gro=1 \
        varve_dir="$UML_DIR" varve_guest="$UML_GUEST" </dev/null >"$UML_DIR/console" 2>&1 &
    UML=$!
    if ! uml_await up 60; then
        echo "# the guest did not start:"
        tail -n 20 "$UML_DIR/console" | sed 's/^/#   /'
        uml_crash
        return 1
    fi
}

# uml_await N SECONDS: wait for the status of command N.
uml_await() {
    local end=$((SECONDS + $2))
    while [ ! -e "$UML_DIR/$1.rc" ]; do
        if [ -z "$UML" ] || ! kill -0 "$UML" 2>/dev/null; then
            echo "the guest is not running"
            return 125
        fi
        if [ $SECONDS -gt $end ]; then
            echo "no answer from the guest after $2 s"
            return 124
        fi
        sleep 0.02
    done
}

# uml_send COMMAND: the number under which it runs is in $uml_commands then.
uml_send() {
    uml_commands=$((uml_commands + 1))
    # Calls in subshells must not take the same number.
    while ! (set -C; : >"$UML_DIR/$uml_commands.taken") 2>/dev/null; do
        uml_commands=$((uml_commands + 1))
    done
    printf 'cd %q\n%s\n' "$PWD" "$1" >"$UML_DIR/$uml_commands.sh"
    echo "$uml_commands" >&8
}

uml_collect() {
    local status=0
    uml_await "$1" "${GUEST_TIMEOUT:-120}" || status=$?
    cat "$UML_DIR/$1.out" 2>/dev/null
    [ $status = 0 ] || return $status
    return "$(cat "$UML_DIR/$1.rc")"
}

guest() {
    uml_send "$*"
    uml_collect $uml_commands
}

guest_start() {
    local name=$1
    shift
    uml_send "$*"
    uml_jobs[$name]=$uml_commands
}

guest_wait() {
    uml_collect "${uml_jobs[$1]}"
}

guest_tap() {
    local status=0
    guest "$*" >"$T/guest.tap" || status=$?
    tap_lines "$T/guest.tap"
    [ $status = 0 ] || not_ok "it ran to its end (status $status)"
}

uml_stop() {
    local i
    [ -n "$UML" ] || return 0
    echo off >&8
    for i in $(seq 300); do
        kill -0 "$UML" 2>/dev/null || { wait "$UML"; UML=; return 0; }
        sleep 0.05
    done
    uml_crash
    return 1
}

uml_crash() {
    [ -n "$UML" ] || return 0
    local process left i
    kill -KILL "$UML" 2>/dev/null
    wait "$UML" 2>/dev/null
    UML=
    # Its processes are ours too, and hold its network device: all that are in this namespace.
    for i in $(seq 100); do
        left=
        for process in /proc/[0-9]*; do
            if [[ $(readlink "$process/exe") = */linux.uml ]]; then
                kill -KILL "${process#/proc/}" 2>/dev/null
                left=1
            fi
        done
        [ -n "$left" ] || break
        sleep 0.05
    done
}

uml_cleanup() {
    uml_crash
    [ -z "${UML_DIR:-}" ] || umount -l "$UML_DIR/memory" 2>/dev/null
    cleanup
}
trap uml_cleanup EXIT
