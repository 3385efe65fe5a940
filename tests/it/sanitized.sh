#!/bin/bash
# run-tests: 20 s, busy
# The doors under address, undefined-behaviour and leak sanitizers, with everything that the doors' own tests do and more, in
# little memory; then a short run under valgrind. Nothing may be reported, and no byte may be lost at the end.
B=${VARVE_BUILD:-build}
S=$B/sanitized
log=$B/sanitized.it.log
if ! { tools/configure "$S" -Dsanitize=address && nice -n 5 ninja -C "$S" varve; } >"$log" 2>&1; then
    echo "not ok 1 - the sanitized build"
    tail -n 5 "$log" | sed 's/^/# /'
    echo "1..1"
    exit 1
fi
plain=$B/varve
case $plain in /*) ;; *) plain=$PWD/$plain ;; esac
VARVE_BUILD=$S
. tests/it/lib.sh
need_fuse
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=0:allocator_may_return_null=1"
export UBSAN_OPTIONS="print_stacktrace=1"

# What sanitizers say ends up in the server's log.
no_reports() {
    if grep -q -E 'Sanitizer|runtime error|^==[0-9]+==' "$T/server.log"; then
        not_ok "$1"
        grep -A 12 -m 3 -E 'Sanitizer|runtime error|^==[0-9]+==' "$T/server.log" | sed 's/^/#   /'
    else
        ok "$1"
    fi
}
# A tree that comes, is compared, moves and goes, beside a file that grows, shrinks and is overwritten.
mixed() {
    cp -a src "$T/mnt/tree" &&
        diff -r src "$T/mnt/tree" &&
        mv "$T/mnt/tree" "$T/mnt/moved" &&
        dd if=/dev/urandom of="$T/file" bs=64k count=100 status=none &&
        cp "$T/file" "$T/mnt/file" &&
        dd if="$T/file" of="$T/mnt/file" bs=4k count=200 seek=300 conv=notrunc,fsync status=none &&
        dd if="$T/file" of="$T/file" bs=4k count=200 seek=300 conv=notrunc status=none &&
        fallocate -p -o 100000 -l 50000 "$T/mnt/file" &&
        fallocate -p -o 100000 -l 50000 "$T/file" &&
        truncate -s 3000001 "$T/mnt/file" && truncate -s 3000001 "$T/file" &&
        cmp "$T/file" "$T/mnt/file" &&
        ln "$T/mnt/file" "$T/mnt/second" && ln -s file "$T/mnt/third" && mkfifo "$T/mnt/fifo" &&
        sync -f "$T/mnt" && rm -r "$T/mnt/moved" && ls -lR "$T/mnt" >/dev/null
}

make_volume
serve --mount "$T/mnt" --handles --9p "unix:$T/9p" --memory 16M || { not_ok "the server starts"; finish; exit 1; }
tap "9P" timeout 200 python3 tests/it/ninep_client.py "unix:$T/9p"
tap "9P and a mount" timeout 200 python3 tests/it/doors.py "$T/mnt" "unix:$T/9p"
tap "a mount" timeout 200 python3 tests/it/posix.py "$T/mnt" before
check "a mixed load" mixed
check "status" "$V" status "$T/vol"
check "the server ends well" stop
no_reports "the sanitizers have found nothing"
serve --mount "$T/mnt" || { not_ok "the server starts again"; finish; exit 1; }
echo last >"$T/mnt/last" && sync "$T/mnt/last"
crash
serve --mount "$T/mnt" || { not_ok "the server starts after a crash"; finish; exit 1; }
is "after a crash, what was synced is there" "$(cat "$T/mnt/last")" last
check "the server ends well again" stop
no_reports "replay: the sanitizers have found nothing"
check "fsck with --data finds nothing" "$V" fsck "$T/vol" --key-file "$T/key" --data --quiet

if command -v valgrind >/dev/null; then
    cat >"$T/under-valgrind" <<E2
#!/bin/sh
exec valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite "$plain" "\$@"
E2
    chmod +x "$T/under-valgrind"
    V=$T/under-valgrind
    serve --mount "$T/mnt" --9p "unix:$T/9p" || { not_ok "the server starts under valgrind"; finish; exit 1; }
    check "a short run under valgrind" sh -c "cp -a src/fs '$T/mnt/v' && diff -r src/fs '$T/mnt/v' &&
        mv '$T/mnt/v' '$T/mnt/w' && ln '$T/mnt/w/fs.c' '$T/mnt/v' && echo x >>'$T/mnt/v' && sync -f '$T/mnt' && rm -r '$T/mnt/w'"
    tap "9P under valgrind" timeout 200 python3 tests/it/ninep_client.py "unix:$T/9p"
    check "valgrind has found nothing" stop
    no_reports "and said nothing"
else
    ok "a short run under valgrind # SKIP no valgrind"
fi
finish
