#!/bin/bash
# The guest of tests/it/uml_lib.sh by itself: it boots, runs commands, tells their fates apart, has the clients' modules
# and a network on which large frames pass both ways; and it can be stopped, killed and started again.
. tests/it/uml_lib.sh
uml_start || { not_ok "the guest boots"; finish; exit 1; }
ok "the guest boots"
is "a command's output" "$(guest 'echo a; echo b >&2')" $'a\nb'
guest 'exit 7'
is "a command's status" $? 7
guest_start slow 'sleep 0.5; echo slow; exit 3'
is "another runs meanwhile" "$(guest 'echo quick')" quick
is "the first one's output" "$(guest_wait slow)" slow
guest_wait slow >"$T/slow"
is "and its status" $? 3
GUEST_TIMEOUT=1 guest 'sleep 30' >"$T/late"
is "a command that takes too long" $? 124
guest_tap 'echo "ok 1 - a line of TAP"; echo "ok 2 - another"; echo 1..2'
for module in 9p nfsv3 nbd dm-flakey dm-log-writes ext4 xfs btrfs; do
    check "module $module" guest modprobe $module
done
# 32 MiB each way through the tap device: lost large frames would make this take minutes.
head -c 33554432 /dev/urandom >"$T/bytes"
cat >"$T/peer.py" <<'P'
import socket, sys
listener = socket.socket()
listener.bind((sys.argv[1], 7000))
listener.listen()
open(sys.argv[3], "w").close()
bytes = open(sys.argv[2], "rb").read()
connection, _ = listener.accept()
connection.settimeout(60)
connection.sendall(bytes)
back = b"".join(iter(lambda: connection.recv(1 << 20), b""))
sys.exit(back != bytes)
P
python3 "$T/peer.py" "$UML_HOST" "$T/bytes" "$T/listening" &
peer=$!
for i in $(seq 100); do [ -e "$T/listening" ] && break; sleep 0.05; done
check "32 MiB to the guest and back" guest "python3 -c '
import socket
s = socket.create_connection((\"$UML_HOST\", 7000), 30)
s.settimeout(60)
got = bytearray()
while len(got) < 33554432:
    got += s.recv(1 << 20)
s.sendall(got)
s.close()'"
wait $peer
is "the same bytes" $? 0
check "the guest shuts down" uml_stop
uml_start || { not_ok "it boots again"; finish; exit 1; }
uml_crash
guest true >"$T/gone"
is "a command to a guest that was killed" $? 125
check "it boots again" uml_start
is "with its network" "$(guest 'ip -o -4 address show vec0' | grep -c "$UML_GUEST")" 1
finish
