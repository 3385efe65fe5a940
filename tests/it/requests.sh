#!/bin/bash
# What a file costs: requests of the kernel, fibers that serve them, system calls of the server. Server and client share a
# processor, so that the next request is there before the server has looked for it: that once made a fiber of each.
. tests/it/lib.sh
need_fuse
FILES=400
cat >"$T/pinned" <<P
#!/bin/sh
exec taskset -c "$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')" "$V" "\$@"
P
chmod +x "$T/pinned"
cat >"$T/create.py" <<'P'
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.mkdir(sys.argv[1])
dir = os.open(sys.argv[1], os.O_RDONLY)
for i in range(int(sys.argv[2])):
    fd = os.open(f"file{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=dir)
    os.write(fd, b"x" * 4096)
    os.close(fd)
P
create() {
    timeout 60 python3 "$T/create.py" "$T/mnt/$1" "$FILES"
}
status() {
    "$V" status "$T/vol" --json | python3 -c "import json,sys; print(json.load(sys.stdin)['$1'])"
}
# requests_per_file NAME: in hundredths.
requests_per_file() {
    local before
    before=$(status fuse_requests)
    create "$1" >/dev/null || echo "create: failed" >&2
    echo $((($(status fuse_requests) - before) * 100 / FILES))
}
make_volume
V_PLAIN=$V V=$T/pinned
serve --mount "$T/mnt" --local-locks || { not_ok "serve"; finish; exit 1; }
V=$V_PLAIN
create first # and what is asked once
# LOOKUP, CREATE, GETXATTR, GETATTR of the directory, WRITE, RELEASE
cost=$(requests_per_file alone)
check "a new file is 6 requests where the kernel keeps the locks ($cost/100)" [ "$cost" -ge 400 -a "$cost" -le 620 ]
fibers=$(status fuse_fibers)
check "few fibers serve them ($fibers)" [ "$fibers" -le 12 ]
if command -v strace >/dev/null && timeout 5 strace -o /dev/null true 2>/dev/null; then
    before=$(status fuse_requests)
    timeout 60 strace -f -c -o "$T/calls" -p "$SERVER" 2>/dev/null &
    STRACE=$!
    for _ in $(seq 50); do grep -q '^TracerPid:.*[1-9]' "/proc/$SERVER/status" && break; sleep 0.1; done
    create traced
    kill -INT $STRACE
    wait $STRACE
    requests=$(($(status fuse_requests) - before))
    # per NAMES: calls of a request, in hundredths
    per() {
        awk -v names="^($1)\$" -v n="$requests" '$NF ~ names { sum += $4 } END { printf "%d", sum * 100 / n }' "$T/calls"
    }
    check "system calls of a request: $(per 'read|write|writev')/100 to read and to answer" [ "$(per 'read|write|writev')" -le 310 ]
    check "$(per 'epoll_wait|epoll_pwait2')/100 to wait" [ "$(per 'epoll_wait|epoll_pwait2')" -le 210 ]
    check "$(per 'mmap|munmap|mprotect')/100 for memory" [ "$(per 'mmap|munmap|mprotect')" -le 20 ]
else
    ok "system calls of a request # SKIP strace is not to be had here"
fi
check "stop" stop
# Where the server keeps them it is told of each close.
serve --mount "$T/mnt" || { not_ok "serve"; finish; exit 1; }
create second
cost=$(requests_per_file beside)
check "where the server keeps them it is 7 ($cost/100)" [ "$cost" -ge 690 -a "$cost" -le 720 ]
finish
