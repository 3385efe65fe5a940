# Stores that are not a local directory, for the scripts in tests/it. Source it after lib.sh.
#   use_store dir|versitygw|moto     choose where the volume is; starts the server and, before it, the proxy
#   plan JSON                        what the proxy does from now on (s3_proxy.py)
#   counts                           print what the proxy has seen, as a comment
# versitygw (on a file system, through its posix backend) and moto_server (in memory) are put into the build directory
# by tools/install-s3-servers.
ENDPOINT=
PROXY=
export no_proxy=127.0.0.1
unset AWS_PROFILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_REGION AWS_ENDPOINT_URL

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
# wait_for_port PORT
wait_for_port() {
    local i
    for i in $(seq 400); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
        sleep 0.05
    done
    return 1
}
# A server named $1 on $PORT with an empty bucket "vol".
start_s3() {
    tools/install-s3-servers "$B" "$1" >"$T/install.log" 2>&1 || {
        tail -n 3 "$T/install.log" | sed 's/^/# /'
        skip_all "$1 could not be installed"
    }
    PORT=$(free_port)
    case $1 in
    versitygw)
        mkdir -p "$T/gw/vol"
        "$B/s3-servers/versitygw" --quiet --keep-alive --port "127.0.0.1:$PORT" --access AK --secret SK \
            posix "$T/gw" >"$T/s3.log" 2>&1 &
        ;;
    moto)
        "$B/s3-servers/moto/bin/moto_server" -H 127.0.0.1 -p "$PORT" >"$T/s3.log" 2>&1 &
        ;;
    esac
    HELPERS+=($!)
    wait_for_port "$PORT" || { echo "# $1 did not start:"; tail -n 5 "$T/s3.log" | sed 's/^/# /'; exit 1; }
    [ "$1" != moto ] || python3 - "$PORT" <<'P'
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}/vol", method="PUT"))
P
}
# proxy PLAN [OPTIONS...]: from now on requests go through a proxy.
proxy() {
    local i
    python3 tests/it/s3_proxy.py "$PORT" "$@" >"$T/proxy.log" 2>&1 &
    HELPERS+=($!)
    for i in $(seq 400); do
        PROXY=$(sed -n 's/^port //p' "$T/proxy.log")
        [ -n "$PROXY" ] && break
        sleep 0.05
    done
    [ -n "$PROXY" ] || { sed 's/^/# /' "$T/proxy.log"; exit 1; }
    endpoint "$PROXY"
}
endpoint() {
    ENDPOINT=http://127.0.0.1:$1
    STORE_OPTIONS=(--endpoint "$ENDPOINT" --access-key-file "$T/access" --state "$T/host" "${S3_OPTIONS[@]}" ${S3_EXTRA:-})
}
S3_OPTIONS=()
use_store() {
    [ "$1" != dir ] || return 0
    start_s3 "$1"
    echo AK:SK >"$T/access"
    VOL=s3://vol/some/where
    endpoint "$PORT"
    [ -z "${PLAN:-}" ] || proxy '{}' --log "$T/requests"
}
plan() {
    python3 - "$PROXY" "$1" <<'P'
import sys, urllib.request
urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/-/plan", data=sys.argv[2].encode()).read()
P
}
proxy_counts() {
    python3 - "$PROXY" <<'P'
import sys, urllib.request
print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/-/counts").read().decode())
P
}
counts() {
    echo "# the proxy: $(proxy_counts)"
}
