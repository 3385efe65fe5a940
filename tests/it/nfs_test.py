#!/usr/bin/env python3
"""nfs_test.py HOST:PORT [PATH]: a running NFS server answers as RFC 1813 says. Prints TAP.

It makes a directory of its own below PATH (default "/"), and removes it at the end. It asks as
uid 0, which the export must not squash, from a privileged port if it may. NFS_CONNECTIONS: how many
connections it opens and drops.
"""
import os
import random
import socket
import struct
import sys
import threading
import time
import traceback

from nfs_client import *     # pylint: disable=wildcard-import,unused-wildcard-import


class SelfTest:
    def __init__(self, address, path):
        self.tap, self.address = Tap(), address
        self.client = Client(address)
        self.root = self.client.mnt(path)
        self.name = f"nfs-test-{os.getpid()}"
        self.top, _ = self.client.mkdir(self.root, self.name, mode=0o777)

    def user(self, uid=1000, gid=1000, gids=()):
        return Client(self.address, uid, gid, gids)

    # ---- RPC, MOUNT, portmapper ----

    def refused(self, name, want, *args, **options):
        try:
            self.client.rpc(*args, **options)
            got = "answered"
        except RpcError as err:
            got = err.args
        self.tap.equal(got, want, name)

    def test_rpc(self):
        tap, client = self.tap, self.client
        client.call(NULL).end()
        tap.ok(True, "NULL")
        self.refused("another program", ("accepted", 1), 100021, 4, 0)
        self.refused("NFS version 2", ("accepted", 2), NFS, 2, 0)
        self.refused("NFS version 4", ("accepted", 2), NFS, 4, 0)
        self.refused("procedure 22", ("accepted", 3), NFS, 3, 22)
        self.refused("arguments cut off", ("accepted", 4), NFS, 3, GETATTR, u32(32))
        self.refused("arguments with more behind them", ("accepted", 4), NFS, 3, GETATTR,
                     opaque(self.root) + u32(1))
        client.flavor = 6
        self.refused("RPCSEC_GSS", ("denied", 1, 5), NFS, 3, NULL)
        client.flavor = 1
        tap.equal(client.call(GETATTR, opaque(self.root), fragment=7).u32(), 0, "many fragments")
        client.rpc(MOUNT, 3, 0).end()
        tap.equal(client.mnt(), self.root, "MNT gives the same handle again")
        tap.equal(client.flavors, [1], "and AUTH_SYS")
        tap.equal(client.mnt(version=1), self.root, "MNT version 1 too")
        tap.fails(NOENT, "MNT of what is not there", client.mnt, "/no/such/dir")
        tap.equal(client.rpc(MOUNT, 3, 2).u32(), 0, "DUMP: no list is kept")
        client.rpc(MOUNT, 3, 3, opaque("/")).end()
        client.rpc(MOUNT, 3, 4).end()
        tap.ok(any(path == "/" for path, _ in client.exports()), "EXPORT lists the root")
        port = client.rpc(PORTMAP, 2, 3, u32(NFS, 3, 6, 0)).u32()
        tap.equal(port, client.port, "GETPORT of NFS")
        tap.equal(client.rpc(PORTMAP, 2, 3, u32(MOUNT, 3, 6, 0)).u32(), port, "of MOUNT")
        tap.equal(client.rpc(PORTMAP, 2, 3, u32(NFS, 3, 17, 0)).u32(), 0, "not over UDP")

    # ---- procedures ----

    def test_attr(self):
        tap, client = self.tap, self.client
        handle, attr = client.create(self.top, "attr", mode=0o640, uid=5, gid=6, size=7,
                                     mtime=(1000, 5))
        tap.equal((attr.type, attr.mode, attr.nlink, attr.uid, attr.gid, attr.size, attr.mtime),
                  (REG, 0o640, 1, 5, 6, 7, (1000, 5)), "CREATE sets all attributes")
        got = client.getattr(handle)
        tap.equal(vars(got), vars(attr), "GETATTR says the same")
        before, after = client.setattr(handle, mode=0o600, size=3, atime=(2000, 1), mtime="now")
        tap.ok(before is not None and before[0] == 7, "SETATTR tells the size before")
        tap.equal((after.mode, after.size, after.atime), (0o600, 3, (2000, 1)), "and all after")
        tap.ok(abs(after.mtime[0] - time.time()) < 10, "mtime by the server's clock")
        tap.fails(NOT_SYNC, "SETATTR with an old guard", client.setattr, handle, guard=(1, 1), mode=0)
        tap.equal(client.getattr(handle).mode, 0o600, "changes nothing")
        client.setattr(handle, guard=after.ctime, mode=0o444)
        tap.equal(client.getattr(handle).mode, 0o444, "with the right guard it does")
        tap.fails(INVAL, "nanoseconds over a second", client.setattr, handle, mtime=(1, 10**9))
        client.setattr(handle, mtime=(2**32 - 1, 0))
        tap.equal(client.getattr(handle).mtime[0], 2**32 - 1, "the last second of NFS")
        client.setattr(handle, size=1 << 40)
        tap.equal(client.getattr(handle).size, 1 << 40, "a terabyte, sparse")
        tap.ok(client.getattr(handle).used < 1 << 20, "takes no space")
        tap.fails(FBIG, "too large", client.setattr, handle, size=1 << 63)
        tap.fails(ISDIR, "the size of a directory", client.setattr, self.top, size=0)
        bad = [("a handle of 31 bytes", BADHANDLE, handle[:31]), ("an empty one", BADHANDLE, b""),
               ("one of another volume", STALE, bytes(16) + handle[16:]),
               ("another generation", STALE, handle[:31] + b"\7"),
               ("an inode that never was", STALE, handle[:16] + u64(1 << 50) + handle[24:])]
        for name, status, value in bad:
            tap.fails(status, name, client.getattr, value)
        client.remove(self.top, "attr")
        for name, function in [("GETATTR", client.getattr), ("READ", client.read),
                               ("COMMIT", client.commit), ("ACCESS", client.access),
                               ("FSSTAT", client.fsstat), ("FSINFO", client.fsinfo),
                               ("PATHCONF", client.pathconf), ("READLINK", client.readlink)]:
            tap.fails(STALE, f"{name} of a removed file", function, handle)
        tap.fails(STALE, "WRITE", client.write, handle, b"x")
        tap.fails(STALE, "SETATTR", client.setattr, handle, mode=0)

    def test_names(self):
        tap, client = self.tap, self.client
        dir_handle, attr = client.mkdir(self.top, "dir", mode=0o750)
        tap.equal((attr.type, attr.mode, attr.nlink), (DIR, 0o750, 2), "MKDIR")
        before, after = client.wcc
        tap.ok(before is not None and after.mtime > before[1], "tells its directory's times")
        tap.fails(EXIST, "again", client.mkdir, self.top, "dir")
        found, attr = client.lookup(self.top, "dir")
        tap.equal(found, dir_handle, "LOOKUP")
        tap.equal(client.lookup(dir_handle, "..")[0], self.top, "..")
        tap.equal(client.lookup(dir_handle, ".")[0], dir_handle, ".")
        tap.equal(client.lookup(self.root, "..")[0], self.root, ".. of the export's root")
        tap.fails(NOENT, "LOOKUP of nothing", client.lookup, self.top, "nothing")
        tap.fails(NAMETOOLONG, "a name of 256 bytes", client.lookup, self.top, "x" * 256)
        tap.fails(INVAL, "a name with a slash", client.create, self.top, "a/b")
        file, attr = client.create(dir_handle, "file")
        tap.fails(EXIST, "CREATE GUARDED again", client.create, dir_handle, "file")
        again, _ = client.create(dir_handle, "file", how=UNCHECKED)
        tap.equal(again, file, "UNCHECKED takes the file that is there")
        client.write(file, b"content")
        client.create(dir_handle, "file", how=UNCHECKED, size=0)
        tap.equal(client.getattr(file).size, 0, "and cuts it if told so")
        tap.fails(EXIST, "but no directory", client.create, self.top, "dir", how=UNCHECKED)
        tap.fails(NOTDIR, "LOOKUP in a file", client.lookup, file, "x")
        tap.fails(NOTDIR, "CREATE in a file", client.create, file, "x")
        link, attr = client.symlink(dir_handle, "link", "../some/where", uid=7)
        tap.equal((attr.type, attr.size, attr.uid), (LNK, 13, 7), "SYMLINK")
        tap.equal(client.readlink(link), b"../some/where", "READLINK")
        tap.fails(INVAL, "of a file", client.readlink, file)
        tap.fails(NAMETOOLONG, "a target of 5000 bytes", client.symlink, dir_handle, "long", "x" * 5000)
        for kind, rdev in ((CHR, (1, 3)), (BLK, (8, 1)), (FIFO, (0, 0)), (SOCK, (0, 0))):
            _, attr = client.mknod(dir_handle, f"node{kind}", kind, rdev, 0o604)
            tap.equal((attr.type, attr.rdev, attr.mode), (kind, rdev, 0o604), f"MKNOD {kind}")
        for kind in (REG, DIR, LNK):
            tap.fails(BADTYPE, f"MKNOD {kind}", client.mknod, dir_handle, "bad", kind)
        attr, (before, after) = client.link(file, dir_handle, "second")
        tap.equal(attr.nlink, 2, "LINK")
        tap.ok(before is not None and after is not None, "with its directory's attributes")
        tap.fails(EXIST, "again", client.link, file, dir_handle, "second")
        tap.fails(PERM, "LINK of a directory", client.link, dir_handle, self.top, "hard")
        from_wcc, to_wcc = client.rename(dir_handle, "second", self.top, "moved")
        tap.ok(from_wcc[0] is not None and to_wcc[0] is not None, "RENAME, with both directories")
        tap.equal(client.lookup(self.top, "moved")[0], file, "keeps the handle")
        tap.equal(client.getattr(file).nlink, 2, "which is good in both")
        tap.fails(NOENT, "RENAME of nothing", client.rename, dir_handle, "second", self.top, "x")
        tap.fails(INVAL, "a directory into itself", client.rename, self.top, "dir", dir_handle, "x")
        client.create(self.top, "other")
        client.rename(self.top, "other", self.top, "moved")
        tap.equal(client.getattr(file).nlink, 1, "replacing another name")
        tap.fails(NOTEMPTY, "RMDIR of a full one", client.rmdir, self.top, "dir")
        tap.fails(ISDIR, "REMOVE of a directory", client.remove, self.top, "dir")
        tap.fails(NOTDIR, "RMDIR of a file", client.rmdir, dir_handle, "file")
        tap.fails(NOENT, "REMOVE of nothing", client.remove, dir_handle, "nothing")
        before, after = client.remove(dir_handle, "file")
        tap.ok(before is not None and after is not None, "REMOVE")
        tap.fails(STALE, "and the handle is stale", client.getattr, file)
        client.remove_tree(self.top, "dir")
        client.remove(self.top, "moved")
        tap.fails(STALE, "RMDIR, likewise", client.names, dir_handle)
        tap.equal(client.pathconf(self.top)[1:], [255, 1, 1, 0, 1], "PATHCONF")
        info = client.fsinfo(self.top)
        tap.equal((info["rtmax"], info["wtmax"], info["maxfilesize"]), (1 << 20, 1 << 20, 1 << 61), "FSINFO")
        total, free, avail, *_ = client.fsstat(self.top)
        tap.ok(total >= free >= avail > 0, "FSSTAT")

    def test_data(self):
        tap, client = self.tap, self.client
        file, _ = client.create(self.top, "data")
        for stable in (UNSTABLE, DATA_SYNC, FILE_SYNC):
            count, committed, verifier = client.write(file, b"hello", stable * 5, stable)
            tap.equal((count, committed), (5, stable), f"WRITE {stable} says so")
            before, after = client.wcc
            tap.ok(before == (stable * 5, before[1], before[2]) and after.size == stable * 5 + 5,
                   "with the sizes before and after")
        tap.equal(client.commit(file), verifier, "COMMIT has the same verifier")
        tap.equal(client.read(file), b"hello" * 3, "READ")
        tap.ok(client.eof, "to the end")
        tap.equal((client.read(file, 5, 5), client.eof), (b"hello", 0), "a part")
        tap.equal((client.read(file, 100, 5), client.eof), (b"", 1), "behind the end")
        big = random.randbytes(1 << 20)
        tap.equal(client.write(file, big, 3)[0], 1 << 20, "a megabyte at once")
        tap.equal(client.read(file, 3) == big, True, "and back")
        tap.equal(len(client.read(file, 0, 1 << 22)), 1 << 20, "READ of more gives a megabyte")
        tap.equal(client.write(file, b"", 5)[0], 0, "WRITE of nothing")
        tap.fails(FBIG, "WRITE far behind", client.write, file, b"x", 1 << 62)
        tap.fails(ISDIR, "READ of a directory", client.read, self.top)
        tap.fails(ISDIR, "WRITE of one", client.write, self.top, b"x")
        try:
            client.call(WRITE, opaque(file) + u64(0) + u32(6, 0) + opaque(b"hello"))
            got = None
        except RpcError as err:
            got = err.args
        tap.equal(got, ("accepted", 4), "a WRITE whose count is not its length")
        # Many at once, and answers as they are ready.
        xids = [client.send(NFS, 3, WRITE, client.write_args(file, b"%07d\n" % i, 8 * i)) for i in range(500)]
        slow = client.send(NFS, 3, COMMIT, opaque(file) + u64(0) + u32(0))
        xids += [client.send(NFS, 3, GETATTR, opaque(file)) for i in range(100)]
        del client.order[:]
        tap.ok(all(client.wait(xid).u32() == 0 for xid in xids + [slow]), "600 requests in a row")
        tap.equal(client.read(file, 0, 4000), b"".join(b"%07d\n" % i for i in range(500)), "all done")
        tap.ok(client.order.index(slow) < len(client.order) - 1 or
               client.order != xids[:500] + [slow] + xids[500:], "answered out of order")
        client.remove(self.top, "data")

    def test_exclusive(self):
        tap, client = self.tap, self.client
        file, attr = client.create(self.top, "mine", EXCLUSIVE, b"verify-1")
        again, _ = client.create(self.top, "mine", EXCLUSIVE, b"verify-1")
        tap.equal(again, file, "EXCLUSIVE again, by the same client")
        tap.fails(EXIST, "and by another", client.create, self.top, "mine", EXCLUSIVE, b"verify-2")
        tap.fails(EXIST, "GUARDED", client.create, self.top, "mine", GUARDED)
        now = time.time()
        tap.ok(abs(attr.mtime[0] - now) < 10 and abs(attr.atime[0] - now) < 10 and attr.rdev == (0, 0),
               "the verifier does not show in the attributes")
        client.setattr(file, mode=0o640)
        tap.fails(EXIST, "over when attributes are set", client.create, self.top, "mine", EXCLUSIVE, b"verify-1")
        client.remove(self.top, "mine")

    def test_repeated(self):
        """The same xid and request again: the same answer, not what doing it twice would say."""
        tap, client, top = self.tap, self.client, self.top
        file, _ = client.create(top, "repeat")
        other = Client(self.address)     # as after a reconnection
        calls = [("CREATE", lambda c, x: c.create(top, "r1", xid=x)[0]),
                 ("MKDIR", lambda c, x: c.mkdir(top, "r2", xid=x)[0]),
                 ("SYMLINK", lambda c, x: c.symlink(top, "r3", "t", xid=x)[0]),
                 ("LINK", lambda c, x: c.link(file, top, "r4", xid=x)[0].nlink),
                 ("RENAME", lambda c, x: c.rename(top, "r4", top, "r5", xid=x) and 1),
                 ("REMOVE", lambda c, x: c.remove(top, "r5", xid=x) and 1),
                 ("RMDIR", lambda c, x: c.rmdir(top, "r2", xid=x) and 1)]
        for i, (name, function) in enumerate(calls):
            xid = random.getrandbits(32)
            first = function(client, xid)
            tap.equal(function(client, xid), first, f"{name} repeated")
            tap.equal(function(other, xid), first, "and over another connection")
        tap.fails(EXIST, "another xid is another request", client.create, top, "r1")
        tap.fails(NOENT, "likewise", client.remove, top, "r5")
        xid = random.getrandbits(32)
        tap.fails(EXIST, "an error", client.create, top, "r1", xid=xid)
        client.remove(top, "r1")
        tap.fails(EXIST, "is repeated too", client.create, top, "r1", xid=xid)
        # The repetition comes while the first is under way: both are answered, once done.
        args = opaque(top) + opaque("once") + u32(GUARDED) + sattr(mode=0o644)
        xid = client.send(NFS, 3, CREATE, args)
        other.send(NFS, 3, CREATE, args, xid=xid)
        tap.equal((client.wait(xid).u32(), other.wait(xid).u32()), (0, 0), "both at once")
        count, _, _ = client.write(file, b"new", xid=7)
        client.write(file, b"newer", xid=8)
        client.write(file, b"new", xid=7)
        tap.equal(client.read(file), b"newer", "a WRITE that is repeated late undoes nothing")
        other.close()
        for name in ("repeat", "r3", "once"):
            client.remove(top, name)

    def test_directory(self):
        tap, client = self.tap, self.client
        count = 10000
        handle, _ = client.mkdir(self.top, "many")
        xids = [client.send(NFS, 3, CREATE, opaque(handle) + opaque(f"file-{i:05}") + u32(UNCHECKED) +
                            sattr(mode=0o600)) for i in range(count)]
        tap.ok(all(client.wait(xid).u32() == 0 for xid in xids), f"{count} files made")
        wanted = [f"file-{i:05}" for i in range(count)]
        tap.equal(client.names(handle, count=32768) == wanted, True, "READDIR lists each once")
        entries = client.readdir(handle, plus=True, count=65536)
        tap.equal(sorted(e[0] for e in entries[2:]) == wanted, True, "READDIRPLUS too")
        tap.ok(all(e[3] and e[4] and e[3].fileid == e[1] for e in entries), "with attributes and handles")
        tap.equal([e[0] for e in entries[:2]], [".", ".."], "the dots first")
        for size in (512, 1000, 4096, 100000):
            page, _, _ = client.readdir_page(handle, count=size)
            tap.ok(client.page_bytes <= size and len(page) > 2, f"a page keeps to {size} bytes")
            page, _, _ = client.readdir_page(handle, count=size, plus=True, dircount=400)
            tap.ok(client.page_bytes <= size and len(page) > 0, "with attributes as well")
        tap.fails(TOOSMALL, "100 bytes are too few", client.readdir_page, handle, count=100)
        page, verifier, _ = client.readdir_page(handle)
        tap.fails(BAD_COOKIE, "another verifier", client.readdir_page, handle, page[-1][2], b"\1" * 8)
        # Entries come and go between the pages: those that stay are listed exactly once.
        seen, cookie, eof, step = [], 0, False, 0
        while not eof:
            page, verifier, eof = client.readdir_page(handle, cookie, verifier, count=20000)
            seen += [e[0] for e in page]
            cookie = page[-1][2] if page else cookie
            for i in range(step * 100, step * 100 + 20):
                if i < count // 2:
                    client.remove(handle, f"file-{i:05}")
                if i % 10 == 0:
                    client.create(handle, f"new-{step}-{i}")
            step += 1
        tap.equal(len(seen), len(set(seen)), "changes between pages: nothing twice")
        gone = {f"file-{i:05}" for s in range(step) for i in range(s * 100, s * 100 + 20) if i < count // 2}
        tap.ok(set(wanted) - gone <= set(seen), "and nothing left out that stays")
        tap.fails(NOTDIR, "READDIR of a file", client.readdir, client.lookup(handle, "file-09999")[0])
        client.remove_tree(self.top, "many")

    # ---- who may ----

    def test_rights(self):
        tap, client = self.tap, self.client
        user, member, other = self.user(), self.user(1001, 1001, (50, 1000)), self.user(1002, 1002)
        file, _ = client.create(self.top, "rights", mode=0o640, uid=1000, gid=1000)
        client.write(file, b"secret")
        tap.equal(user.access(file), 0x0d, "ACCESS of the owner: read, modify, extend")
        tap.equal(member.access(file), 0x01, "of a member of the group, by a further group")
        tap.equal(other.access(file), 0, "of others")
        tap.equal(client.access(file), 0x0d, "of root: not to execute")
        tap.equal(user.access(self.top), 0x1f, "of a directory")
        tap.equal(member.read(file), b"secret", "a member reads")
        tap.fails(ACCES, "others don't", other.read, file)
        tap.fails(ACCES, "nor write", other.write, file, b"x")
        tap.fails(ACCES, "a member doesn't write", member.write, file, b"x")
        client.setattr(file, mode=0)
        tap.equal(user.read(file), b"secret", "the owner reads what he may not (it may be open)")
        tap.equal(user.write(file, b"S")[0], 1, "and writes")
        user.setattr(file, size=4)
        tap.equal(user.access(file), 0, "though ACCESS says no")
        client.setattr(file, mode=0o711)
        tap.equal(other.read(file), b"Secr", "what may be executed may be read")
        tap.fails(PERM, "chmod by others", other.setattr, file, mode=0o777)
        tap.fails(PERM, "chown by the owner", user.setattr, file, uid=1001)
        client.setattr(file, mode=0o6755)
        user.write(file, b"x")
        tap.equal(client.getattr(file).mode & 0o6000, 0, "a write takes setuid away")
        closed, _ = client.mkdir(self.top, "closed", mode=0o700)
        tap.fails(ACCES, "LOOKUP in a closed directory", user.lookup, closed, "x")
        tap.fails(ACCES, "CREATE in it", user.create, closed, "x")
        tap.fails(ACCES, "READDIR of it", user.readdir, closed)
        sticky, _ = client.mkdir(self.top, "sticky", mode=0o1777)
        user.create(sticky, "his")
        tap.fails(PERM, "a sticky directory", other.remove, sticky, "his")
        tap.fails(PERM, "MKNOD of a device by a user", user.mknod, self.top, "dev", CHR, (1, 3))
        nobody = Client(self.address, flavor=0)
        _, attr = nobody.create(self.top, "nobody")
        tap.equal((attr.uid, attr.gid), (65534, 65534), "AUTH_NONE is nobody")
        for name in ("rights", "nobody"):
            client.remove(self.top, name)
        for name in ("closed", "sticky"):
            client.remove_tree(self.top, name)
        for each in (user, member, other, nobody):
            each.close()

    # ---- wrong input ----

    def closes(self, data, name):
        raw = socket.create_connection((self.client.host or "127.0.0.1", self.client.port), timeout=20)
        try:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            got = raw.recv(100)
        except ConnectionError:
            got = b""
        raw.close()
        self.tap.equal(got, b"", name)

    def test_hostile(self):
        tap, client = self.tap, self.client
        self.closes(b"GET / HTTP/1.1\r\n\r\n", "HTTP is closed")
        self.closes(u32(0x80000000), "an empty record is closed")
        self.closes(u32(0xffffffff) + bytes(1000), "a record of 2 GiB")
        self.closes(u32(0x80000008) + u32(1, 1), "a reply")
        self.closes((u32(4) + u32(0)) * 5000, "fragments without end")
        self.closes(u32(0) * 6000, "empty ones")
        rng = random.Random(1)
        for _ in range(200):
            raw = socket.create_connection((client.host or "127.0.0.1", client.port), timeout=20)
            body = rng.randbytes(rng.randrange(200))
            if rng.randrange(2):
                body = u32(rng.getrandbits(32), 0, 2, rng.choice((NFS, MOUNT)), 3, rng.randrange(24), 0, 0, 0, 0) + body
            try:
                raw.sendall(u32(len(body) | 0x80000000) + body)
            except ConnectionError:
                pass
            raw.close()
        # Records announced and not sent: they take no memory, and nobody waits for them.
        slow = []
        for _ in range(100):
            raw = socket.create_connection((client.host or "127.0.0.1", client.port), timeout=20)
            raw.sendall(u32(0x80100000) + bytes(100))
            slow.append(raw)
        begin = time.monotonic()
        for _ in range(100):
            client.getattr(self.top)
        tap.ok(time.monotonic() - begin < 20, "others go on beside a hundred that stall")
        for raw in slow:
            raw.close()
        for _ in range(int(os.environ.get("NFS_CONNECTIONS", "2000"))):
            raw = socket.create_connection((client.host or "127.0.0.1", client.port), timeout=20)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        tap.ok(client.getattr(self.top).type == DIR, "connections opened and dropped in turn")

    def test_threads(self):
        """Several clients in one directory at once."""
        tap, bad = self.tap, []

        def work(who):
            client = Client(self.address)
            try:
                for i in range(60):
                    handle, _ = client.create(self.top, f"t{who}-{i}")
                    client.write(handle, b"%d" % i, stable=FILE_SYNC if i % 10 == 0 else UNSTABLE)
                    client.rename(self.top, f"t{who}-{i}", self.top, f"u{who}-{i}")
                    if client.read(client.lookup(self.top, f"u{who}-{i}")[0]) != b"%d" % i:
                        bad.append((who, i))
                    client.remove(self.top, f"u{who}-{i}")
            except Exception as err:     # pylint: disable=broad-except
                bad.append(err)
            client.close()
        threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tap.equal(bad, [], "four clients at work in one directory")
        tap.equal(self.client.names(self.top), [], "which is empty in the end")

    def run(self):
        for name in ("rpc", "attr", "names", "data", "exclusive", "repeated", "directory", "rights",
                     "hostile", "threads"):
            begin = time.monotonic()
            try:
                getattr(self, f"test_{name}")()
            except (NfsError, RpcError, OSError, ValueError) as err:
                self.tap.ok(False, f"test_{name}", repr(err))
                traceback.print_exc()
            print(f"# {name}: {time.monotonic() - begin:.1f} s")
        self.client.remove_tree(self.root, self.name)
        return self.tap.done()


if __name__ == "__main__":
    sys.exit(SelfTest(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "/").run())
