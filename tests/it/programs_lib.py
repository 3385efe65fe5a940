"""What the tests of programs.py have in common."""
import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
import traceback

USER, GROUP, OTHER = 12001, 12002, 12003
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT, AT_FDCWD, AT_SYMLINK_FOLLOW = 1, 2, 4, -100, 0x400
LIBC = ctypes.CDLL(None, use_errno=True)
# What can be left out:
# rename2: RENAME_EXCHANGE; tmpfile: O_TMPFILE; acl: POSIX ACLs; xattr, trusted: attributes of these kinds
# append: O_APPEND by two processes at once; blocks: no blocks for holes; times: to the nanosecond, and before 1970; range: times before 1970 and after 2106; mknod: FIFOs, sockets, devices
# mmap: shared writable mappings; direct: O_DIRECT; pid: the holder's pid of F_GETLK
# cached-times: mtime and ctime as the server has them; open: unlinked files that are open; unlinked-attr: their attributes; suid: an unprivileged write clears setuid
WITHOUT = set()
TEST_S = 60  # each may take that long


def without(*words):
    """The test is left out when one of the words was given."""
    def mark(function):
        function.words = set(words)
        return function
    return mark


def fails(number, function, *arguments, **named):
    """The call fails with exactly this errno."""
    try:
        function(*arguments, **named)
    except OSError as error:
        assert error.errno == number, f"{errno.errorcode[error.errno]}, not {errno.errorcode[number]}"
        return
    raise AssertionError(f"succeeds, not {errno.errorcode[number]}")


def equal(got, wanted):
    assert got == wanted, f"{got!r:.300}, not {wanted!r:.300}"


def write(path, data=b"", mode=0o644):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        assert os.write(fd, data) == len(data)
    finally:
        os.close(fd)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def as_user(function, uid=USER, gid=GROUP, groups=()):
    """Run it in a process of that user; what it raises is raised here."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        text = b""
        try:
            os.setgroups(list(groups))
            os.setgid(gid)
            os.setuid(uid)
            function()
        except BaseException:
            text = traceback.format_exc().encode()
        os.write(outlet, text[-2000:])
        os._exit(0)
    os.close(outlet)
    text = b""
    while piece := os.read(inlet, 4096):
        text += piece
    os.close(inlet)
    os.waitpid(child, 0)
    assert not text, f"as user {uid}: {text.decode()}"


def rename2(source, target, flags):
    if LIBC.renameat2(AT_FDCWD, source.encode(), AT_FDCWD, target.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), source)


def in_child(function):
    """Start it; returns a function that waits and gives what it printed."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inlet)
        try:
            function(lambda text: os.write(outlet, text))
        except BaseException:
            os.write(outlet, traceback.format_exc().encode())
        os._exit(0)
    os.close(outlet)

    def wait(size=None):
        text = b""
        while size is None or len(text) < size:
            piece = os.read(inlet, 4096)
            if not piece:
                os.close(inlet)
                os.waitpid(child, 0)
                break
            text += piece
        return text
    return child, wait


def too_long(number, frame):
    raise TimeoutError(f"not done after {TEST_S} s")


def main(tests):
    signal.signal(signal.SIGALRM, too_long)
    folder = os.path.join(os.path.abspath(sys.argv[1]), f"programs-{os.getpid()}")
    if len(sys.argv) > 2:
        assert sys.argv[2] == "--without", sys.argv
        WITHOUT.update(sys.argv[3:])
    os.umask(0o022)
    os.mkdir(folder)
    count = 0
    for name, test in sorted((n, t) for n, t in tests.items() if n.startswith("test_")):
        if getattr(test, "words", set()) & WITHOUT:
            continue
        place = os.path.join(folder, name)
        os.mkdir(place)
        os.chdir(place)
        count += 1
        why = None
        started = time.monotonic()
        signal.alarm(TEST_S)
        try:
            test()
        except BaseException:
            why = traceback.format_exc()
        signal.alarm(0)
        os.chdir(folder)
        print(f"{'not ' if why else ''}ok {count} - {test.__doc__}", flush=True)
        if os.environ.get("PROGRAMS_TIMES"):
            print(f"# {time.monotonic() - started:.2f} s", flush=True)
        for line in (why or "").splitlines()[-6:]:
            print(f"#   {line}", flush=True)
    os.chdir("/")
    status = subprocess.run(["rm", "-rf", folder]).returncode
    print(f"{'not ' if status or os.path.exists(folder) else ''}ok {count + 1} - all of it can be removed")
    print(f"1..{count + 1}")

