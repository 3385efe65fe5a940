#!/usr/bin/env python3
"""posix.py MOUNT PART...: what a mount alone owes to POSIX and Linux, by system calls. Prints TAP.

Parts: "before" leaves a file handle in MOUNT/handles, which "after" opens when the server was restarted; "unopened" finds none; "kernel" and
"server", locks that one or the other keeps; "relatime", "noatime" and "strictatime", as the server was told.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import re
import stat
import struct
import sys
import threading
import time

from ninep_client import Tap

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
F_OFD_GETLK, F_OFD_SETLK = 36, 37
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_NODUMP_FL = 0x40
HANDLE_BYTES_MAX = 128
DIRECT_ROUNDS = 300
DIRECT_BYTES = 1 << 18


def flock_struct(kind, start, length):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def file_handle(path):
    """What name_to_handle_at gives, as bytes."""
    buf = ctypes.create_string_buffer(struct.pack("Ii", HANDLE_BYTES_MAX, 0), 8 + HANDLE_BYTES_MAX)
    mount_id = ctypes.c_int()
    if LIBC.name_to_handle_at(AT_FDCWD, path.encode(), buf, ctypes.byref(mount_id), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    size, = struct.unpack_from("I", buf.raw)
    return buf.raw[:8 + size]


def open_handle(mount, handle, flags=os.O_RDONLY):
    where = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    buf = ctypes.create_string_buffer(handle, len(handle))
    fd = LIBC.open_by_handle_at(where, buf, flags)
    err = ctypes.get_errno()
    os.close(where)
    if fd < 0:
        raise OSError(err, "open_by_handle_at")
    return fd


def run_as(uid, gid, fn):
    """fn() in a process with these ids; its exit status, 0 if it returns."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            fn()
            os._exit(0)
        except BaseException as error:
            print(f"# {error}", file=sys.stderr)
            os._exit(1)
    return os.waitpid(pid, 0)[1]


class Posix:
    def __init__(self, mount):
        self.tap = Tap()
        self.mount = mount
        self.dir = os.path.join(mount, "posix")

    def path(self, name):
        return os.path.join(self.dir, name)

    def make(self, name, content=b""):
        with open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    # ---- locks of open file descriptions ----

    def ofd_lock(self, fd, kind, start=0, length=0):
        fcntl.fcntl(fd, F_OFD_SETLK, flock_struct(kind, start, length))

    def is_locked(self, fd):
        """By anybody else, for writing the whole of it."""
        got = fcntl.fcntl(fd, F_OFD_GETLK, flock_struct(fcntl.F_WRLCK, 0, 0))
        return struct.unpack_from("h", got)[0] != fcntl.F_UNLCK

    def is_freed(self, fd):
        """The kernel sends RELEASE in its own time."""
        for _ in range(200):
            if not self.is_locked(fd):
                return True
            time.sleep(0.02)
        return False

    def test_ofd_locks(self):
        tap = self.tap
        path = self.make("ofd")
        one, two = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
        self.ofd_lock(one, fcntl.F_WRLCK, 0, 10)
        self.ofd_lock(one, fcntl.F_WRLCK, 20, 10)
        self.ofd_lock(one, fcntl.F_UNLCK, 3, 2)
        tap.ok(self.is_locked(two), "an OFD lock is in the way")
        tap.fails(errno.EAGAIN, self.ofd_lock, two, fcntl.F_RDLCK, 25, 1)
        copy = os.dup(one)
        os.close(one)
        tap.ok(self.is_locked(two), "and stays while its description has another descriptor")
        os.close(copy)
        tap.ok(self.is_freed(two), "closing the last one drops it, with every piece of it")
        three = os.open(path, os.O_RDWR)
        self.ofd_lock(three, fcntl.F_WRLCK)
        pid = os.fork()
        if pid == 0:
            os.close(three)
            fcntl.fcntl(two, 38, flock_struct(fcntl.F_WRLCK, 0, 0))  # F_OFD_SETLKW
            os._exit(0)
        time.sleep(0.1)
        os.close(three)
        self.waits(pid, "who waits for it gets it")
        os.close(two)

    def waits(self, pid, name):
        """The process ends well within ten seconds."""
        for _ in range(500):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.tap.equal(status, 0, name)
                return
            time.sleep(0.02)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        self.tap.ok(False, name)

    def test_process_locks(self):
        """POSIX locks do not go with an open file, but with a process's close of any."""
        path = self.make("process")
        one, two, watch = (os.open(path, os.O_RDWR) for _ in range(3))
        fcntl.lockf(one, fcntl.LOCK_EX, 10)
        pid = os.fork()
        if pid == 0:
            # Closing an inherited descriptor drops nothing of the parent's.
            os.close(one)
            os.close(two)
            os._exit(0 if self.is_locked(watch) else 1)
        self.tap.equal(os.waitpid(pid, 0)[1], 0, "a child's close leaves its parent's lock")
        os.close(one)
        self.tap.ok(not self.is_locked(watch), "a close drops the process's locks")
        fcntl.lockf(two, fcntl.LOCK_EX, 10)
        time.sleep(0.2)  # the release of `one` has come by now
        self.tap.ok(self.is_locked(watch), "a late release of another file drops no newer lock")
        os.close(two)
        os.close(watch)

    def locks(self, is_listed):
        os.makedirs(self.dir, exist_ok=True)
        self.test_ofd_locks()
        self.test_process_locks()
        path = self.make("listed")
        inode = f":{os.stat(path).st_ino} "
        with open(path, "r+b") as file:
            for lock in (fcntl.flock, fcntl.lockf):
                lock(file, fcntl.LOCK_EX)
                with open("/proc/locks", encoding="ascii") as listed:
                    self.tap.equal(inode in listed.read(), is_listed, f"a {lock.__name__} in /proc/locks")
                lock(file, fcntl.LOCK_UN)

    def kernel(self):
        """The kernel keeps them, and lists them (as generic/504)."""
        self.locks(True)

    def server(self):
        """The server keeps them."""
        self.locks(False)

    # ---- access times ----

    def reads(self, name):
        """Which of three opens of a file with reads sets its access time; it is due at the first alone."""
        path = self.make(name, b"text")
        times = [os.stat(path).st_atime_ns]
        for _ in range(3):
            time.sleep(0.02)
            with open(path, "rb") as file:
                file.read()
            times.append(os.stat(path).st_atime_ns)
        return [after > before for before, after in zip(times, times[1:])]

    def relatime(self):
        self.tap.equal(self.reads("relatime"), [True, False, False], "relatime")

    def noatime(self):
        self.tap.equal(self.reads("noatime"), [False, False, False], "noatime")

    def strictatime(self):
        self.tap.equal(self.reads("strictatime"), [True, True, True], "strictatime")
        listed = []
        for _ in range(3):
            time.sleep(0.02)
            os.listdir(self.dir)
            listed.append(os.stat(self.dir).st_atime_ns)
        self.tap.ok(listed[0] < listed[1] < listed[2], "also of a directory")

    # ---- attributes ----

    def test_setgid(self):
        """As generic/375: setfacl by an owner who is not in the group."""
        path = self.make("setgid")
        os.chown(path, 1000, 2000)
        fd = os.open(path, os.O_RDONLY)
        for group, left in ((3000, 0), (2000, stat.S_ISGID)):
            os.chmod(path, 0o2755)
            acl = struct.pack("<I", 2) + b"".join(
                struct.pack("<HHI", tag, perm, who) for tag, perm, who in
                ((1, 7, 0xffffffff), (2, 4, 1234), (4, 5, 0xffffffff), (16, 5, 0xffffffff),
                 (32, 5, 0xffffffff)))
            status = run_as(1000, group,
                            lambda: os.setxattr(fd, "system.posix_acl_access", acl))
            self.tap.equal((status, os.stat(path).st_mode & stat.S_ISGID), (0, left),
                           f"setting an ACL as a member of group {group}")
        os.close(fd)
        # As generic/683: the owner, in the file's group or not, allocates.
        for group, left in ((3000, 0), (2000, stat.S_ISGID)):
            fd = os.open(path, os.O_RDWR)
            os.fchmod(fd, 0o6666)
            status = run_as(1000, group, lambda: os.posix_fallocate(fd, 0, 8192))
            self.tap.equal((status, os.stat(path).st_mode & 0o6000), (0, left),
                           f"fallocate as a member of group {group}")
            os.close(fd)

    def test_chattr(self):
        path = self.make("chattr")
        fd = os.open(path, os.O_RDWR)
        before = os.stat(path).st_ctime_ns
        time.sleep(0.02)
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("i", FS_NODUMP_FL))
        self.tap.ok(os.stat(path).st_ctime_ns > before, "chattr shows in ctime at once")
        os.close(fd)

    # ---- file handles ----

    def test_handles(self):
        path = self.make("handle", b"found")
        handle = file_handle(path)
        fd = open_handle(self.mount, handle)
        self.tap.equal(os.read(fd, 9), b"found", "a file is opened by its handle")
        os.unlink(path)
        self.tap.equal(os.pread(fd, 9, 0), b"found", "which keeps it when it is unlinked")
        os.close(fd)
        time.sleep(0.2)
        self.tap.fails(errno.ESTALE, open_handle, self.mount, handle)
        kept = self.make("kept", b"kept")
        os.mkdir(self.path("folder"))
        with open(os.path.join(self.dir, "handles"), "wb") as file:
            for what in (kept, self.path("folder"), self.dir, self.mount):
                file.write(file_handle(what).ljust(8 + HANDLE_BYTES_MAX, b"\0"))

    def unopened(self):
        """Where the kernel can't open handles well, it is told not to."""
        path = self.make("unopened", b"x")
        release = tuple(int(part) for part in re.match(r"(\d+)\.(\d+)", os.uname().release).groups())
        if release >= (6, 16):
            self.tap.fails(errno.EOPNOTSUPP, file_handle, path)
        else:
            os.close(open_handle(self.mount, file_handle(path)))
            self.tap.ok(True, "an older kernel opens them all the same")

    def after(self):
        with open(os.path.join(self.dir, "handles"), "rb") as file:
            handles = [file.read(8 + HANDLE_BYTES_MAX) for _ in range(4)]
        names = ("a file", "a directory", "its parent", "the root")
        for handle, name in zip(handles, names):
            size, = struct.unpack_from("I", handle)
            try:
                fd = open_handle(self.mount, handle[:8 + size])
            except OSError as error:
                self.tap.ok(False, f"{name} is opened by its handle after a restart: {error}")
                continue
            is_right = os.read(fd, 9) == b"kept" if name == "a file" else "." not in os.listdir(fd)
            self.tap.ok(is_right, f"{name} is opened by its handle after a restart")
            if name == "a directory":
                up = os.open("..", os.O_RDONLY, dir_fd=fd)
                self.tap.equal(os.fstat(up).st_ino, os.stat(self.dir).st_ino, "and .. leads out")
                os.close(up)
            os.close(fd)

    # ---- a working directory that is removed ----

    def stay(self, path, remove):
        """In `path` while remove() takes it away: what a process there sees of it and of what was above."""
        pid = os.fork()
        if pid != 0:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            os.chdir(path)
            remove()
            seen = os.stat(".").st_nlink == 0 and os.listdir(".") == []
            os.chmod(".", 0o700)
            seen &= os.stat(".").st_mode & 0o777 == 0o700 and not os.path.exists("new")
            try:
                os.mkdir("new")
            except FileNotFoundError:
                os.chdir("..")
                os.stat(".")
                os._exit(not seen)
        finally:
            os._exit(2)

    def test_removed_dir(self):
        outer, inner, other = self.path("outer"), self.path("outer/inner"), self.path("other")

        def remove():
            os.rmdir(inner)
            os.rmdir(outer)
        os.makedirs(inner)
        self.tap.equal(self.stay(inner, remove), 0, "who is in a directory that is removed, and its parent too, stays there")
        os.mkdir(outer)
        os.mkdir(other)
        self.tap.equal(self.stay(outer, lambda: os.rename(other, outer)), 0, "and who is in one that another replaces")
        os.rmdir(outer)

    # ---- data ----

    def test_direct(self):
        """Direct writes beside buffered and mapped reads."""
        path = self.make("direct", bytes(DIRECT_BYTES))
        direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        plain = os.open(path, os.O_RDWR)
        mapped = mmap.mmap(plain, DIRECT_BYTES)
        page = mmap.mmap(-1, DIRECT_BYTES)
        is_over = threading.Event()

        def read():
            while not is_over.is_set():
                os.pread(plain, DIRECT_BYTES, 0)
        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        bad = 0
        for i in range(DIRECT_ROUNDS):
            mark = struct.pack("I", i)
            page[:] = mark * (DIRECT_BYTES // 4)
            os.pwrite(direct, page, 0)
            bad += os.pread(plain, 8, 4096) != mark * 2 or mapped[8192:8200] != mark * 2
        is_over.set()
        for reader in readers:
            reader.join()
        self.tap.equal(bad, 0, "a direct write is seen by reads and mappings, 300 times")
        mapped[100:104] = b"mmap"
        self.tap.equal(os.preadv(direct, [page], 0), DIRECT_BYTES, "and a direct read")
        self.tap.equal(page[100:104], b"mmap", "sees what was stored in a mapping")
        shared = mmap.mmap(direct, 4096)
        shared[0:6] = b"direct"
        self.tap.equal(os.pread(plain, 6, 0), b"direct", "a file opened O_DIRECT can be mapped")
        shared.close()
        mapped.close()
        os.close(direct)
        os.close(plain)

    def before(self):
        os.mkdir(self.dir)
        os.chmod(self.dir, 0o777)
        self.test_ofd_locks()
        self.test_process_locks()
        if os.geteuid() == 0:
            self.test_setgid()
            self.test_handles()
        self.test_chattr()
        self.test_removed_dir()
        self.test_direct()


if __name__ == "__main__":
    if len(sys.argv) < 3 or not all(hasattr(Posix, name) for name in sys.argv[2:]):
        sys.exit(__doc__)
    POSIX = Posix(sys.argv[1])
    for part in sys.argv[2:]:
        getattr(POSIX, part)()
    print(f"1..{POSIX.tap.count}")
    sys.exit(POSIX.tap.failed > 0)
