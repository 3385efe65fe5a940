#!/usr/bin/env python3
"""programs.py DIR [--without WORD...]: what programs expect of a file system, tried on the mounted DIR (as root); TAP.

Each function test_* is one result; its docstring is the result's name. --without names what the protocol or the
client in between cannot do (see WITHOUT in programs_lib.py): such a result is left out, never loosened.
"""
import errno
import mmap
import os
import random
import stat
import subprocess

from programs_lib import *
from programs_meta import *

ENTRIES = int(os.environ.get("PROGRAMS_ENTRIES", "3000"))


# ---- names ----

def test_kinds():
    """files, folders, symbolic and hard links are made and told apart"""
    write("file", b"x")
    os.mkdir("folder")
    os.symlink("file", "symlink")
    os.link("file", "hard")
    kinds = {e.name: stat.S_IFMT(e.stat(follow_symlinks=False).st_mode) for e in os.scandir(".")}
    equal(kinds, {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "symlink": stat.S_IFLNK, "hard": stat.S_IFREG})
    equal(os.stat("hard").st_ino, os.stat("file").st_ino)
    equal(os.stat("file").st_nlink, 2)
    equal(os.readlink("symlink"), "file")
    equal(os.lstat("symlink").st_size, 4)
    equal(os.stat("folder").st_nlink, 2)
    os.mkdir("folder/inner")
    equal(os.stat("folder").st_nlink, 3)
    os.unlink("file")
    equal((os.stat("hard").st_nlink, read("hard")), (1, b"x"))


def test_names():
    """names of all bytes and of 255 bytes; longer ones are refused"""
    odd = [bytes([byte]) * 3 for byte in range(1, 256) if byte not in b"/."] + [b"n" * 255, b"..."]
    for name in odd:
        write(name, name)
    equal(sorted(os.listdir(b".")), sorted(odd))
    for name in odd:
        equal(read(name), name)
    fails(errno.ENAMETOOLONG, write, "n" * 256)
    fails(errno.ENAMETOOLONG, os.mkdir, "n" * 256)
    fails(errno.ENAMETOOLONG, os.stat, "n" * 256)
    fails(errno.ENAMETOOLONG, os.rename, "nnn", "m" * 256)
    long = "t" * 4000
    os.symlink(long, "long")
    equal(os.readlink("long"), long)


def test_errors():
    """the errors of wrong names"""
    write("file")
    os.makedirs("folder/inner")
    fails(errno.ENOENT, os.stat, "nothing")
    fails(errno.ENOENT, os.unlink, "nothing")
    fails(errno.ENOENT, os.rmdir, "nothing")
    fails(errno.ENOENT, os.rename, "nothing", "other")
    fails(errno.ENOTDIR, os.stat, "file/x")
    fails(errno.ENOTDIR, os.rmdir, "file")
    fails(errno.EISDIR, os.unlink, "folder")
    fails(errno.ENOTEMPTY, os.rmdir, "folder")
    fails(errno.EEXIST, os.mkdir, "file")
    fails(errno.EEXIST, os.symlink, "x", "file")
    fails(errno.EEXIST, os.link, "file", "folder")
    fails(errno.EEXIST, os.open, "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fails(errno.EISDIR, os.open, "folder", os.O_WRONLY)
    fails(errno.ENOTDIR, os.open, "file", os.O_RDONLY | os.O_DIRECTORY)
    fails(errno.EPERM, os.link, "folder", "x")
    os.symlink("loop", "loop")
    fails(errno.ELOOP, os.stat, "loop")
    fails(errno.ELOOP, os.open, "loop", os.O_RDONLY | os.O_NOFOLLOW)


def test_rename():
    """rename: over files and folders, across folders, into itself"""
    write("a", b"a")
    write("b", b"b")
    os.rename("a", "b")
    equal((read("b"), os.path.exists("a")), (b"a", False))
    os.makedirs("d/e/f")
    write("d/e/f/g", b"g")
    os.mkdir("empty")
    os.rename("d/e", "empty")
    equal((read("empty/f/g"), os.listdir("d")), (b"g", []))
    equal(os.stat("d").st_nlink, 2)
    fails(errno.EINVAL, os.rename, "empty", "empty/f/x")
    fails(errno.ENOTEMPTY, os.rename, "d", "empty")
    fails(errno.EISDIR, os.rename, "b", "d")
    fails(errno.ENOTDIR, os.rename, "d", "b")
    os.link("b", "c")
    os.rename("b", "c")  # two names of one file: both stay
    equal((os.path.exists("b"), os.stat("c").st_nlink), (True, 2))


@without("rename2")
def test_rename_flags():
    """renameat2: no replacing, exchanging, leaving a whiteout"""
    write("a", b"a")
    write("b", b"b")
    fails(errno.EEXIST, rename2, "a", "b", RENAME_NOREPLACE)
    rename2("a", "b", RENAME_EXCHANGE)
    equal((read("a"), read("b")), (b"b", b"a"))
    rename2("a", "c", RENAME_WHITEOUT)
    left = os.lstat("a")
    equal((read("c"), stat.S_ISCHR(left.st_mode), left.st_rdev), (b"b", True, 0))
    equal(sorted(os.listdir(".")), ["a", "b", "c"])
    os.rename("c", "a")
    equal(read("a"), b"b")


def test_rename_open():
    """a file that is open follows its renaming, and its replacing"""
    write("a", b"first")
    fd = os.open("a", os.O_RDWR)
    os.rename("a", "moved")
    os.pwrite(fd, b"FIRST", 0)
    equal(read("moved"), b"FIRST")
    write("new", b"second")
    os.rename("new", "moved")
    equal((os.pread(fd, 9, 0), read("moved")), (b"FIRST", b"second"))
    os.close(fd)


def test_large_folder():
    """a large folder: each entry is listed once, also while every second one is being removed"""
    names = {f"entry-{i:05}" for i in range(ENTRIES)}
    os.mkdir("large")
    for name in names:
        os.close(os.open(f"large/{name}", os.O_CREAT | os.O_WRONLY))
    listed = os.listdir("large")
    equal((len(listed), set(listed)), (ENTRIES, names))
    seen = []
    for i, entry in enumerate(os.scandir("large")):
        seen.append(entry.name)
        if i % 2:
            os.unlink(f"large/{entry.name}")
    equal((len(seen), set(seen)), (ENTRIES, names))
    equal(len(os.listdir("large")), ENTRIES // 2)
    subprocess.run(["rm", "-r", "large"], check=True)
    assert not os.path.exists("large")


# ---- bytes ----

def test_random_bytes():
    """300 random writes, reads, truncations: as in a model"""
    rng = random.Random(4)
    model = bytearray()
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    for step in range(300):
        offset, length = rng.randrange(400000), rng.choice([1, 100, 4096, 33000, 100000])
        kind = rng.randrange(8)
        if kind < 4:
            data = rng.randbytes(length)
            if offset > len(model):
                model.extend(bytes(offset - len(model)))
            model[offset:offset + length] = data
            equal(os.pwrite(fd, data, offset), length)
        elif kind < 6:
            assert os.pread(fd, length, offset) == model[offset:offset + length], f"step {step}: other bytes"
        elif kind == 6:
            size = rng.randrange(400000)
            os.ftruncate(fd, size)
            model = model[:size] + bytes(max(0, size - len(model)))
        else:
            os.fsync(fd)
        equal(os.fstat(fd).st_size, len(model))
    os.close(fd)
    assert read("f") == model


def test_sparse():
    """a byte at 1 TiB: zeros before it, few blocks"""
    fd = os.open("sparse", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x", 1 << 40)
    os.fsync(fd)
    equal(os.fstat(fd).st_size, (1 << 40) + 1)
    equal(os.pread(fd, 4096, 1 << 39), bytes(4096))
    equal(os.pread(fd, 4096, (1 << 40) - 1), b"\0x")
    assert "blocks" in WITHOUT or os.fstat(fd).st_blocks < 4096, os.fstat(fd).st_blocks
    os.close(fd)


def test_append():
    """O_APPEND: the end, wherever the offset is; and after the file was truncated"""
    fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for i in range(50):
        os.write(fd, b"line %02d\n" % i)
        os.lseek(fd, 0, os.SEEK_SET)
    equal(read("log"), b"".join(b"line %02d\n" % i for i in range(50)))
    os.truncate("log", 8)
    os.write(fd, b"next")
    os.close(fd)
    equal(read("log"), b"line 00\nnext")


@without("append")
def test_append_two():
    """O_APPEND through two descriptors in two processes: no line is lost"""
    child = os.fork()
    fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for i in range(200):
        os.write(fd, b"%s %03d\n" % (b"child" if child == 0 else b"paren", i))
    os.close(fd)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    lines = read("log").split(b"\n")
    equal(sorted(lines[:-1]), sorted(b"%s %03d" % (who, i) for who in (b"child", b"paren") for i in range(200)))


def test_truncate():
    """O_TRUNC, truncate and ftruncate: sizes, zeros behind the old end"""
    write("f", b"a" * 10000)
    os.close(os.open("f", os.O_RDONLY))
    equal(os.stat("f").st_size, 10000)
    fd = os.open("f", os.O_RDWR | os.O_TRUNC)
    equal((os.fstat(fd).st_size, os.read(fd, 10)), (0, b""))
    os.write(fd, b"b" * 5000)
    os.ftruncate(fd, 100)
    os.ftruncate(fd, 8000)
    equal(os.pread(fd, 9000, 0), b"b" * 100 + bytes(7900))
    os.close(fd)
    os.truncate("f", 50)
    equal(read("f"), b"b" * 50)
    fails(errno.EINVAL, os.truncate, "f", -1)
    os.mkdir("d")
    fails(errno.EISDIR, os.truncate, "d", 0)


@without("open")
def test_unlinked():
    """a file that is open and has no name any more is read, written, truncated"""
    fd = os.open("gone", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"before")
    os.unlink("gone")
    assert not os.path.exists("gone")
    equal(os.pread(fd, 10, 0), b"before")
    os.pwrite(fd, b" and after", 6)
    os.fsync(fd)
    equal(os.pread(fd, 100, 0), b"before and after")
    os.close(fd)


@without("unlinked-attr")
def test_unlinked_attributes():
    """fstat, fchmod, ftruncate of a file that is open and has no name"""
    fd = os.open("gone", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 100)
    os.unlink("gone")
    equal((os.fstat(fd).st_nlink, os.fstat(fd).st_size), (0, 100))
    os.ftruncate(fd, 10)
    os.fchmod(fd, 0o600)
    equal((os.fstat(fd).st_size, os.fstat(fd).st_mode & 0o777), (10, 0o600))
    os.close(fd)


@without("tmpfile")
def test_tmpfile():
    """O_TMPFILE: no name until it is linked"""
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR)
    os.write(fd, b"made")
    equal(os.listdir("."), [])
    equal(LIBC.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"named", AT_SYMLINK_FOLLOW), 0)
    equal(read("named"), b"made")
    os.close(fd)


@without("mmap")
def test_mmap():
    """a shared mapping: written through it, read from the file, and the other way round"""
    write("map", bytes(100000))
    fd = os.open("map", os.O_RDWR)
    mapped = mmap.mmap(fd, 100000)
    for at in range(0, 100000, 5000):
        mapped[at:at + 4] = b"mark"
    mapped.flush()
    got = read("map")
    assert all(got[at:at + 4] == b"mark" for at in range(0, 100000, 5000))
    os.pwrite(fd, b"file", 50002)
    equal(bytes(mapped[50002:50006]), b"file")
    mapped[99996:] = b"last"
    mapped.close()
    os.close(fd)
    equal(read("map")[-4:], b"last")


def test_mmap_read():
    """private and read-only mappings show the file; a program runs from it"""
    body = random.Random(5).randbytes(70000)
    write("map", body)
    fd = os.open("map", os.O_RDONLY)
    shown = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    equal(bytes(shown[:]) == body, True)
    shown[0:4] = b"mine"
    equal(os.pread(fd, 4, 0), body[:4])
    shown.close()
    os.close(fd)
    subprocess.run(["cp", "/bin/true", "program"], check=True)
    subprocess.run(["./program"], check=True)


@without("direct")
def test_direct():
    """O_DIRECT beside buffered access"""
    page = mmap.mmap(-1, 65536)
    page[:] = random.Random(6).randbytes(65536)
    fd = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    equal(os.pwritev(fd, [page], 65536), 65536)
    back = mmap.mmap(-1, 65536)
    equal(os.preadv(fd, [back], 65536), 65536)
    assert back[:] == page[:]
    os.close(fd)
    assert read("direct") == bytes(65536) + page[:]


def test_sync():
    """fsync, fdatasync, syncfs, O_SYNC and O_DSYNC; fsync of a folder"""
    for flags in (os.O_SYNC, os.O_DSYNC):
        fd = os.open("sync", os.O_RDWR | os.O_CREAT | flags)
        os.write(fd, b"x" * 5000)
        os.close(fd)
    fd = os.open("sync", os.O_RDWR)
    os.write(fd, b"y")
    os.fdatasync(fd)
    os.fsync(fd)
    equal(LIBC.syncfs(fd), 0)
    os.close(fd)
    fd = os.open(".", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_copy():
    """sendfile and copy_file_range between files"""
    body = random.Random(7).randbytes(300000)
    write("from", body)
    source, target = os.open("from", os.O_RDONLY), os.open("to", os.O_RDWR | os.O_CREAT)
    left = len(body)
    while left:
        left -= os.sendfile(target, source, len(body) - left, left)
    equal(read("to") == body, True)
    os.ftruncate(target, 0)
    left = len(body)
    while left:
        left -= os.copy_file_range(source, target, left, len(body) - left, len(body) - left)
    equal(read("to") == body, True)
    os.close(source)
    os.close(target)


def test_seek():
    """SEEK_DATA and SEEK_HOLE find data, or say that all is data"""
    fd = os.open("seek", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x" * 65536, 1 << 20)
    os.fsync(fd)
    data = os.lseek(fd, 0, os.SEEK_DATA)
    assert data in (0, 1 << 20), data
    equal(os.lseek(fd, 1 << 20, os.SEEK_HOLE), (1 << 20) + 65536)
    fails(errno.ENXIO, os.lseek, fd, 2 << 20, os.SEEK_DATA)
    os.close(fd)


if __name__ == "__main__":
    main(globals())
