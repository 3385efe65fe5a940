#!/usr/bin/env python3
"""doors.py MOUNT ADDRESS: one volume, seen through a FUSE mount and through 9P at once. Prints TAP.

What one door has answered is seen by every later operation of the other, whatever the kernel
caches.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import stat
import struct
import sys
import threading
import time

from ninep_client import (Client, LOCK_BLOCKED, LOCK_SUCCESS, Tap, UNLCK, WRLCK)

ROUNDS = 50
CHURN_ROUNDS = 1000
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR = 0x80086601, 0x40086602, 0x801C581F
FS_IMMUTABLE_FL = 0x10


class Alarm(Exception):
    pass


class Doors:
    def __init__(self, mount, address):
        self.tap = Tap()
        self.address = address
        self.dir = os.path.join(mount, f"doors-{os.getpid()}")
        os.mkdir(self.dir)
        self.client = Client(address)
        self.top = self.client.walk(self.client.attach(), os.path.basename(self.dir))

    def path(self, name):
        return os.path.join(self.dir, name)

    def content(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def rounds(self, name, one_round, count=ROUNDS):
        """one_round(i) is true `count` times."""
        bad = [i for i in range(count) if not one_round(i)]
        self.tap.equal(bad, [], f"{name}, {count} times")

    # ---- what 9P changes, the mount shows ----

    def test_data(self):
        tap, client = self.tap, self.client
        tap.ok(not os.path.exists(self.path("new")), "a name that is not there")
        fid = client.create(self.top, "new")
        client.write(fid, b"first!")
        tap.ok(os.path.exists(self.path("new")), "is there when the other door has made it")
        tap.equal(self.content("new"), b"first!", "with its data")
        with open(self.path("new"), "rb", buffering=0) as file:
            def read_again(i):
                client.write(fid, b"%06d" % i)
                file.seek(0)
                return file.read() == b"%06d" % i
            self.rounds("written there, read here", read_again)
            mapped = mmap.mmap(file.fileno(), 6, prot=mmap.PROT_READ)

            def look_again(i):
                client.write(fid, b"%06d" % (i + 500))
                return mapped[:6] == b"%06d" % (i + 500)
            self.rounds("written there, mapped here", look_again)
            mapped.close()
        client.setattr(fid, mode=0o604, size=2)
        now = os.stat(self.path("new"))
        tap.equal((stat.S_IMODE(now.st_mode), now.st_size), (0o604, 2), "mode and size")
        tap.equal(len(self.content("new")), 2, "truncated")
        client.clunk(fid)

    def test_names(self):
        client, top = self.client, self.top

        def appears(i):
            client.clunk(client.create(top, f"n{i}"))
            return f"n{i}" in os.listdir(self.dir)

        def vanishes(i):
            client.unlinkat(top, f"n{i}")
            return f"n{i}" not in os.listdir(self.dir) and not os.path.exists(self.path(f"n{i}"))
        self.rounds("a listing shows what was made", appears)
        self.rounds("and not what was removed", vanishes)
        client.renameat(top, "new", top, "renamed")
        self.tap.ok(os.path.exists(self.path("renamed")) and not os.path.exists(self.path("new")),
                    "a rename")
        client.symlink(top, "link", "one")
        before = os.readlink(self.path("link"))
        client.unlinkat(top, "link")
        client.symlink(top, "link", "two")
        self.tap.equal((before, os.readlink(self.path("link"))), ("one", "two"),
                       "a symbolic link that was replaced")
        fid = client.walk(top, "renamed")
        client.setxattr(fid, "user.key", b"value")
        self.tap.equal(os.getxattr(self.path("renamed"), "user.key"), b"value", "an attribute")
        client.clunk(fid)

    def test_appends(self):
        ours = os.open(self.path("log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.write(ours, b"aaa")
        fid = self.client.open(self.top, "log", flags=os.O_RDWR)
        self.client.write(fid, b"bbb", 3)
        os.write(ours, b"ccc")
        self.tap.equal(self.content("log"), b"aaabbbccc", "appends of both doors")
        self.tap.equal(self.client.read_all(fid), b"aaabbbccc", "seen by both")
        os.close(ours)
        self.client.clunk(fid)

    def test_churn(self):
        """Names come and go through 9P while processes work in the same directory."""
        client = Client(self.address)
        top = client.walk(client.attach(), os.path.basename(self.dir))
        is_over = threading.Event()

        def work(who):
            for i in range(10**9):
                if is_over.is_set():
                    return
                with open(self.path(f"l{who}-{i % 5}"), "w", encoding="ascii") as file:
                    file.write(str(i))
                os.listdir(self.dir)
                os.rename(self.path(f"l{who}-{i % 5}"), self.path(f"m{who}-{i % 7}"))

        def one_round(i):
            fid = client.create(top, "churn")
            client.write(fid, b"%d" % i)
            client.clunk(fid)
            is_right = self.content("churn") == b"%d" % i
            client.unlinkat(top, "churn")
            return is_right and not os.path.exists(self.path("churn"))
        threads = [threading.Thread(target=work, args=(who,)) for who in range(3)]
        for thread in threads:
            thread.start()
        self.rounds("made, written and removed in a busy directory", one_round, CHURN_ROUNDS)
        is_over.set()
        for thread in threads:
            thread.join()
        client.close()

    # ---- locks ----

    def test_locks(self):
        tap, client = self.tap, self.client
        fid = client.create(self.top, "locked")
        ours = os.open(self.path("locked"), os.O_RDWR)
        fcntl.lockf(ours, fcntl.LOCK_EX)
        tap.equal(client.lock(fid, WRLCK), LOCK_BLOCKED, "a lock here is in the way there")
        fcntl.lockf(ours, fcntl.LOCK_UN)
        tap.equal(client.lock(fid, WRLCK), LOCK_SUCCESS, "until it is gone")
        tap.fails(errno.EAGAIN, fcntl.lockf, ours, fcntl.LOCK_EX | fcntl.LOCK_NB)

        def on_alarm(*_):
            raise Alarm
        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            fcntl.lockf(ours, fcntl.LOCK_EX)
            tap.ok(False, "a lock that waits is interrupted")
        except Alarm:
            tap.ok(True, "a lock that waits is interrupted")
        timer = threading.Timer(0.2, lambda: client.lock(fid, UNLCK))
        timer.start()
        fcntl.lockf(ours, fcntl.LOCK_EX)
        timer.join()
        tap.ok(True, "and granted")
        os.close(ours)
        tap.equal(client.lock(fid, WRLCK), LOCK_SUCCESS, "close() drops it")
        client.clunk(fid)

    def test_flock(self):
        path = self.path("locked")
        pid = os.fork()
        fd = os.open(path, os.O_RDWR)
        if pid == 0:
            fcntl.flock(fd, fcntl.LOCK_EX)
            time.sleep(0.4)
            os._exit(0)
        time.sleep(0.2)
        self.tap.fails(errno.EAGAIN, fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_EX)
        self.tap.equal(os.waitpid(pid, 0)[1], 0, "flock() waits for the other process")
        os.close(fd)

    # ---- the mount alone ----

    def test_unlinked(self):
        fd = os.open(self.dir, os.O_TMPFILE | os.O_RDWR, 0o600)
        os.write(fd, b"tmp")
        at_fdcwd, at_symlink_follow = -100, 0x400
        status = ctypes.CDLL(None).linkat(at_fdcwd, f"/proc/self/fd/{fd}".encode(), at_fdcwd,
                                          self.path("linked").encode(), at_symlink_follow)
        self.tap.equal((status, self.content("linked")), (0, b"tmp"), "O_TMPFILE, then a name")
        os.unlink(self.path("linked"))
        os.fchmod(fd, 0o640)
        os.ftruncate(fd, 1)
        os.setxattr(fd, "user.x", b"y")
        now = os.fstat(fd)
        self.tap.equal((stat.S_IMODE(now.st_mode), now.st_size, now.st_nlink, os.pread(fd, 9, 0),
                        os.getxattr(fd, "user.x")), (0o640, 1, 0, b"t", b"y"),
                       "an open file without a name")
        os.close(fd)

    def test_flags(self):
        with open(self.path("flags"), "w+b") as file:
            def get():
                return struct.unpack("i", fcntl.ioctl(file, FS_IOC_GETFLAGS, bytes(4)))[0]
            fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("i", FS_IMMUTABLE_FL))
            self.tap.equal(get() & FS_IMMUTABLE_FL, FS_IMMUTABLE_FL, "an immutable file")
            self.tap.fails(errno.EPERM, os.open, self.path("flags"), os.O_WRONLY)
            xflags = fcntl.ioctl(file, FS_IOC_FSGETXATTR, bytes(28))
            self.tap.equal(struct.unpack_from("I", xflags)[0], 8, "the same, as XFS calls it")
            fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("i", 0))
            self.tap.equal(get(), 0, "and changeable again")

    def test_sparse(self):
        holes = os.open(self.path("holes"), os.O_CREAT | os.O_RDWR)
        os.pwrite(holes, b"x" * 4096, 1 << 20)
        self.tap.equal((os.lseek(holes, 0, os.SEEK_DATA), os.lseek(holes, 1 << 20, os.SEEK_HOLE)),
                       (1 << 20, (1 << 20) + 4096), "data and holes")
        copy = os.open(self.path("copy"), os.O_CREAT | os.O_RDWR)
        length = (1 << 20) + 4096
        at = 0
        while at < length:
            at += os.copy_file_range(holes, copy, length - at, at, at)
        self.tap.equal(self.content("copy"), self.content("holes"), "copied by the server")
        os.close(copy)
        os.close(holes)

    def clean(self):
        self.client.remove_tree(self.client.attach(), os.path.basename(self.dir))
        self.tap.ok(not os.path.exists(self.dir), "everything is removed")

    def run(self):
        self.test_data()
        self.test_names()
        self.test_appends()
        self.test_locks()
        self.test_flock()
        self.test_unlinked()
        self.test_flags()
        self.test_sparse()
        self.test_churn()
        self.clean()
        print(f"1..{self.tap.count}")
        return self.tap.failed > 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(Doors(*sys.argv[1:]).run())
