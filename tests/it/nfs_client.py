"""An NFSv3 client: a library for tests."""
import os
import random
import socket
import struct

NFS, MOUNT, PORTMAP = 100003, 100005, 100000
(NULL, GETATTR, SETATTR, LOOKUP, ACCESS, READLINK, READ, WRITE, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE,
 RMDIR, RENAME, LINK, READDIR, READDIRPLUS, FSSTAT, FSINFO, PATHCONF, COMMIT) = range(22)
UNSTABLE, DATA_SYNC, FILE_SYNC = range(3)
UNCHECKED, GUARDED, EXCLUSIVE = range(3)
REG, DIR, BLK, CHR, LNK, SOCK, FIFO = range(1, 8)
(PERM, NOENT, IO, ACCES, EXIST, XDEV, NOTDIR, ISDIR, INVAL, FBIG, ROFS, MLINK, NAMETOOLONG, NOTEMPTY,
 STALE) = (1, 2, 5, 13, 17, 18, 20, 21, 22, 27, 30, 31, 63, 66, 70)
BADHANDLE, NOT_SYNC, BAD_COOKIE, NOTSUPP, TOOSMALL, SERVERFAULT, BADTYPE, JUKEBOX = range(10001, 10009)


class NfsError(Exception):
    def __init__(self, status):
        super().__init__(f"NFS status {status}")
        self.status = status


class RpcError(Exception):
    """RPC refused: ("accepted", accept_stat) or ("denied", reject_stat, auth_stat)."""


def u32(*values):
    return struct.pack(f">{len(values)}I", *values)


def u64(value):
    return struct.pack(">Q", value)


def opaque(data):
    data = os.fsencode(data)
    return u32(len(data)) + data + bytes(-len(data) % 4)


def sattr(mode=None, uid=None, gid=None, size=None, atime=None, mtime=None):
    """Times: None, "now", or (seconds, nanoseconds)."""
    out = b"".join(u32(0) if v is None else u32(1, v) for v in (mode, uid, gid))
    out += u32(0) if size is None else u32(1) + u64(size)
    for value in (atime, mtime):
        out += u32(0) if value is None else u32(1) if value == "now" else u32(2, *value)
    return out


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        if self.at + length > len(self.data):
            raise ValueError("reply cut off")
        self.at += length
        return self.data[self.at - length:self.at]

    def u32(self):
        return struct.unpack(">I", self.take(4))[0]

    def u64(self):
        return struct.unpack(">Q", self.take(8))[0]

    def opaque(self):
        length = self.u32()
        data = self.take(length)
        self.take(-length % 4)
        return data

    def fattr(self):
        return Attr(self)

    def post_attr(self):
        return self.fattr() if self.u32() else None

    def wcc(self):
        before = None
        if self.u32():
            before = (self.u64(), (self.u32(), self.u32()), (self.u32(), self.u32()))
        return before, self.post_attr()

    def end(self):
        if self.at != len(self.data):
            raise ValueError("bytes left over")


class Attr:
    def __init__(self, reader):
        (self.type, self.mode, self.nlink, self.uid, self.gid) = (reader.u32() for _ in range(5))
        self.size, self.used = reader.u64(), reader.u64()
        self.rdev = reader.u32(), reader.u32()
        self.fsid, self.fileid = reader.u64(), reader.u64()
        (self.atime, self.mtime, self.ctime) = ((reader.u32(), reader.u32()) for _ in range(3))


class Client:
    """One connection. call() sends and waits; send() and wait() are for pipelining. A status other
    than OK is raised as NfsError, and what came with it is its `wcc` or `attr`."""

    def __init__(self, address, uid=0, gid=0, gids=(), timeout=60, privileged=None, flavor=1):
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.timeout, self.flavor = timeout, flavor
        self.privileged = os.geteuid() == 0 if privileged is None else privileged
        self.uid, self.gid, self.gids = uid, gid, gids
        self.xid = random.getrandbits(32)
        self.replies, self.order, self.buffer = {}, [], b""
        self.connect()

    def connect(self):
        host = self.host or "127.0.0.1"
        for _ in range(200):
            self.socket = socket.socket()
            self.socket.settimeout(self.timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                if self.privileged:
                    self.socket.bind(("", random.randrange(600, 1023)))
                self.socket.connect((host, self.port))
                self.buffer = b""
                return
            except OSError as err:
                self.socket.close()
                if not self.privileged or err.errno not in (98, 99):
                    raise
        raise OSError("no privileged port is free")

    def close(self):
        self.socket.close()

    # ---- messages ----

    def cred(self):
        if self.flavor != 1:
            return u32(self.flavor, 0)
        body = u32(0) + opaque("tester") + u32(self.uid, self.gid, len(self.gids), *self.gids)
        return u32(1) + opaque(body)

    def record(self, program, version, procedure, args, xid=None):
        if xid is None:
            self.xid = (self.xid + 1) & 0xffffffff
            xid = self.xid
        return xid, (u32(xid, 0, 2, program, version, procedure) + self.cred() + u32(0, 0) + args)

    def send(self, program, version, procedure, args=b"", xid=None, fragment=None):
        xid, record = self.record(program, version, procedure, args, xid)
        if fragment is None:
            self.socket.sendall(u32(len(record) | 0x80000000) + record)
        else:
            parts = [record[i:i + fragment] for i in range(0, len(record), fragment)]
            self.socket.sendall(b"".join(u32(len(p) | (0x80000000 if i == len(parts) - 1 else 0)) + p
                                         for i, p in enumerate(parts)))
        return xid

    def receive(self):
        """The next record of the stream."""
        while True:
            if len(self.buffer) >= 4:
                (head,) = struct.unpack_from(">I", self.buffer)
                length = head & 0x7fffffff
                if len(self.buffer) >= 4 + length:
                    record, self.buffer = self.buffer[4:4 + length], self.buffer[4 + length:]
                    return record
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("closed by the server")
            self.buffer += data

    def wait(self, xid):
        while xid not in self.replies:
            record = self.receive()
            (got,) = struct.unpack_from(">I", record)
            self.order.append(got)
            self.replies[got] = record
        reader = Reader(self.replies.pop(xid))
        reader.u32()
        if reader.u32() != 1:
            raise ValueError("not a reply")
        if reader.u32():
            reason = reader.u32()
            raise RpcError("denied", reason, reader.u32())
        reader.u32()
        reader.opaque()
        status = reader.u32()
        if status:
            raise RpcError("accepted", status)
        return reader

    def rpc(self, program, version, procedure, args=b"", **options):
        return self.wait(self.send(program, version, procedure, args, **options))

    def call(self, procedure, args=b"", **options):
        return self.rpc(NFS, 3, procedure, args, **options)

    def checked(self, procedure, args, on_error, **options):
        reader = self.call(procedure, args, **options)
        status = reader.u32()
        if status:
            err = NfsError(status)
            err.extra = getattr(reader, on_error)() if on_error else None
            raise err
        return reader

    # ---- procedures ----

    def mnt(self, path="/", version=3):
        reader = self.rpc(MOUNT, version, 1, opaque(path))
        status = reader.u32()
        if status:
            raise NfsError(status)
        if version == 1:
            return reader.take(32)
        handle = reader.opaque()
        self.flavors = [reader.u32() for _ in range(reader.u32())]
        reader.end()
        return handle

    def exports(self):
        reader = self.rpc(MOUNT, 3, 5)
        out = []
        while reader.u32():
            path, groups = reader.opaque().decode(), []
            while reader.u32():
                groups.append(reader.opaque().decode())
            out.append((path, groups))
        return out

    def getattr(self, handle):
        return self.checked(GETATTR, opaque(handle), None).fattr()

    def setattr(self, handle, guard=None, **values):
        args = opaque(handle) + sattr(**values) + (u32(0) if guard is None else u32(1, *guard))
        return self.checked(SETATTR, args, "wcc").wcc()

    def lookup(self, dir_handle, name):
        reader = self.checked(LOOKUP, opaque(dir_handle) + opaque(name), "post_attr")
        handle = reader.opaque()
        attr, self.dir_attr = reader.post_attr(), reader.post_attr()
        reader.end()
        return handle, attr

    def access(self, handle, bits=0x3f):
        reader = self.checked(ACCESS, opaque(handle) + u32(bits), "post_attr")
        reader.post_attr()
        return reader.u32()

    def readlink(self, handle):
        reader = self.checked(READLINK, opaque(handle), "post_attr")
        reader.post_attr()
        return reader.opaque()

    def read(self, handle, offset=0, count=1 << 20):
        reader = self.checked(READ, opaque(handle) + u64(offset) + u32(count), "post_attr")
        self.attr = reader.post_attr()
        length, self.eof, data = reader.u32(), reader.u32(), reader.opaque()
        reader.end()
        if length != len(data):
            raise ValueError("count and data differ")
        return data

    def write_args(self, handle, data, offset=0, stable=UNSTABLE):
        return opaque(handle) + u64(offset) + u32(len(data), stable) + opaque(data)

    def write(self, handle, data, offset=0, stable=UNSTABLE, **options):
        """(count, committed, verifier)"""
        reader = self.checked(WRITE, self.write_args(handle, data, offset, stable), "wcc", **options)
        self.wcc = reader.wcc()
        out = reader.u32(), reader.u32(), reader.take(8)
        reader.end()
        return out

    def commit(self, handle):
        reader = self.checked(COMMIT, opaque(handle) + u64(0) + u32(0), "wcc")
        self.wcc = reader.wcc()
        return reader.take(8)

    def made(self, reader):
        handle = reader.opaque() if reader.u32() else None
        attr = reader.post_attr()
        self.wcc = reader.wcc()
        reader.end()
        return handle, attr

    def create(self, dir_handle, name, how=GUARDED, verifier=None, xid=None, **values):
        args = opaque(dir_handle) + opaque(name) + u32(how)
        args += verifier if how == EXCLUSIVE else sattr(**({"mode": 0o644} | values))
        return self.made(self.checked(CREATE, args, "wcc", xid=xid))

    def mkdir(self, dir_handle, name, mode=0o755, xid=None, **values):
        args = opaque(dir_handle) + opaque(name) + sattr(mode=mode, **values)
        return self.made(self.checked(MKDIR, args, "wcc", xid=xid))

    def symlink(self, dir_handle, name, target, xid=None, **values):
        args = opaque(dir_handle) + opaque(name) + sattr(**values) + opaque(target)
        return self.made(self.checked(SYMLINK, args, "wcc", xid=xid))

    def mknod(self, dir_handle, name, kind, rdev=(0, 0), mode=0o644):
        args = opaque(dir_handle) + opaque(name) + u32(kind)
        if kind in (CHR, BLK, SOCK, FIFO):
            args += sattr(mode=mode)
        if kind in (CHR, BLK):
            args += u32(*rdev)
        return self.made(self.checked(MKNOD, args, "wcc"))

    def remove(self, dir_handle, name, procedure=REMOVE, xid=None):
        reader = self.checked(procedure, opaque(dir_handle) + opaque(name), "wcc", xid=xid)
        return reader.wcc()

    def rmdir(self, dir_handle, name, xid=None):
        return self.remove(dir_handle, name, RMDIR, xid)

    def rename(self, from_dir, name, to_dir, to_name, xid=None):
        args = opaque(from_dir) + opaque(name) + opaque(to_dir) + opaque(to_name)
        reader = self.checked(RENAME, args, "wcc", xid=xid)
        return reader.wcc(), reader.wcc()

    def link(self, handle, dir_handle, name, xid=None):
        args = opaque(handle) + opaque(dir_handle) + opaque(name)
        reader = self.checked(LINK, args, "post_attr", xid=xid)
        return reader.post_attr(), reader.wcc()

    def readdir_page(self, handle, cookie=0, verifier=bytes(8), count=4096, plus=False, dircount=None):
        """(entries of (name, fileid, cookie, attr, handle), verifier, eof)"""
        args = opaque(handle) + u64(cookie) + verifier
        if plus:
            args += u32(dircount or count)
        reader = self.checked(READDIRPLUS if plus else READDIR, args + u32(count), "post_attr")
        reader.post_attr()
        verifier, entries = reader.take(8), []
        while reader.u32():
            fileid, name, cookie = reader.u64(), os.fsdecode(reader.opaque()), reader.u64()
            attr = reader.post_attr() if plus else None
            found = reader.opaque() if plus and reader.u32() else None
            entries.append((name, fileid, cookie, attr, found))
        eof = reader.u32()
        reader.end()
        self.page_bytes = len(reader.data) - 24
        return entries, verifier, bool(eof)

    def readdir(self, handle, **options):
        out, cookie, verifier, eof = [], 0, bytes(8), False
        while not eof:
            entries, verifier, eof = self.readdir_page(handle, cookie, verifier, **options)
            out += entries
            cookie = entries[-1][2] if entries else cookie
        return out

    def names(self, handle, **options):
        return sorted(e[0] for e in self.readdir(handle, **options) if e[0] not in (".", ".."))

    def fsstat(self, handle):
        reader = self.checked(FSSTAT, opaque(handle), "post_attr")
        reader.post_attr()
        return [reader.u64() for _ in range(6)]

    def fsinfo(self, handle):
        reader = self.checked(FSINFO, opaque(handle), "post_attr")
        reader.post_attr()
        return dict(zip(("rtmax", "rtpref", "rtmult", "wtmax", "wtpref", "wtmult", "dtpref"),
                        (reader.u32() for _ in range(7)))) | {"maxfilesize": reader.u64()}

    def pathconf(self, handle):
        reader = self.checked(PATHCONF, opaque(handle), "post_attr")
        reader.post_attr()
        return [reader.u32() for _ in range(6)]

    def write_file(self, dir_handle, name, data):
        handle, _ = self.create(dir_handle, name)
        self.write(handle, data, stable=FILE_SYNC)
        return handle

    def remove_tree(self, dir_handle, name):
        handle, _ = self.lookup(dir_handle, name)
        xids = []
        for entry in self.readdir(handle, plus=True, count=65536):
            if entry[0] in (".", ".."):
                continue
            if entry[3].type == DIR:
                self.remove_tree(handle, entry[0])
            else:
                xids.append(self.send(NFS, 3, REMOVE, opaque(handle) + opaque(entry[0])))
        for xid in xids:
            self.wait(xid)
        self.rmdir(dir_handle, name)


class Tap:
    def __init__(self):
        self.count = self.failed = 0

    def ok(self, passed, name, note=""):
        self.count += 1
        self.failed += not passed
        print(f"{'ok' if passed else 'not ok'} {self.count} - {name}")
        if not passed and note:
            print(f"#   {note}")
        return passed

    def equal(self, got, want, name):
        return self.ok(got == want, name, f"got {got!r}, not {want!r}")

    def fails(self, status, function, *args, **options):
        """The call is answered with this status; a name for the check comes first."""
        name, function = function, args[0]
        try:
            function(*args[1:], **options)
            got = 0
        except NfsError as err:
            got = err.status
        return self.equal(got, status, name)

    def done(self):
        print(f"1..{self.count}", flush=True)
        return 1 if self.failed else 0
