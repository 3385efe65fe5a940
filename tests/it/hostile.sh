#!/bin/bash
# run-tests: 30 s
# Wrong input on every port, beside an honest client. HOSTILE_CONNECTIONS says how many connections
# are opened and dropped in turn (100000).
. tests/it/lib.sh
connections=${HOSTILE_CONNECTIONS:-100000}
rss_max=192
make_volume
doors=(--9p 127.0.0.1:0 --nbd 127.0.0.1:0)
protocols=(9p nbd)
if "$V" help serve | grep -q -- '--nfs '; then
    doors+=(--nfs 127.0.0.1:0)
    protocols+=(nfs)
fi
serve --memory 64M "${doors[@]}" || { not_ok "the server starts"; finish; exit 1; }
check "a device" "$V" device create "$T/vol" hostile 64M
# What is printed: ", 9P on port N", ", NBD on port N", ", NFS on port N".
for name in "${protocols[@]}"; do
    port=$(sed -n "s/.*${name^^} on port \([0-9]*\).*/\1/p" "$T/server.log")
    timeout 300 python3 tests/it/hostile.py "$name" "127.0.0.1:$port" "$SERVER" "$connections" "$rss_max" >"$T/tap.out" 2>&1
    status=$?
    while read -r line; do
        case $line in
        "ok "*) ok "${line#* - }" ;;
        "not ok "*) not_ok "${line#* - }" ;;
        "#"*) echo "$line" ;;
        1..*) ;;
        *) echo "# $line" ;;
        esac
    done <"$T/tap.out"
    is "$name: the script ends well" $status 0
done
check "the log has not been filled" test "$(wc -l <"$T/server.log")" -lt 200
check "the server ends well" stop
check "fsck finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --quiet
finish
