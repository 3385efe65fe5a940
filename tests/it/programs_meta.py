"""Tests of programs.py: attributes, permissions, extended attributes, ACLs, locks."""
import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
import subprocess
import time

from programs_lib import *


# ---- attributes ----

def test_times():
    """times are kept, from 1901 to 2446, to the nanosecond; UTIME_NOW and UTIME_OMIT"""
    write("t")
    unit = 10**9 if "times" in WITHOUT else 1
    seconds = [1, 2**31 - 1, 2**32 - 2]
    # The kernel cuts nanoseconds at the ends of a range.
    seconds += [] if "range" in WITHOUT else [0, 2**32, 15032385535]
    seconds += [] if {"times", "range"} & WITHOUT else [1 - 2**31]
    for at in seconds:
        times = (at * 10**9 + 123456789, at * 10**9 + 987654321)
        os.utime("t", ns=times)
        got = os.stat("t")
        equal((got.st_atime_ns, got.st_mtime_ns), tuple(t // unit * unit for t in times))

    class Timespec(ctypes.Structure):
        _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]
    now, omit = (1 << 30) - 1, (1 << 30) - 2
    before = os.stat("t")
    LIBC.utimensat(AT_FDCWD, b"t", (Timespec * 2)(Timespec(0, now), Timespec(0, omit)), 0)
    got = os.stat("t")
    equal(got.st_mtime_ns, before.st_mtime_ns)
    assert abs(got.st_atime - time.time()) < 10
    os.symlink("nowhere", "s")
    os.utime("s", ns=(5 * 10**9, 6 * 10**9), follow_symlinks=False)
    equal(os.lstat("s").st_mtime_ns, 6 * 10**9)


@without("cached-times")
def test_time_changes():
    """what changes mtime and ctime, and what does not"""
    write("f", b"x")
    os.mkdir("d")

    def moved(path, action):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)  # what a client's cache holds back is not this action's
        os.close(fd)
        before = os.stat(path)
        time.sleep(0.02)
        action()
        after = os.stat(path)
        return after.st_mtime_ns > before.st_mtime_ns, after.st_ctime_ns > before.st_ctime_ns
    equal(moved("f", lambda: write("f", b"yy")), (True, True))
    equal(moved("f", lambda: os.chmod("f", 0o600)), (False, True))
    equal(moved("f", lambda: os.chown("f", USER, GROUP)), (False, True))
    equal(moved("f", lambda: os.link("f", "g")), (False, True))
    equal(moved("f", lambda: os.unlink("g")), (False, True))
    equal(moved("f", lambda: os.truncate("f", 9)), (True, True))
    equal(moved("f", lambda: read("f")), (False, False))
    equal(moved("d", lambda: write("d/x")), (True, True))
    equal(moved("d", lambda: os.rename("d/x", "d/y")), (True, True))
    equal(moved("d", lambda: write("d/y", b"z")), (False, False))
    equal(moved("d", lambda: os.unlink("d/y")), (True, True))


def test_modes():
    """chmod, chown, umask, set-group-id folders"""
    old = os.umask(0o027)
    try:
        write("f", mode=0o666)
        os.mkdir("d")
        equal((os.stat("f").st_mode & 0o7777, os.stat("d").st_mode & 0o7777), (0o640, 0o750))
    finally:
        os.umask(old)
    os.chmod("f", 0o7711)
    equal(os.stat("f").st_mode & 0o7777, 0o7711)
    os.chown("f", USER, GROUP)
    equal((os.stat("f").st_uid, os.stat("f").st_gid), (USER, GROUP))
    os.chown("f", -1, 77)
    equal((os.stat("f").st_uid, os.stat("f").st_gid), (USER, 77))
    os.chown("d", 0, GROUP)
    os.chmod("d", 0o2775)
    os.mkdir("d/e")
    write("d/f")
    equal((os.stat("d/e").st_gid, os.stat("d/f").st_gid), (GROUP, GROUP))
    assert os.stat("d/e").st_mode & 0o2000


def test_permissions():
    """an ordinary user is kept out of what is not his, and has what is"""
    os.chmod(".", 0o755)
    os.mkdir("secret", 0o700)
    write("secret/f", b"s")
    write("private", b"p")
    os.chmod("private", 0o600)
    write("public", b"p")
    os.chmod("public", 0o644)
    os.mkdir("own")
    os.chown("own", USER, GROUP)
    write("group", b"g")
    os.chown("group", 0, GROUP)
    os.chmod("group", 0o060)

    def user():
        fails(errno.EACCES, read, "secret/f")
        fails(errno.EACCES, read, "private")
        fails(errno.EACCES, write, "public", b"x")
        fails(errno.EACCES, write, "new", b"x")
        fails(errno.EACCES, os.unlink, "public")
        fails(errno.EPERM, os.chmod, "public", 0o777)
        fails(errno.EPERM, os.chown, "public", USER, GROUP)
        equal(read("public"), b"p")
        write("own/f", b"mine")
        equal((os.stat("own/f").st_uid, os.stat("own/f").st_gid), (USER, GROUP))
        os.chmod("own/f", 0o400)
        fails(errno.EPERM, os.chown, "own/f", OTHER, GROUP)
        equal(read("group"), b"g")
        os.unlink("own/f")
    as_user(user)
    as_user(lambda: fails(errno.EACCES, read, "group"), OTHER, OTHER)


def test_sticky():
    """the sticky bit: only the owner removes"""
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    as_user(lambda: write("sticky/f"))
    as_user(lambda: fails(errno.EPERM, os.unlink, "sticky/f"), OTHER, OTHER)
    as_user(lambda: fails(errno.EPERM, os.rename, "sticky/f", "sticky/g"), OTHER, OTHER)
    as_user(lambda: os.unlink("sticky/f"))


@without("suid")
def test_suid():
    """set-user-id ends when an ordinary user writes"""
    os.chmod(".", 0o777)
    write("program", b"x")
    os.chown("program", OTHER, GROUP)
    os.chmod("program", 0o6777)

    def user():
        fd = os.open("program", os.O_WRONLY)
        os.write(fd, b"y")
        os.close(fd)
    as_user(user)
    equal(os.stat("program").st_mode & 0o7777, 0o777)


@without("suid")
def test_suid_copy():
    """set-user-id ends when an ordinary user copies into the program; root's copy keeps it"""
    os.chmod(".", 0o777)
    write("from", b"y" * 10000)
    write("program", b"x")
    os.chown("program", OTHER, GROUP)

    def copy():
        with open("from", "rb") as source, open("program", "r+b") as program:
            equal(os.copy_file_range(source.fileno(), program.fileno(), 5000), 5000)
    for run, mode in ((copy, 0o6777), (lambda: as_user(copy), 0o777)):
        os.chmod("program", 0o6777)
        run()
        equal(oct(os.stat("program").st_mode & 0o7777), oct(mode))


def test_statfs():
    """statfs: names of 255, room, and less of it after a write"""
    before = os.statvfs(".")
    equal(before.f_namemax, 255)
    assert 0 < before.f_bfree <= before.f_blocks and before.f_bsize >= 4096
    assert before.f_files > 0


@without("mknod")
def test_special():
    """FIFOs, sockets and device files"""
    os.mkfifo("fifo")
    child = os.fork()
    if child == 0:
        write_end = os.open("fifo", os.O_WRONLY)
        os.write(write_end, b"through")
        os._exit(0)
    equal(read("fifo"), b"through")
    os.waitpid(child, 0)
    os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    equal(os.stat("null").st_rdev, os.makedev(1, 3))
    os.mknod("block", 0o600 | stat.S_IFBLK, os.makedev(259, 70000))
    equal((stat.S_ISBLK(os.stat("block").st_mode), os.stat("block").st_rdev), (True, os.makedev(259, 70000)))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("socket")
        listener.listen()
        client.connect("socket")
    assert stat.S_ISSOCK(os.stat("socket").st_mode)


# ---- extended attributes, ACLs ----

@without("xattr")
def test_xattr():
    """extended attributes: set, get, list, replace, remove; sizes to 60000 bytes"""
    write("f")
    os.mkdir("d")
    for path in ("f", "d"):
        os.setxattr(path, "user.one", b"1")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.large", b"z" * 60000)
        equal(os.getxattr(path, "user.one"), b"1")
        equal(os.getxattr(path, "user.empty"), b"")
        equal(os.getxattr(path, "user.large") == b"z" * 60000, True)
        equal(sorted(n for n in os.listxattr(path) if n.startswith("user.")), ["user.empty", "user.large", "user.one"])
        fails(errno.EEXIST, os.setxattr, path, "user.one", b"2", os.XATTR_CREATE)
        os.setxattr(path, "user.one", b"22", os.XATTR_REPLACE)
        equal(os.getxattr(path, "user.one"), b"22")
        fails(errno.ENODATA, os.setxattr, path, "user.none", b"2", os.XATTR_REPLACE)
        os.removexattr(path, "user.large")
        fails(errno.ENODATA, os.getxattr, path, "user.large")
        fails(errno.ENODATA, os.removexattr, path, "user.large")
    for i in range(100):
        os.setxattr("f", f"user.many{i}", b"%d" % i)
    equal(len([n for n in os.listxattr("f") if n.startswith("user.many")]), 100)


@without("trusted")
def test_xattr_trusted():
    """trusted.* is root's"""
    write("f")
    os.setxattr("f", "trusted.x", b"1")
    equal(os.getxattr("f", "trusted.x"), b"1")


@without("acl")
def test_acl():
    """a POSIX ACL lets a named user in, its mask takes away, chmod sets the mask"""
    os.chmod(".", 0o755)
    write("f", b"shared")
    os.chmod("f", 0o600)
    as_user(lambda: fails(errno.EACCES, read, "f"))
    subprocess.run(["setfacl", "-m", f"u:{USER}:rw,g:{OTHER}:r", "f"], check=True)
    text = subprocess.run(["getfacl", "-nc", "f"], check=True, capture_output=True, text=True).stdout
    equal(text.split(), ["user::rw-", f"user:{USER}:rw-", "group::---", f"group:{OTHER}:r--", "mask::rw-", "other::---"])
    as_user(lambda: equal(read("f"), b"shared"))
    as_user(lambda: write("f", b"shared"))
    as_user(lambda: equal(read("f"), b"shared"), 12009, OTHER)
    as_user(lambda: fails(errno.EACCES, write, "f", b"no"), 12009, OTHER)
    os.chmod("f", 0o640)
    as_user(lambda: fails(errno.EACCES, write, "f", b"no"))
    as_user(lambda: equal(read("f"), b"shared"))
    subprocess.run(["setfacl", "-b", "f"], check=True)
    as_user(lambda: fails(errno.EACCES, read, "f"))


@without("acl")
def test_acl_default():
    """a default ACL is inherited, and stands in for the umask"""
    os.mkdir("d")
    subprocess.run(["setfacl", "-d", "-m", f"u:{USER}:rwx,g::rwx,o::-", "d"], check=True)
    old = os.umask(0o077)
    try:
        write("d/f", mode=0o666)
        os.mkdir("d/e")
    finally:
        os.umask(old)
    text = subprocess.run(["getfacl", "-nc", "d/f"], check=True, capture_output=True, text=True).stdout
    assert f"user:{USER}:rwx" in text and "mask::rw-" in text, text
    equal(os.stat("d/f").st_mode & 0o777, 0o660)
    text = subprocess.run(["getfacl", "-nc", "d/e"], check=True, capture_output=True, text=True).stdout
    assert f"default:user:{USER}:rwx" in text, text


# ---- locks ----

def test_lock_ranges():
    """fcntl locks: ranges conflict between processes, split and join, end with the process"""
    write("lock", bytes(100))
    fd = os.open("lock", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 50, 10)
    fcntl.lockf(fd, fcntl.LOCK_UN, 10, 30)  # leaves 10..29 and 40..59

    def other(say):
        mine = os.open("lock", os.O_RDWR)
        for start, length, free in ((0, 10, True), (10, 1, False), (29, 1, False), (30, 10, True), (40, 1, False),
                                    (59, 1, False), (60, 0, True)):
            try:
                fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
                say(b"+" if free else b"granted %d " % start)
            except OSError as error:
                assert error.errno in (errno.EAGAIN, errno.EACCES)
                say(b"-" if not free else b"refused %d " % start)
        # ends with its locks held
    _, wait = in_child(other)
    equal(wait(), b"+--+--+")
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_lock_wait():
    """a waiting fcntl lock is granted when the holder lets go; shared ones do not conflict"""
    write("lock", bytes(100))
    fd = os.open("lock", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX)

    def other(say):
        mine = os.open("lock", os.O_RDWR)
        say(b"?")
        fcntl.lockf(mine, fcntl.LOCK_EX)
        say(b"!")
    _, wait = in_child(other)
    equal(wait(1), b"?")
    time.sleep(0.3)
    fcntl.lockf(fd, fcntl.LOCK_UN)
    equal(wait(), b"!")
    fcntl.lockf(fd, fcntl.LOCK_SH)

    def reader(say):
        mine = os.open("lock", os.O_RDWR)
        fcntl.lockf(mine, fcntl.LOCK_SH | fcntl.LOCK_NB)
        say(b"shared")
    _, wait = in_child(reader)
    equal(wait(), b"shared")
    os.close(fd)


def test_getlk():
    """F_GETLK tells of the lock in the way"""
    write("lock", bytes(100))
    fd = os.open("lock", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 20, 5)

    def other(say):
        mine = os.open("lock", os.O_RDWR)
        say(fcntl.fcntl(mine, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)))
    _, wait = in_child(other)
    kind, whence, start, length, pid = struct.unpack("hhqqi4x", wait())
    equal((kind, whence, start, length), (fcntl.F_WRLCK, 0, 5, 20))
    if "pid" not in WITHOUT:
        equal(pid, os.getpid())
    os.close(fd)


def test_flock():
    """flock: exclusive and shared between processes, given back by close"""
    write("lock")
    fd = os.open("lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)

    def other(say):
        os.close(fd)  # the lock belongs to the open file, not to a process
        mine = os.open("lock", os.O_RDWR)
        fails(errno.EAGAIN, fcntl.flock, mine, fcntl.LOCK_SH | fcntl.LOCK_NB)
        say(b"?")
        fcntl.flock(mine, fcntl.LOCK_SH)
        say(b"!")
    _, wait = in_child(other)
    equal(wait(1), b"?")
    os.close(fd)
    equal(wait(), b"!")
