#!/usr/bin/env python3
"""Wrong input on a port: what no honest client sends, and what an honest one sees meanwhile.

    hostile.py PROTOCOL HOST:PORT PID CONNECTIONS RSS_MAX_MIB

PROTOCOL: 9p, nbd or nfs; PID is the server's. CONNECTIONS are opened and dropped in turn. Prints TAP.

A protocol is a class: session() is a list of good messages, which a client may send one after the
other without waiting; Witness is an honest client (work() raises when something is wrong); wrong()
lists messages that a server must answer with an error, or by closing the connection.
"""
import os
import random
import select
import socket
import struct
import sys
import time

CLOSE_MAX_S = 10     # for a server to close a connection whose input makes no sense or has ended
WITNESS_MAX_S = 2.0  # for a witness to be served while others misbehave


class Tap:
    count = 0

    def ok(self, is_good, text, why=""):
        self.count += 1
        print(f"{'ok' if is_good else 'not ok'} {self.count} - {text}", flush=True)
        if why:
            for line in str(why).splitlines():
                print(f"#   {line}")


TAP = Tap()


def connect(address, timeout=CLOSE_MAX_S):
    sock = socket.create_connection(address, timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive(sock, length):
    data = b""
    while len(data) < length:
        part = sock.recv(length - len(data))
        if not part:
            raise ConnectionError("closed by the server")
        data += part
    return data


# ---- protocols ----

class Nbd:
    """The device "hostile" of 64 MiB must be there."""
    OPTION = b"IHAVEOPT"
    NAME = b"hostile"
    turn = False
    stalled_sizes = [200000] * 8  # so many send some of it, the others next to nothing

    @classmethod
    def option(cls, number, data=b""):
        return cls.OPTION + struct.pack(">II", number, len(data)) + data

    @staticmethod
    def request(command, offset=0, length=0, flags=0, cookie=7):
        return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length)

    @classmethod
    def go(cls, name=None):
        name = cls.NAME if name is None else name
        return cls.option(7, struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, 3))

    @classmethod
    def session(cls):
        context = b"base:allocation"
        name = struct.pack(">I", len(cls.NAME)) + cls.NAME
        return [struct.pack(">I", 3), cls.option(3), cls.option(8),
                cls.option(10, name + struct.pack(">II", 1, len(context)) + context), cls.go(),
                cls.request(0, 4096, 8192), cls.request(1, 1 << 20, 1000) + bytes(1000),
                cls.request(4, 1 << 20, 65536), cls.request(6, 2 << 20, 65536),
                cls.request(7, 0, 1 << 20), cls.request(5, 0, 65536), cls.request(3),
                cls.request(2)]

    @classmethod
    def wrong(cls):
        start = struct.pack(">I", 3)
        go = start + cls.go()
        huge = struct.pack(">I", 0xffffffff)
        return [
            ("client flags that nobody has", struct.pack(">I", 0x80000000), "closed"),
            ("a request before negotiation", start + cls.request(0, 0, 512), "closed"),
            ("an option of 4 GiB", start + cls.OPTION + struct.pack(">I", 7) + huge, "closed"),
            ("a name of 4 GiB in a short option", start + cls.option(7, huge + b"x"), 0x80000003),
            ("4 billion queries", start + cls.option(8) + cls.option(10, b"\0\0\0\0" + huge), 0x80000003),
            ("an unknown option", start + cls.option(4242, b"what"), 0x80000001),
            ("no such device", start + cls.go(b"nothing"), 0x80000006),
            ("a path as a name", start + cls.go(b"../../etc/passwd"), 0x80000006),
            ("EXPORT_NAME of nothing", start + cls.option(1, b"nothing"), "closed"),
            ("an option in transmission", go + cls.option(3), "closed"),
            ("a second greeting", go + start, "closed"),
            ("no magic number", go + b"\0" * 28, "closed"),
            ("a command that there is not", go + cls.request(999, 0, 512), 22),
            ("flags that there are not", go + cls.request(0, 0, 512, 0xff00), 22),
            ("a read behind the end", go + cls.request(0, 1 << 60, 512), 22),
            ("a read of 4 GiB", go + cls.request(0, 0, 0xffffffff), 22),
            ("a write over the end", go + cls.request(1, (64 << 20) - 1, 512) + bytes(512), 28),
            ("an offset that wraps around", go + cls.request(6, (1 << 64) - 512, 4096), 28),
            ("status without a context", go + cls.request(7, 0, 512), 22),
            ("a flush of a place", go + cls.request(3, 1, 0), 22),
        ]

    @staticmethod
    def error_of(data):
        """The error that the answer ends with: of an option, or of a request."""
        data = data[18:]
        error = None
        while data:
            if data[:8] == b"\0\x03\xe8\x89\x04\x55\x65\xa9" and len(data) >= 20:
                kind, length = struct.unpack_from(">II", data, 12)
                error = kind if kind & 0x80000000 else error
                data = data[20 + length:]
            elif data[:4] == b"\x67\x44\x66\x98" and len(data) >= 16:
                error = struct.unpack_from(">I", data, 4)[0]
                data = data[16:]
            else:
                break
        return error

    @classmethod
    def stalled(cls):
        """A client that announces much and sends little."""
        cls.turn = not cls.turn
        start = struct.pack(">I", 3) + cls.go()
        if cls.turn:
            return start + cls.request(0, 0, 4 << 20) * 4
        return start + cls.request(1, 0, 4 << 20) + bytes(cls.stalled_sizes.pop() if cls.stalled_sizes else 100)

    class Witness:
        def __init__(self, address):
            self.sock = connect(address)
            receive(self.sock, 18)
            self.sock.sendall(struct.pack(">I", 3) + Nbd.option(1, Nbd.NAME))
            receive(self.sock, 10)
            self.count = 0

        def work(self):
            self.count += 1
            data = struct.pack(">Q", self.count) * 512
            offset = (32 << 20) + self.count % 100 * 4096
            self.sock.sendall(Nbd.request(1, offset, 4096) + data)
            if receive(self.sock, 16)[4:8] != b"\0\0\0\0":
                raise OSError("a write fails")
            self.sock.sendall(Nbd.request(0, offset, 4096))
            if receive(self.sock, 16 + 4096)[16:] != data:
                raise OSError("what was written is not there")


class NineP:
    @staticmethod
    def message(kind, tag, body=b""):
        return struct.pack("<IBH", 7 + len(body), kind, tag) + body

    @staticmethod
    def text(value):
        return struct.pack("<H", len(value)) + value

    @classmethod
    def start(cls):
        none = 0xffffffff
        return [cls.message(100, 0xffff, struct.pack("<I", 65536) + cls.text(b"9P2000.L")),
                cls.message(104, 1, struct.pack("<II", 1, none) + cls.text(b"") + cls.text(b"/") +
                            struct.pack("<I", 0))]

    @classmethod
    def session(cls):
        return cls.start() + [
            cls.message(110, 2, struct.pack("<IIH", 1, 2, 0)),
            cls.message(12, 3, struct.pack("<II", 2, 0)),
            cls.message(40, 4, struct.pack("<IQI", 2, 0, 4096)),
            cls.message(24, 5, struct.pack("<IQ", 1, 0x3fff)),
            cls.message(8, 6, struct.pack("<I", 1)),
            cls.message(110, 7, struct.pack("<IIH", 1, 3, 1) + cls.text(b"nothing")),
            cls.message(108, 8, struct.pack("<H", 7)),
            cls.message(120, 9, struct.pack("<I", 2))]

    @classmethod
    def wrong(cls):
        start = b"".join(cls.start())
        return [
            ("a size of nothing", struct.pack("<I", 0), "closed"),
            ("a size of 4 GiB", struct.pack("<IBH", 0xffffffff, 100, 0), "closed"),
            ("a size above msize", start + struct.pack("<IBH", 65537, 116, 3), "closed"),
            ("another protocol", b"GET / HTTP/1.1\r\n\r\n", "closed"),
            ("a request before Tversion", cls.message(120, 1, struct.pack("<I", 1)), 71),
            ("a request before Tattach", cls.start()[0] + cls.message(24, 1, struct.pack("<IQ", 1, 1)), 9),
            ("a type that there is not", start + cls.message(254, 3), 95),
            ("a cut body", start + cls.message(24, 3, b"\1"), 71),
            ("a string longer than its message", start + cls.message(110, 3, struct.pack("<IIHH", 1, 2, 1, 999)), 71),
            ("17 names in a walk", start + cls.message(110, 3, struct.pack("<IIH", 1, 2, 17) + cls.text(b"a") * 17), 22),
            ("a name with a slash", start + cls.message(72, 3, struct.pack("<I", 1) + cls.text(b"a/b") + struct.pack("<II", 0o755, 0)), 22),
            ("a fid that is not known", start + cls.message(120, 3, struct.pack("<I", 99)), 9),
        ]

    @staticmethod
    def error_of(data):
        error = None
        while len(data) >= 7:
            size, kind = struct.unpack_from("<IB", data)
            if kind == 7:
                (error,) = struct.unpack_from("<I", data, 7)
            data = data[max(size, 7):]
        return error

    @classmethod
    def stalled(cls):
        return b"".join(cls.start()) + struct.pack("<IBH", 65536, 118, 3) + bytes(100)

    class Witness:
        def __init__(self, address):
            self.sock = connect(address)
            self.call(NineP.start()[0])
            self.call(NineP.start()[1])

        def call(self, message):
            self.sock.sendall(message)
            (size,) = struct.unpack("<I", receive(self.sock, 4))
            reply = receive(self.sock, size - 4)
            if reply[0] == 7:
                raise OSError(f"error {struct.unpack_from('<I', reply, 3)[0]}")

        def work(self):
            self.call(NineP.message(24, 5, struct.pack("<IQ", 1, 0x3fff)))


class Nfs:
    @staticmethod
    def record(body, is_last=True):
        return struct.pack(">I", len(body) | (0x80000000 if is_last else 0)) + body

    @classmethod
    def call(cls, procedure, body=b"", xid=1, program=100003, version=3, rpc=2, credential=None):
        credential = struct.pack(">II", 0, 0) if credential is None else credential
        return cls.record(struct.pack(">IIIIII", xid, 0, rpc, program, version, procedure) +
                          credential + struct.pack(">II", 0, 0) + body)

    @classmethod
    def session(cls):
        path = struct.pack(">I", 1) + b"/\0\0\0"
        handle = struct.pack(">I", 24) + bytes(24)
        return [cls.call(0, xid=1), cls.call(0, xid=2, program=100005),
                cls.call(1, path, xid=3, program=100005), cls.call(1, handle, xid=4),
                cls.call(6, handle + struct.pack(">QI", 0, 4096), xid=5),
                cls.call(3, handle + struct.pack(">I", 4) + b"name", xid=6)]

    @classmethod
    def wrong(cls):
        return [
            ("a fragment of 2 GiB", struct.pack(">I", 0xffffffff), "closed"),
            ("another protocol", b"GET / HTTP/1.1\r\n\r\n", "closed"),
            ("fragments without an end", struct.pack(">I", 0) * 1000000, "closed"),
            ("a reply instead of a call", cls.record(struct.pack(">IIIII", 1, 1, 0, 0, 0) + bytes(8)), "closed"),
            ("another version of RPC", cls.call(0, rpc=3), ("denied", 0)),
            ("a program that there is not", cls.call(0, program=99999), ("accepted", 1)),
            ("a version that there is not", cls.call(0, version=9), ("accepted", 2)),
            ("a procedure that there is not", cls.call(99), ("accepted", 3)),
            ("arguments cut off", cls.call(1, struct.pack(">I", 64) + b"cut"), ("accepted", 4)),
        ]

    @staticmethod
    def error_of(data):
        if len(data) < 16:
            return None
        kind = struct.unpack_from(">I", data, 12)[0]
        if kind == 1:
            return "denied", struct.unpack_from(">I", data, 16)[0]
        return "accepted", struct.unpack_from(">I", data, 24)[0]

    @classmethod
    def stalled(cls):
        return struct.pack(">I", 0x80000000 | (1 << 20)) + cls.call(7)[4:] + bytes(100)

    class Witness:
        def __init__(self, address):
            self.sock = connect(address)
            self.xid = 0

        def work(self):
            self.xid += 1
            self.sock.sendall(Nfs.call(0, xid=self.xid))
            (size,) = struct.unpack(">I", receive(self.sock, 4))
            reply = receive(self.sock, size & 0x7fffffff)
            if struct.unpack_from(">II", reply) != (self.xid, 1):
                raise OSError("NULL is not answered")


PROTOCOLS = {"nbd": Nbd, "9p": NineP, "nfs": Nfs}


# ---- the tests ----

class Test:
    def __init__(self, protocol, address, pid, connections, rss_max_mib):
        self.protocol, self.address, self.pid = protocol, address, pid
        self.connections, self.rss_max_mib = connections, rss_max_mib
        self.witness = protocol.Witness(address)
        self.slowest = 0.0
        self.rss_max = 0
        self.in_turn_s = self.stalled_s = 0.0

    def look(self):
        """The witness works, and in time; the server is no larger than it may be."""
        start = time.monotonic()
        self.witness.work()
        self.slowest = max(self.slowest, time.monotonic() - start)
        with open(f"/proc/{self.pid}/status") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    self.rss_max = max(self.rss_max, int(line.split()[1]) / 1024)

    def drain(self, sock):
        """What the server still sends until it closes: (bytes, closed in time)."""
        data = b""
        deadline = time.monotonic() + CLOSE_MAX_S
        while time.monotonic() < deadline:
            try:
                sock.settimeout(max(0.01, deadline - time.monotonic()))
                part = sock.recv(65536)
            except TimeoutError:
                return data, False
            except OSError:
                return data, True
            if not part:
                return data, True
            if len(data) < 1 << 20:
                data += part
        return data, False

    def offer(self, data, is_ending=True):
        """Send it on a connection of its own, and see what comes back until it is closed."""
        sock = connect(self.address)
        try:
            sock.sendall(data)
            if is_ending:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed already, or not taken: as good
        result = self.drain(sock)
        sock.close()
        return result

    def section(self, text, function):
        why = ""
        try:
            why = function() or ""
            self.look()
        except Exception as error:  # pylint: disable=broad-except
            why = f"{type(error).__name__}: {error}"
        TAP.ok(not why, text, why)

    def session(self):
        data, is_closed = self.offer(b"".join(self.protocol.session()))
        if not is_closed or not data:
            return f"a good session is not served: {data[:40]}"
        return ""

    def random_bytes(self):
        rng = random.Random(1)
        first = self.protocol.session()[0]
        for i in range(300):
            data = rng.randbytes(rng.choice([1, 3, 16, 100, 5000, 70000]))
            if i % 3 == 0:
                data = first + data
            if not self.offer(data)[1]:
                return f"random bytes {i}: the connection stays open"
            if i % 50 == 0:
                self.look()
        return ""

    def truncated(self):
        stream = b"".join(self.protocol.session())
        step = max(1, len(stream) // 400)
        for length in range(0, len(stream), step):
            if not self.offer(stream[:length])[1]:
                return f"cut at byte {length}: the connection stays open"
        return ""

    def mutated(self):
        rng = random.Random(2)
        messages = self.protocol.session()
        for i in range(400):
            kind = rng.randrange(3)
            if kind == 0:  # bytes changed
                data = bytearray(b"".join(messages))
                for _ in range(rng.randrange(1, 6)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            elif kind == 1:  # another order
                data = b"".join(rng.sample(messages, len(messages)))
            else:  # some left out, some twice
                data = b"".join(rng.choice(messages) for _ in range(len(messages)))
            if not self.offer(bytes(data))[1]:
                return f"mutation {i}: the connection stays open"
            if i % 50 == 0:
                self.look()
        return ""

    def wrong(self):
        faults = []
        for name, data, wanted in self.protocol.wrong():
            # What is answered with an error leaves the connection open: we end it. What ends it need not be told.
            answer, is_closed = self.offer(data, is_ending=wanted != "closed")
            if not is_closed:
                faults.append(f"{name}: the connection stays open")
            elif wanted != "closed" and self.protocol.error_of(answer) != wanted:
                faults.append(f"{name}: error {self.protocol.error_of(answer)}, not {wanted}")
            self.look()
        return "\n".join(faults)

    def slow(self):
        """100 clients send a good session byte by byte."""
        stream = b"".join(self.protocol.session())
        socks = [connect(self.address) for _ in range(100)]
        end = time.monotonic() + 3
        at = 0
        while time.monotonic() < end and at < len(stream):
            for sock in socks:
                try:
                    sock.send(stream[at:at + 1], socket.MSG_DONTWAIT)
                except OSError:
                    pass
            at += 1
            self.look()
            time.sleep(0.01)
        for sock in socks:
            sock.close()
        return ""

    def stalled(self):
        """60 clients announce much and send little, or take nothing of what they asked for."""
        socks = []
        for _ in range(60):
            sock = connect(self.address)
            sock.sendall(self.protocol.stalled())
            socks.append(sock)
        end = time.monotonic() + 3
        slow = 0
        while time.monotonic() < end:
            start = time.monotonic()
            self.witness.work()
            slow = max(slow, time.monotonic() - start)
            time.sleep(0.02)
        self.stalled_s = slow
        for sock in socks:
            sock.close()
        return "" if slow < 5 else f"the witness waited for {slow:.1f} s"

    def never_reading(self):
        """Sends for 3 s and takes no answers; the server must stop reading at some time."""
        stream = b"".join(self.protocol.session()[:-1])
        again = self.protocol.session()[-2] * 100
        sock = connect(self.address)
        sock.setblocking(False)
        data = stream
        sent = 0
        end = time.monotonic() + 3
        while time.monotonic() < end:
            _, writable, _ = select.select([], [sock], [], 0.1)
            if writable:
                try:
                    count = sock.send(data)
                except OSError:
                    break
                sent += count
                data = data[count:] or again
            self.look()
        sock.close()
        return ""

    def many_at_once(self):
        """More connections than a server may have: those before them go on."""
        socks = []
        for _ in range(1500):
            try:
                socks.append(connect(self.address, 5))
            except OSError:
                break
            if len(socks) % 100 == 0:
                self.look()
        self.look()
        for sock in socks:
            sock.close()
        return "" if len(socks) > 1000 else f"only {len(socks)} connections were accepted"

    def in_turn(self):
        start = time.monotonic()
        reset = struct.pack("ii", 1, 0)
        first = self.protocol.session()[0]
        for i in range(self.connections):
            sock = socket.socket()
            # Other source addresses: one has too few ports for all that linger.
            sock.bind((f"127.0.0.{2 + i % 250}", 0))
            sock.connect(self.address)
            if i % 4 == 0:
                sock.send(first)
            if i % 2 == 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            sock.close()
            if i % 500 == 0:
                self.look()
        self.in_turn_s = time.monotonic() - start
        return ""

    def run(self, name):
        self.look()
        before = self.rss_max
        self.section(f"{name}: a good session", self.session)
        self.section(f"{name}: random bytes", self.random_bytes)
        self.section(f"{name}: messages cut off", self.truncated)
        self.section(f"{name}: messages changed, and in a wrong order", self.mutated)
        self.section(f"{name}: messages that are wrong", self.wrong)
        self.section(f"{name}: slow senders", self.slow)
        self.section(f"{name}: stalled senders", self.stalled)
        self.section(f"{name}: a client that takes no answers", self.never_reading)
        self.section(f"{name}: more connections than may be", self.many_at_once)
        time.sleep(0.2)
        self.section(f"{name}: {self.connections} connections opened and dropped", self.in_turn)
        TAP.ok(self.slowest < WITNESS_MAX_S, f"{name}: an honest client is served within {WITNESS_MAX_S} s",
               f"at most {self.slowest * 1000:.0f} ms; {self.connections} connections in turn took {self.in_turn_s:.1f} s")
        TAP.ok(self.rss_max < self.rss_max_mib, f"{name}: the server is smaller than {self.rss_max_mib} MiB",
               f"at most {self.rss_max:.0f} MiB, {before:.0f} before")


def main():
    name, address, pid, connections, rss_max = sys.argv[1:]
    host, _, port = address.rpartition(":")
    Test(PROTOCOLS[name], (host, int(port)), int(pid), int(connections), int(rss_max)).run(name)
    print(f"1..{TAP.count}")


main()
