#!/usr/bin/env python3
"""nfs_doors.py MOUNT 9P-ADDRESS NFS-PORT: one volume through a FUSE mount, 9P and NFS at once: what
one door has answered, every later operation of another sees. Prints TAP."""
import os
import stat
import sys
import threading

import ninep_client
from nfs_client import *     # pylint: disable=wildcard-import,unused-wildcard-import

ROUNDS = 50


class Doors:
    def __init__(self, mount, ninep, port):
        self.tap = Tap()
        self.dir = os.path.join(mount, f"nfs-doors-{os.getpid()}")
        os.mkdir(self.dir)
        self.nfs = Client(f"127.0.0.1:{port}")
        self.port = port
        self.root = self.nfs.mnt()
        self.top, _ = self.nfs.lookup(self.root, os.path.basename(self.dir))
        self.ninep = ninep_client.Client(ninep)
        self.ninep_top = self.ninep.walk(self.ninep.attach(), os.path.basename(self.dir))

    def path(self, name):
        return os.path.join(self.dir, name)

    def content(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def rounds(self, name, one_round, count=ROUNDS):
        self.tap.equal([i for i in range(count) if not one_round(i)], [], f"{name}, {count} times")

    def test_from_nfs(self):
        tap, nfs, ninep = self.tap, self.nfs, self.ninep
        tap.ok(not os.path.exists(self.path("new")), "a name that is not there")
        file, attr = nfs.create(self.top, "new")
        tap.equal(os.stat(self.path("new")).st_ino, attr.fileid, "is in the mount when NFS has made it")

        def read_there(i):
            nfs.write(file, b"%06d" % i)
            fid = ninep.open(self.ninep_top, "new")
            over_ninep = ninep.read_all(fid)
            ninep.clunk(fid)
            return self.content("new") == over_ninep == b"%06d" % i
        self.rounds("written through NFS, UNSTABLE, read in the mount and through 9P", read_there)
        nfs.setattr(file, mode=0o604, size=2, uid=5, gid=6, mtime=(1000, 5))
        now = os.stat(self.path("new"))
        tap.equal((stat.S_IMODE(now.st_mode), now.st_size, now.st_uid, now.st_gid, now.st_mtime_ns),
                  (0o604, 2, 5, 6, 1000 * 10**9 + 5), "attributes")

        def comes_and_goes(i):
            nfs.create(self.top, f"n{i}")
            is_there = f"n{i}" in os.listdir(self.dir) and os.path.exists(self.path(f"n{i}"))
            nfs.rename(self.top, f"n{i}", self.top, f"m{i}")
            is_moved = os.path.exists(self.path(f"m{i}")) and not os.path.exists(self.path(f"n{i}"))
            nfs.remove(self.top, f"m{i}")
            return is_there and is_moved and not os.path.exists(self.path(f"m{i}"))
        self.rounds("made, renamed and removed through NFS", comes_and_goes)
        nfs.symlink(self.top, "link", "one")
        before = os.readlink(self.path("link"))
        nfs.remove(self.top, "link")
        nfs.symlink(self.top, "link", "two")
        tap.equal((before, os.readlink(self.path("link"))), ("one", "two"), "a symbolic link replaced")

    def test_to_nfs(self):
        tap, nfs, ninep = self.tap, self.nfs, self.ninep
        with open(self.path("mine"), "wb", buffering=0) as file:
            handle, _ = nfs.lookup(self.top, "mine")

            def write_here(i):
                os.pwrite(file.fileno(), b"%06d" % i, 0)
                return nfs.read(handle) == b"%06d" % i
            self.rounds("written in the mount, read through NFS", write_here)
        os.chmod(self.path("mine"), 0o640)
        os.truncate(self.path("mine"), 3)
        os.utime(self.path("mine"), ns=(7, 9))
        attr = nfs.getattr(handle)
        tap.equal((attr.mode, attr.size, attr.atime, attr.mtime), (0o640, 3, (0, 7), (0, 9)), "attributes")
        fid = ninep.create(self.ninep_top, "over-9p")
        ninep.write(fid, b"9P")
        tap.equal(nfs.read(nfs.lookup(self.top, "over-9p")[0]), b"9P", "made and written through 9P")
        ninep.clunk(fid)
        os.rename(self.path("mine"), self.path("yours"))
        tap.equal(nfs.lookup(self.top, "yours")[0], handle, "a rename in the mount keeps the handle")
        tap.fails(NOENT, "and the old name is gone", nfs.lookup, self.top, "mine")
        kept = os.open(self.path("yours"), os.O_RDWR)
        nfs.remove(self.top, "yours")
        os.write(kept, b"on")
        tap.equal(nfs.read(handle, 0, 2), b"on", "removed, but open in the mount: the handle is good")
        os.close(kept)

        def is_stale():
            try:
                nfs.getattr(handle)
            except NfsError as err:
                return err.status == STALE
            return False
        for _ in range(200):
            if is_stale():
                break
            threading.Event().wait(0.05)
        tap.ok(is_stale(), "and stale when it is closed")

    def test_churn(self):
        """All three at work in one directory."""
        bad = []

        def over_nfs():
            client = Client(f"127.0.0.1:{self.port}")
            for i in range(100):
                file, _ = client.create(self.top, f"x{i}")
                client.write(file, b"%d" % i)
                if self.content(f"x{i}") != b"%d" % i:
                    bad.append(("nfs", i))
                client.remove(self.top, f"x{i}")
                if os.path.exists(self.path(f"x{i}")):
                    bad.append(("nfs removed", i))
            client.close()

        def over_mount():
            client = Client(f"127.0.0.1:{self.port}")
            for i in range(100):
                with open(self.path(f"y{i}"), "wb") as file:
                    file.write(b"%d" % i)
                if client.read(client.lookup(self.top, f"y{i}")[0]) != b"%d" % i:
                    bad.append(("mount", i))
                os.unlink(self.path(f"y{i}"))
            client.close()
        threads = [threading.Thread(target=work) for work in (over_nfs, over_mount)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.tap.equal(bad, [], "both at work in one directory")

    def run(self):
        for test in (self.test_from_nfs, self.test_to_nfs, self.test_churn):
            test()
        self.nfs.remove_tree(self.root, os.path.basename(self.dir))
        self.tap.ok(not os.path.exists(self.dir), "removed through NFS")
        return self.tap.done()


if __name__ == "__main__":
    sys.exit(Doors(sys.argv[1], sys.argv[2], int(sys.argv[3])).run())
