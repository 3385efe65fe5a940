#!/usr/bin/env python3
"""A 9P2000.L client: a library for tests, and a self-test of a running server.

    ninep_client.py ADDRESS [ANAME]     prints TAP; ADDRESS is HOST:PORT, PORT or unix:PATH

The self-test makes a directory of its own below ANAME (default "/"), and removes it at the end. It
attaches as uid 0, which the server must permit.
"""
import errno
import os
import random
import select
import socket
import stat
import struct
import sys

NOTAG, NOFID, NONUNAME = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
RDLCK, WRLCK, UNLCK = 0, 1, 2
LOCK_SUCCESS, LOCK_BLOCKED = 0, 1
O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY = 0o100, 0o200, 0o1000, 0o2000, 0o200000
AT_REMOVEDIR = 0x200
XATTR_CREATE, XATTR_REPLACE = 1, 2

TYPES = dict(lerror=6, statfs=8, lopen=12, lcreate=14, symlink=16, mknod=18, rename=20, readlink=22,
             getattr=24, setattr=26, xattrwalk=30, xattrcreate=32, readdir=40, fsync=50, lock=52,
             getlock=54, link=70, mkdir=72, renameat=74, unlinkat=76, version=100, auth=102,
             attach=104, flush=108, walk=110, read=116, write=118, clunk=120, remove=122)


def string(text):
    data = text if isinstance(text, bytes) else os.fsencode(text)
    return struct.pack("<H", len(data)) + data


def take_string(body, at):
    (length,) = struct.unpack_from("<H", body, at)
    return body[at + 2:at + 2 + length], at + 2 + length


class Qid:
    SIZE = 13

    def __init__(self, body, at=0):
        self.type, self.version, self.path = struct.unpack_from("<BIQ", body, at)

    @property
    def is_dir(self):
        return bool(self.type & 0x80)


class Attr:
    def __init__(self, body):
        (self.valid,) = struct.unpack_from("<Q", body)
        self.qid = Qid(body, 8)
        fields = struct.unpack_from("<III" + "Q" * 15, body, 21)
        (self.mode, self.uid, self.gid, self.nlink, self.rdev, self.size, self.blksize, self.blocks,
         a, an, m, mn, c, cn, b, bn, self.gen, self.data_version) = fields
        self.atime_ns, self.mtime_ns = a * 10**9 + an, m * 10**9 + mn
        self.ctime_ns, self.btime_ns = c * 10**9 + cn, b * 10**9 + bn


class Client:
    """One connection. call() sends and waits; send() and wait() are for pipelining. A server's
    Rlerror is raised as OSError."""

    def __init__(self, address, msize=1 << 20, timeout=60):
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address[5:])
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)),
                                                   timeout=timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.replies = {}
        self.order = []     # tags, in the order in which their replies came
        self.next_tag = 0
        self.next_fid = 0
        self.free_fids = []
        self.msize = msize
        if msize:
            self.version(msize)

    def close(self):
        self.socket.close()

    # ---- messages ----

    def send_raw(self, data):
        """Sends all of it, and takes replies meanwhile: a server with many of them stops reading."""
        while data:
            readable, writable, _ = select.select([self.socket], [self.socket], [], 60)
            if readable:
                self.fill()
            if writable:
                data = data[self.socket.send(data, socket.MSG_DONTWAIT):]
            if not readable and not writable:
                raise TimeoutError("the server takes nothing")

    def fill(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("closed by the server")
        self.buffer += data

    def tag(self):
        self.next_tag = (self.next_tag + 1) % NOTAG
        return self.next_tag

    def message(self, name, body, tag):
        return struct.pack("<IBH", 7 + len(body), TYPES[name], tag) + body

    def send(self, name, body=b"", tag=None):
        tag = self.tag() if tag is None else tag
        self.send_raw(self.message(name, body, tag))
        return tag

    def receive(self):
        """The next reply, whichever it is: (type, tag, body)."""
        while len(self.buffer) < 4 or len(self.buffer) < struct.unpack_from("<I", self.buffer)[0]:
            self.fill()
        (size,) = struct.unpack_from("<I", self.buffer)
        message, self.buffer = self.buffer[:size], self.buffer[size:]
        _, kind, tag = struct.unpack_from("<IBH", message)
        self.order.append(tag)
        return kind, tag, message[7:]

    def wait(self, tag):
        """The body of the reply with this tag."""
        while tag not in self.replies:
            kind, got_tag, body = self.receive()
            self.replies[got_tag] = (kind, body)
        kind, body = self.replies.pop(tag)
        if kind == TYPES["lerror"] + 1:
            (code,) = struct.unpack("<I", body)
            raise OSError(code, os.strerror(code))
        return body

    def call(self, name, body=b""):
        return self.wait(self.send(name, body))

    # ---- fids ----

    def new_fid(self):
        if self.free_fids:
            return self.free_fids.pop()
        self.next_fid += 1
        return self.next_fid

    def version(self, msize, version="9P2000.L"):
        tag = self.send("version", struct.pack("<I", msize) + string(version), NOTAG)
        body = self.wait(tag)
        (self.msize,) = struct.unpack_from("<I", body)
        self.version_text, _ = take_string(body, 4)
        return self.version_text

    def attach(self, aname="/", uid=0, uname="root", fid=None, afid=NOFID):
        fid = self.new_fid() if fid is None else fid
        self.call("attach", struct.pack("<II", fid, afid) + string(uname) + string(aname) +
                  struct.pack("<I", uid))
        return fid

    def walk_qids(self, fid, newfid, names):
        body = self.call("walk", struct.pack("<IIH", fid, newfid, len(names)) +
                         b"".join(string(n) for n in names))
        (count,) = struct.unpack_from("<H", body)
        return [Qid(body, 2 + i * Qid.SIZE) for i in range(count)]

    def walk(self, fid, *names):
        newfid = self.new_fid()
        try:
            qids = self.walk_qids(fid, newfid, names)
        except OSError:
            self.free_fids.append(newfid)
            raise
        if len(qids) < len(names):
            self.free_fids.append(newfid)
            raise OSError(errno.ENOENT, "walked only to " + repr(names[:len(qids)]))
        return newfid

    def clunk(self, fid):
        try:
            self.call("clunk", struct.pack("<I", fid))
        finally:
            self.free_fids.append(fid)

    def remove(self, fid):
        try:
            self.call("remove", struct.pack("<I", fid))
        finally:
            self.free_fids.append(fid)

    # ---- files ----

    def lopen(self, fid, flags=0):
        body = self.call("lopen", struct.pack("<II", fid, flags))
        return Qid(body), struct.unpack_from("<I", body, Qid.SIZE)[0]

    def lcreate(self, fid, name, flags=os.O_RDWR, mode=0o644, gid=0):
        body = self.call("lcreate", struct.pack("<I", fid) + string(name) +
                         struct.pack("<III", flags, mode, gid))
        return Qid(body), struct.unpack_from("<I", body, Qid.SIZE)[0]

    def create(self, dir_fid, name, flags=os.O_RDWR, mode=0o644, gid=0):
        """A fid, opened, of a new file in a directory."""
        fid = self.walk(dir_fid)
        try:
            self.lcreate(fid, name, flags, mode, gid)
        except OSError:
            self.clunk(fid)
            raise
        return fid

    def open(self, dir_fid, *names, flags=0):
        fid = self.walk(dir_fid, *names)
        try:
            self.lopen(fid, flags)
        except OSError:
            self.clunk(fid)
            raise
        return fid

    def read(self, fid, count, offset=0):
        body = self.call("read", struct.pack("<IQI", fid, offset, count))
        (length,) = struct.unpack_from("<I", body)
        assert length == len(body) - 4
        return body[4:]

    def read_all(self, fid):
        data = b""
        while True:
            part = self.read(fid, self.msize - 24, len(data))
            if not part:
                return data
            data += part

    def write(self, fid, data, offset=0):
        body = self.call("write", struct.pack("<IQI", fid, offset, len(data)) + data)
        return struct.unpack("<I", body)[0]

    def write_all(self, fid, data, offset=0):
        at = 0
        while at < len(data):
            at += self.write(fid, data[at:at + self.msize - 24], offset + at)

    def fsync(self, fid, datasync=0):
        self.call("fsync", struct.pack("<II", fid, datasync))

    def getattr(self, fid, mask=0x3FFF):
        return Attr(self.call("getattr", struct.pack("<IQ", fid, mask)))

    def setattr(self, fid, mode=None, uid=None, gid=None, size=None, atime_ns=None, mtime_ns=None):
        """atime_ns and mtime_ns: nanoseconds, or "now"."""
        valid = 0
        for value, bit in ((mode, 1), (uid, 2), (gid, 4), (size, 8), (atime_ns, 0x10),
                           (mtime_ns, 0x20)):
            valid |= bit if value is not None else 0
        valid |= 0x80 if isinstance(atime_ns, int) else 0
        valid |= 0x100 if isinstance(mtime_ns, int) else 0
        times = [t if isinstance(t, int) else 0 for t in (atime_ns, mtime_ns)]
        self.call("setattr", struct.pack("<IIIIIQ", fid, valid, mode or 0, uid or 0, gid or 0,
                                         size or 0) +
                  b"".join(struct.pack("<QQ", t // 10**9, t % 10**9) for t in times))

    def readdir_at(self, fid, offset, count):
        body = self.call("readdir", struct.pack("<IQI", fid, offset, count))
        (length,) = struct.unpack_from("<I", body)
        entries, at = [], 4
        while at < 4 + length:
            qid = Qid(body, at)
            cookie, kind = struct.unpack_from("<QB", body, at + Qid.SIZE)
            name, at = take_string(body, at + Qid.SIZE + 9)
            entries.append((os.fsdecode(name), qid, cookie, kind))
        return entries

    def readdir(self, fid, count=8192):
        """All entries of an opened directory but "." and ".."."""
        entries, offset = [], 0
        while True:
            part = self.readdir_at(fid, offset, count)
            if not part:
                return [e for e in entries if e[0] not in (".", "..")]
            entries += part
            offset = part[-1][2]

    def names(self, dir_fid):
        fid = self.open(dir_fid, flags=O_DIRECTORY)
        try:
            return sorted(e[0] for e in self.readdir(fid))
        finally:
            self.clunk(fid)

    # ---- names ----

    def mkdir(self, fid, name, mode=0o755, gid=0):
        return Qid(self.call("mkdir", struct.pack("<I", fid) + string(name) +
                             struct.pack("<II", mode, gid)))

    def symlink(self, fid, name, target, gid=0):
        return Qid(self.call("symlink", struct.pack("<I", fid) + string(name) + string(target) +
                             struct.pack("<I", gid)))

    def mknod(self, fid, name, mode, major=0, minor=0, gid=0):
        return Qid(self.call("mknod", struct.pack("<I", fid) + string(name) +
                             struct.pack("<IIII", mode, major, minor, gid)))

    def readlink(self, fid):
        return os.fsdecode(take_string(self.call("readlink", struct.pack("<I", fid)), 0)[0])

    def link(self, dir_fid, fid, name):
        self.call("link", struct.pack("<II", dir_fid, fid) + string(name))

    def rename(self, fid, dir_fid, name):
        self.call("rename", struct.pack("<II", fid, dir_fid) + string(name))

    def renameat(self, from_fid, name, to_fid, new_name):
        self.call("renameat", struct.pack("<I", from_fid) + string(name) +
                  struct.pack("<I", to_fid) + string(new_name))

    def unlinkat(self, fid, name, flags=0):
        self.call("unlinkat", struct.pack("<I", fid) + string(name) + struct.pack("<I", flags))

    def statfs(self, fid):
        return struct.unpack("<IIQQQQQQI", self.call("statfs", struct.pack("<I", fid)))

    # ---- extended attributes ----

    def getxattr(self, fid, name=""):
        """The value; without a name, the list of names."""
        newfid = self.new_fid()
        try:
            body = self.call("xattrwalk", struct.pack("<II", fid, newfid) + string(name))
        except OSError:
            self.free_fids.append(newfid)
            raise
        (size,) = struct.unpack("<Q", body)
        value = self.read_all(newfid)
        self.clunk(newfid)
        assert len(value) == size
        return value

    def listxattr(self, fid):
        return sorted(os.fsdecode(n) for n in self.getxattr(fid).split(b"\0") if n)

    def setxattr(self, fid, name, value, flags=0):
        copy = self.walk(fid)
        try:
            self.call("xattrcreate", struct.pack("<I", copy) + string(name) +
                      struct.pack("<QI", len(value), flags))
            if value:
                self.write_all(copy, value)
        except OSError:
            self.clunk(copy)
            raise
        self.clunk(copy)

    # ---- locks ----

    def lock(self, fid, kind, start=0, length=0, proc_id=1, client_id="client", flags=0):
        body = self.call("lock", struct.pack("<IBIQQI", fid, kind, flags, start, length, proc_id) +
                         string(client_id))
        return body[0]

    def getlock(self, fid, kind, start=0, length=0, proc_id=1, client_id="client"):
        body = self.call("getlock", struct.pack("<IBQQI", fid, kind, start, length, proc_id) +
                         string(client_id))
        return struct.unpack_from("<BQQI", body)

    def flush(self, tag):
        self.call("flush", struct.pack("<H", tag))

    def remove_tree(self, dir_fid, name):
        fid = self.walk(dir_fid, name)
        if self.getattr(fid).qid.is_dir:
            for entry in self.names(fid):
                self.remove_tree(fid, entry)
        self.clunk(fid)
        is_dir = stat.S_ISDIR(self.attr_of(dir_fid, name).mode)
        self.unlinkat(dir_fid, name, AT_REMOVEDIR if is_dir else 0)

    def attr_of(self, dir_fid, *names):
        fid = self.walk(dir_fid, *names)
        try:
            return self.getattr(fid)
        finally:
            self.clunk(fid)


# ---- the self-test ----

class Tap:
    def __init__(self):
        self.count = self.failed = 0

    def ok(self, passed, name):
        self.count += 1
        self.failed += not passed
        print(f"{'ok' if passed else 'not ok'} {self.count} - {name}", flush=True)

    def equal(self, got, want, name):
        self.ok(got == want, name)
        if got != want:
            print(f"#   got {got!r:.200}\n#   want {want!r:.200}")

    def fails(self, code, function, *args, **kwargs):
        name = f"{function.__name__} fails with {errno.errorcode[code]}"
        try:
            function(*args, **kwargs)
            self.ok(False, name + ": it did not fail")
        except OSError as error:
            self.equal(errno.errorcode.get(error.errno), errno.errorcode[code], name)


def test_version(tap, address):
    client = Client(address, msize=0)
    tap.equal(client.version(8192, "9P2000.u"), b"unknown", "another dialect is unknown")
    tap.equal(client.version(1 << 30), b"9P2000.L", "the version")
    tap.ok(65536 <= client.msize <= (1 << 20) + 24, "an msize that is not too large")
    tap.equal(client.version(16384), b"9P2000.L", "once more")
    tap.equal(client.msize, 16384, "with a smaller msize")
    client.close()


def test_files(tap, client, top):
    fid = client.create(top, "file", mode=0o640)
    data = random.Random(1).randbytes(3 * 1000 * 1000)
    client.write_all(fid, data)
    client.fsync(fid)
    tap.ok(client.read_all(fid) == data, "three megabytes there and back")
    tap.equal(client.read(fid, 10, len(data)), b"", "nothing behind the end")
    attr = client.getattr(fid)
    tap.equal((attr.size, attr.mode, attr.nlink), (len(data), 0o100640, 1), "its attributes")
    client.setattr(fid, size=5)
    tap.equal(client.read_all(fid), data[:5], "truncated")
    client.write(fid, b"x", 10)
    tap.equal(client.read_all(fid), data[:5] + b"\0" * 5 + b"x", "with a hole")
    client.setattr(fid, mtime_ns=1234567890123456789, atime_ns="now", mode=0o600, uid=7, gid=8)
    attr = client.getattr(fid)
    tap.equal((attr.mtime_ns, attr.mode, attr.uid, attr.gid),
              (1234567890123456789, 0o100600, 7, 8), "changed attributes")
    client.clunk(fid)
    tap.fails(errno.EBADF, client.getattr, fid)
    tap.fails(errno.EEXIST, client.create, top, "file", flags=os.O_RDWR | O_EXCL)
    fid = client.open(top, "file", flags=os.O_RDWR | O_TRUNC)
    tap.equal(client.read_all(fid), b"", "opened with O_TRUNC")
    tap.fails(errno.EBUSY, client.lopen, fid)
    client.unlinkat(top, "file")
    tap.equal(client.write(fid, b"still", 0), 5, "an unlinked file is written")
    tap.equal(client.read_all(fid), b"still", "and read")
    tap.equal(client.getattr(fid).nlink, 0, "and has no links")
    client.clunk(fid)
    read_only = client.open(top, "..", flags=O_DIRECTORY)
    tap.fails(errno.EISDIR, client.read, read_only, 10)
    client.clunk(read_only)


def test_walk(tap, client, top):
    client.mkdir(top, "a")
    a = client.walk(top, "a")
    client.mkdir(a, "b")
    qids = client.walk_qids(top, client.new_fid(), ["a", "b", "..", "b"])
    tap.equal(len(qids), 4, "a walk down and up")
    tap.equal(qids[1].path, qids[3].path, "ends where it was")
    fid = client.new_fid()
    tap.equal(len(client.walk_qids(top, fid, ["a", "none", "b"])), 1, "a walk that stops half-way")
    tap.fails(errno.EBADF, client.getattr, fid)
    tap.fails(errno.ENOENT, client.walk_qids, top, fid, ["none"])
    tap.fails(errno.EBADF, client.walk_qids, 999999, fid, [])
    tap.fails(errno.EBADF, client.walk_qids, top, a, [])
    tap.fails(errno.ENAMETOOLONG, client.walk_qids, top, fid, ["x" * 256])
    tap.fails(errno.EINVAL, client.walk_qids, top, fid, ["a/b"])
    tap.equal(len(client.walk_qids(a, a, ["b"])), 1, "a fid walks to itself")
    tap.equal(client.getattr(a).qid.path, qids[1].path, "and is elsewhere")
    root = client.attach()
    up = client.walk(root, "..", "..")
    tap.equal(client.getattr(up).qid.path, client.getattr(root).qid.path,
              "no way leads out of the root")
    tap.fails(errno.EOPNOTSUPP, client.attach, afid=5)
    tap.fails(errno.ENOENT, client.attach, aname="/no/such/place")
    for fid in (a, root, up):
        client.clunk(fid)


def test_names(tap, client, top):
    client.mkdir(top, "d", mode=0o750)
    d = client.walk(top, "d")
    client.symlink(d, "link", "../target")
    tap.equal(client.readlink(client.walk(d, "link")), "../target", "a symbolic link")
    client.mknod(d, "fifo", stat.S_IFIFO | 0o600)
    client.mknod(d, "null", stat.S_IFCHR | 0o666, 1, 3)
    tap.equal(client.attr_of(d, "null").rdev, os.makedev(1, 3), "a device")
    client.clunk(client.create(d, "one"))
    one = client.walk(d, "one")
    client.link(d, one, "two")
    tap.equal(client.getattr(one).nlink, 2, "a second link")
    client.renameat(d, "two", top, "three")
    tap.equal(client.attr_of(top, "three").qid.path, client.getattr(one).qid.path, "renamed")
    three = client.walk(top, "three")
    client.rename(three, d, "four")
    tap.equal(client.names(d), ["fifo", "four", "link", "null", "one"], "renamed by its fid")
    client.remove(three)
    tap.equal(client.names(d), ["fifo", "link", "null", "one"], "removed by its fid")
    tap.fails(errno.EBADF, client.getattr, three)
    tap.fails(errno.EISDIR, client.unlinkat, top, "d")
    tap.fails(errno.ENOTDIR, client.unlinkat, d, "one", AT_REMOVEDIR)
    tap.fails(errno.ENOTEMPTY, client.unlinkat, top, "d", AT_REMOVEDIR)
    tap.fails(errno.EEXIST, client.mkdir, top, "d")
    tap.fails(errno.ENAMETOOLONG, client.mkdir, top, "x" * 256)
    tap.fails(errno.EINVAL, client.mkdir, top, "a/b")
    client.clunk(one)
    client.clunk(d)


def test_readdir(tap, client, top):
    client.mkdir(top, "many")
    many = client.walk(top, "many")
    names = sorted(f"{i:04}" + "n" * (i % 200) for i in range(700))
    for name in names:
        client.clunk(client.create(many, name))
    tap.equal(client.names(many), names, "a listing of 700 names")
    fid = client.open(top, "many", flags=O_DIRECTORY)
    first = client.readdir_at(fid, 0, 2000)
    tap.equal([e[0] for e in first[:2]], [".", ".."], "begins with . and ..")
    for name in names[:300]:
        client.unlinkat(many, name)
    entries, offset = [], first[-1][2]
    while True:
        part = client.readdir_at(fid, offset, 500)
        if not part:
            break
        entries += [e[0] for e in part]
        offset = part[-1][2]
    kept = [n for n in names[300:] if n not in [e[0] for e in first]]
    tap.equal(sorted(entries), kept, "goes on behind names that were removed")
    tap.fails(errno.EINVAL, client.readdir_at, fid, 0, 20)  # no room for an entry
    client.clunk(fid)
    client.clunk(many)


def test_xattrs(tap, client, top):
    client.clunk(client.create(top, "x"))
    x = client.walk(top, "x")
    client.setxattr(x, "user.one", b"value")
    client.setxattr(x, "user.big", b"v" * 20000)
    client.setxattr(x, "user.empty", b"")
    tap.equal(client.getxattr(x, "user.one"), b"value", "an attribute")
    tap.equal(client.getxattr(x, "user.big"), b"v" * 20000, "a large one")
    tap.equal(client.getxattr(x, "user.empty"), b"", "an empty one")
    tap.equal(client.listxattr(x), ["user.big", "user.empty", "user.one"], "their names")
    tap.fails(errno.EEXIST, client.setxattr, x, "user.one", b"new", XATTR_CREATE)
    tap.fails(errno.ENODATA, client.setxattr, x, "user.none", b"new", XATTR_REPLACE)
    client.setxattr(x, "user.one", b"", XATTR_REPLACE)
    tap.fails(errno.ENODATA, client.getxattr, x, "user.one")
    copy = client.walk(x)
    client.call("xattrcreate", struct.pack("<I", copy) + string("user.half") +
                struct.pack("<QI", 10, 0))
    client.write(copy, b"12345")
    tap.fails(errno.EINVAL, client.write, copy, b"123456", 5)
    tap.fails(errno.EINVAL, client.clunk, copy)
    tap.fails(errno.ENODATA, client.getxattr, x, "user.half")
    tap.fails(errno.E2BIG, client.setxattr, x, "user.huge", b"v" * 70000)
    client.clunk(x)


def test_locks(tap, client, top, address, aname):
    client.clunk(client.create(top, "locked"))
    mine = client.open(top, "locked", flags=os.O_RDWR)
    other = Client(address)
    other_root = other.attach(aname)
    theirs = other.open(other_root, TOP, "locked", flags=os.O_RDWR)
    tap.equal(client.lock(mine, WRLCK, 10, 20), LOCK_SUCCESS, "a lock")
    tap.equal(client.lock(mine, WRLCK, 0, 0), LOCK_SUCCESS, "of the same owner once more")
    tap.equal(client.lock(mine, UNLCK, 100, 0), LOCK_SUCCESS, "unlocked at its end")
    tap.equal(other.lock(theirs, RDLCK, 50, 10), LOCK_BLOCKED, "another client has to wait")
    tap.equal(other.lock(theirs, WRLCK, 100, 10), LOCK_SUCCESS, "or lock something else")
    tap.equal(other.getlock(theirs, RDLCK, 0, 0)[:3], (WRLCK, 0, 100), "sees what is in its way")
    tap.equal(client.lock(mine, RDLCK, 0, 50, proc_id=2), LOCK_BLOCKED, "so does another process")
    client.clunk(mine)
    tap.equal(other.lock(theirs, WRLCK, 0, 0), LOCK_SUCCESS, "clunking unlocks")
    mine = client.open(top, "locked", flags=os.O_RDWR)
    tap.equal(client.lock(mine, WRLCK), LOCK_BLOCKED, "locked by the other")
    other.close()
    status = LOCK_BLOCKED
    for _ in range(200):    # the server has to notice
        status = client.lock(mine, WRLCK)
        if status == LOCK_SUCCESS:
            break
        client.getattr(mine)
    tap.equal(status, LOCK_SUCCESS, "a connection that ends unlocks")
    client.clunk(mine)


def test_permissions(tap, address, aname):
    root = Client(address)
    top = root.walk(root.attach(aname), TOP)
    root.mkdir(top, "private", mode=0o700)
    root.mkdir(top, "public", mode=0o777)
    user = Client(address)
    user_top = user.walk(user.attach(aname, uid=12345), TOP)
    tap.fails(errno.EACCES, user.walk, user.walk(user_top, "private"), "x")
    tap.fails(errno.EACCES, user.create, user_top, "new")
    public = user.walk(user_top, "public")
    user.clunk(user.create(public, "mine", gid=777))
    attr = user.attr_of(public, "mine")
    tap.equal((attr.uid, attr.gid), (12345, 777), "a file of its maker")
    mine = user.walk(public, "mine")
    tap.fails(errno.EPERM, user.setattr, mine, uid=0)
    user.setattr(mine, mode=0o400)
    tap.fails(errno.EACCES, user.open, public, "mine", flags=os.O_RDWR)
    both = root.attach(aname, uid=12345)
    tap.fails(errno.EACCES, root.walk, root.walk(both, TOP, "private"), "x")
    tap.ok(root.walk(top, "private") > 0, "two users on one connection")
    user.close()
    root.close()


def test_pipelining(tap, client, top):
    client.mkdir(top, "pipe")
    pipe = client.walk(top, "pipe")
    fid = client.create(pipe, "file")
    tags = [client.send("write", struct.pack("<IQI", fid, i * 4096, 4096) + bytes([i]) * 4096)
            for i in range(200)]
    tap.equal([struct.unpack("<I", client.wait(t))[0] for t in tags], [4096] * 200,
              "200 writes at once")
    tags = [client.send("read", struct.pack("<IQI", fid, i * 4096, 4096)) for i in range(600)]
    bodies = [client.wait(t)[4:] for t in tags]
    tap.ok(bodies[:200] == [bytes([i]) * 4096 for i in range(200)] and set(bodies[200:]) == {b""},
           "600 reads at once, more than are served at a time")
    big = client.msize - 24
    tags = [client.send("read", struct.pack("<IQI", fid, 0, big)) for i in range(100)]
    tap.ok(all(len(client.wait(t)) == min(big, 200 * 4096) + 4 for t in tags), "100 large reads")
    # A flush is answered behind the request that it flushes, which is answered or not.
    write = client.send("fsync", struct.pack("<II", fid, 0))
    flush = client.send("flush", struct.pack("<H", write))
    client.order.clear()
    client.wait(flush)
    tap.ok(write not in client.order or client.order.index(write) < client.order.index(flush),
           "a flush")
    if write in client.replies:
        client.replies.pop(write)
    client.flush(4711)
    tap.ok(True, "a flush of nothing")
    client.clunk(fid)
    client.clunk(pipe)


def is_closed(client):
    try:
        while True:
            client.receive()
    except (ConnectionError, OSError):
        return True


def test_hostile(tap, address):
    def fresh():
        return Client(address)

    client = fresh()
    client.send_raw(struct.pack("<IBH", 3, 100, 0))
    tap.ok(is_closed(client), "a size below the header's ends the connection")
    client = fresh()
    client.send_raw(struct.pack("<IBH", 1 << 31, 118, 0))
    tap.ok(is_closed(client), "so does one above msize")
    client = Client(address, msize=0)
    client.send_raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    tap.ok(is_closed(client), "and another protocol")
    client = Client(address, msize=0)
    tap.fails(errno.EPROTO, client.attach)
    client.close()
    client = fresh()
    tap.fails(errno.EOPNOTSUPP, client.wait,
              (client.send_raw(struct.pack("<IBH", 7, 200, 5)), 5)[1])
    tap.fails(errno.EPROTO, client.wait,
              (client.send_raw(struct.pack("<IBHH", 9, 120, 6, 0)), 6)[1])
    tap.equal(client.attach() > 0, True, "and goes on")
    client.close()
    noise = random.Random(2)
    for _ in range(200):
        client = fresh()
        kind = noise.choice(list(TYPES.values()))
        body = noise.randbytes(noise.randrange(60))
        message = struct.pack("<IBH", 7 + len(body), kind, 1) + body
        if noise.random() < 0.5:
            message += noise.randbytes(noise.randrange(40))
        client.socket.sendall(message)
        client.close()
    client = fresh()
    tap.equal(client.attach() > 0, True, "noise from 200 connections harms nobody")
    client.close()


TOP = f"ninep-test-{os.getpid()}"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    address = sys.argv[1]
    aname = sys.argv[2] if len(sys.argv) > 2 else "/"
    tap = Tap()
    test_version(tap, address)
    client = Client(address)
    root = client.attach(aname)
    client.mkdir(root, TOP)
    top = client.walk(root, TOP)
    test_files(tap, client, top)
    test_walk(tap, client, top)
    test_names(tap, client, top)
    test_readdir(tap, client, top)
    test_xattrs(tap, client, top)
    test_locks(tap, client, top, address, aname)
    test_permissions(tap, address, aname)
    test_pipelining(tap, client, top)
    test_hostile(tap, address)
    tap.equal(client.statfs(root)[8], 255, "statfs")
    client.clunk(top)
    client.remove_tree(root, TOP)
    tap.ok(TOP not in client.names(root), "everything is removed")
    print(f"1..{tap.count}")
    sys.exit(tap.failed > 0)


if __name__ == "__main__":
    main()
