"""fallocate.py DIRECTORY: what fallocate sets aside counts in st_blocks, and what is in memory. Prints TAP; leaves files behind that are counted in full."""
import ctypes
import errno
import os
import sys
import time

KEEP, PUNCH, ZERO = 1, 2, 16
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
count = failed = 0


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, offset, length) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def kib(fd):
    return os.fstat(fd).st_blocks / 2


def check(name, got, wanted):
    global count, failed
    count += 1
    failed += got != wanted
    print(f"{'ok' if got == wanted else 'not ok'} {count} - {name}" + ("" if got == wanted else f": {got}, not {wanted}"))


def soon(name, fd, wanted):
    """What was freed leaves st_blocks when it has been reclaimed."""
    end = time.monotonic() + 10
    os.fsync(fd)
    while kib(fd) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    check(name, kib(fd), wanted)


def new(name):
    return os.open(os.path.join(sys.argv[1], name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)


def write_within(direct):
    """generic/568: a write into a range that was set aside does not change st_blocks."""
    fd = new(f"within-{direct}")
    for size in (4096, 65536, 1 << 20):
        fallocate(fd, 0, 0, size)
        os.fsync(fd)
        before = kib(fd)
        check(f"{size} bytes set aside", before, size / 1024)
        for at, length in ((0, 1), (size // 2, 2048), (0, size)):
            if direct:
                fd_direct = os.open(os.path.join(sys.argv[1], f"within-{direct}"), os.O_WRONLY | os.O_DIRECT)
                buffer = ctypes.create_string_buffer(b"y" * 8192)
                start = (ctypes.addressof(buffer) + 4095) // 4096 * 4096 - ctypes.addressof(buffer)
                os.pwrite(fd_direct, memoryview(buffer)[start:start + 4096], at // 4096 * 4096)
                os.close(fd_direct)
            else:
                os.pwrite(fd, b"y" * length, at)
            check(f"{length} bytes written at {at}", kib(fd), before)
            os.fsync(fd)
            check("and synced", kib(fd), before)
    os.close(fd)


def large():
    """generic/701: 5 GiB."""
    fd = new("large")
    try:
        fallocate(fd, 0, 0, 5 << 30)
        check("5 GiB", (kib(fd), os.fstat(fd).st_size), (5 << 20, 5 << 30))
        check("its last bytes are zeros", os.pread(fd, 10, (5 << 30) - 10), bytes(10))
        check("they are a hole", os.lseek(fd, 0, os.SEEK_HOLE), 0)
        try:
            os.lseek(fd, 0, os.SEEK_DATA)
            check("there is no data", "some", "none")
        except OSError as error:
            check("there is no data", error.errno, errno.ENXIO)
        os.pwrite(fd, b"z" * 100000, 3 << 30)
        check("written into", kib(fd), 5 << 20)
        os.fsync(fd)
        check("and synced", kib(fd), 5 << 20)
    except OSError as error:
        check("5 GiB: the store has no room", error.errno, errno.ENOSPC)
    os.close(fd)
    os.unlink(os.path.join(sys.argv[1], "large"))


def by_bytes():
    """generic/438: byte after byte."""
    fd = new("bytes")
    for i in range(20000):
        fallocate(fd, 0, i, 1)
    check("20,000 calls of one byte", (kib(fd), os.fstat(fd).st_size), (20, 20000))
    os.close(fd)


def ends():
    fd = new("behind")
    os.write(fd, b"e" * 4096)
    fallocate(fd, KEEP, 1 << 20, 1 << 20)
    check("behind the end the size stays", os.fstat(fd).st_size, 4096)
    check("behind the end it counts", kib(fd), 1024 + 4)
    fallocate(fd, KEEP, 0, 4096)
    check("over what is written it adds nothing", kib(fd), 1024 + 4)
    os.ftruncate(fd, 4096)
    check("truncating to the same size gives it back", kib(fd), 4)
    fallocate(fd, KEEP, 0, 1 << 20)
    os.ftruncate(fd, 1 << 20)
    soon("growing leaves it", fd, 1024)
    os.ftruncate(fd, 100000)
    soon("cutting gives back what is behind", fd, 100)
    os.ftruncate(fd, 1 << 20)
    soon("and growing again makes holes", fd, 100)
    os.close(fd)


def changes():
    fd = new("changes")
    fallocate(fd, 0, 0, 1 << 20)
    os.pwrite(fd, b"a" * 300000, 100000)
    fallocate(fd, PUNCH | KEEP, 200000, 400000)
    soon("punching gives whole blocks back", fd, 1024 - (600000 // 4096 - 200000 // 4096 - 1) * 4)
    fallocate(fd, 0, 0, 1 << 20)
    soon("they can be set aside again", fd, 1024)
    fallocate(fd, ZERO, 50000, 300000)
    soon("zeroing leaves its range set aside", fd, 1024)
    check("it reads as zeros", os.pread(fd, 300000, 50000), bytes(300000))
    os.close(fd)
    fd = new("few")
    os.write(fd, b"some bytes")
    fallocate(fd, KEEP, 0, 10000)
    check("a few bytes go into what is set aside", (kib(fd), os.pread(fd, 20, 0)), (12, b"some bytes"))
    os.close(fd)
    fd = new("sparse")
    os.ftruncate(fd, 1 << 20)
    for at in range(0, 1 << 20, 65536):
        os.pwrite(fd, b"c" * 8192, at)
    soon("some data", fd, 16 * 8)
    fallocate(fd, 0, 0, 1 << 20)
    soon("set aside, the holes between count, too", fd, 1024)
    for at in range(8192, 1 << 20, 65536):
        os.pwrite(fd, b"d" * 57344, at)
    soon("and do not count again when they are written", fd, 1024)
    os.close(fd)


def in_memory():
    """What is in memory counts as it will in the store, or does soon; the kernel does not keep what it was told meanwhile."""
    fd = new("memory")
    os.pwrite(fd, b"m", 10000)
    check("a byte", kib(fd), 4)
    os.pwrite(fd, b"m", 10100)
    check("and another in its block", kib(fd), 4)
    os.fsync(fd)
    check("and synced", kib(fd), 4)
    os.pwrite(fd, b"m" * 100, 100000)
    check("in another block", kib(fd), 8)
    os.fsync(fd)
    check("and synced", kib(fd), 8)
    os.close(fd)
    fd = new("over")
    os.pwrite(fd, b"o" * (1 << 20), 0)
    os.fsync(fd)
    check("a MiB", kib(fd), 1024)
    time.sleep(1.5)  # so that it is in the store
    os.pwrite(fd, b"v" * (1 << 20), 0)
    soon("written again, it soon counts once", fd, 1024)
    fallocate(fd, PUNCH | KEEP, 4096, 8192)
    soon("punching soon gives blocks back", fd, 1016)
    os.ftruncate(fd, 100000)
    soon("and so does cutting", fd, 92)
    os.close(fd)


for is_direct in (False, True):
    write_within(is_direct)
large()
by_bytes()
ends()
changes()
in_memory()
print(f"1..{count}")
sys.exit(failed > 0)
