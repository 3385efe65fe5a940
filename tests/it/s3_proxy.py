"""A proxy in front of an S3 server that can be slow, lie and break. Requests are passed on as they came (the signature
covers the Host header, which is kept).

usage: s3_proxy.py UPSTREAM_PORT [PLAN] [--times] [--log FILE]      prints "port N" when it listens

PLAN is a JSON object, and can be replaced at any time: POST it to /-/plan. GET /-/counts answers what happened so far.

  delay_ms           each request takes that much longer, half before and half after its effect
  bytes_per_s        of bodies in each direction, all requests together
  absent_ignored     If-None-Match is dropped: puts overwrite
  list_lag_ms        LIST does not show keys that were put less than that ago
  put_early_ms       PUT is answered at once, and done so much later
  storm              chance in permille of one of the faults below, for each request
  storm_kinds        which of them (default: all)
  down               "503", "reset" or "hang": all requests end so
"""

import asyncio
import json
import random
import re
import socket
import sys
import time

FAULTS = ["500", "503", "500-after", "timeout-after", "timeout", "reset", "reset-after", "slow-body", "cut-body",
          "wrong-etag"]
CHUNK = 1 << 17
HANG_S = 6
SO_RCVBUFFORCE = 33


class Line:
    """Bodies of one direction share a line of `rate` bytes a second."""

    def __init__(self):
        self.free = 0.0

    async def passes(self, size, rate):
        if not rate:
            return
        now = time.monotonic()
        self.free = max(self.free, now) + size / rate
        if self.free - now > 0.002:
            await asyncio.sleep(self.free - now)


class Proxy:
    def __init__(self, port, plan, log):
        self.upstream = port
        self.plan = plan
        self.log = log
        self.has_times = False
        self.idle = []
        self.put_at = {}
        self.counts = {"requests": 0, "faults": {}, "kinds": {}, "up_bytes": 0, "down_bytes": 0, "in_flight_max": 0}
        self.in_flight = 0
        self.up, self.down = Line(), Line()
        self.random = random.Random(1)

    # ---- plain parts ----

    async def read_head(self, reader):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None, {}
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return lines, headers

    async def connect(self):
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.upstream, limit=1 << 20)

    async def copy(self, reader, writer, size, line, rate):
        left = size
        while left > 0:
            data = await reader.read(min(left, CHUNK))
            if not data:
                raise ConnectionError("cut off")
            await line.passes(len(data), rate)
            writer.write(data)
            await writer.drain()
            left -= len(data)

    @staticmethod
    def kind(method, target):
        if "list-type=2" in target:
            return "LIST"
        return method

    def trace(self, lines, headers, begun):
        """With --times the log has a line for each request when it has ended, with what it was and how long it took."""
        if not self.log or not self.has_times:
            return
        method, target, _ = lines[0].split(" ", 2)
        print(json.dumps({"begun": round(begun, 4), "took_ms": round((time.monotonic() - begun) * 1000, 1),
                          "kind": self.kind(method, target), "target": target.split("?")[0],
                          "bytes": int(headers.get("content-length", 0)), "range": headers.get("range", ""),
                          "in_flight": self.in_flight}), file=self.log, flush=True)

    def note(self, kind, target, status, fault):
        self.counts["kinds"][kind] = self.counts["kinds"].get(kind, 0) + 1
        if fault:
            self.counts["faults"][fault] = self.counts["faults"].get(fault, 0) + 1
        if self.log and not self.has_times:
            print(json.dumps({"at": round(time.monotonic(), 4), "kind": kind, "target": target.split("?")[0],
                              "status": status, "fault": fault}), file=self.log, flush=True)

    # ---- one request ----

    async def control(self, lines, headers, reader, writer):
        method, target, _ = lines[0].split(" ", 2)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "POST":
            self.plan = json.loads(body or b"{}")
            answer = b"{}"
        else:
            answer = json.dumps(self.counts).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        await writer.drain()

    @staticmethod
    def answer(writer, status, code, extra=""):
        body = f"<Error><Code>{code}</Code><Message>the proxy says so</Message></Error>".encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
                     .encode() + body)

    async def swallow(self, reader, size):
        while size > 0:
            data = await reader.read(min(size, CHUNK))
            if not data:
                return
            size -= len(data)

    def pick_fault(self, plan):
        if plan.get("down"):
            return {"503": "503", "reset": "reset", "hang": "timeout"}[plan["down"]]
        if self.random.randrange(1000) < plan.get("storm", 0):
            return self.random.choice(plan.get("storm_kinds", FAULTS))
        return None

    async def put_early(self, lines, headers, reader, writer, delay):
        """Answer a PUT before doing it."""
        size = int(headers.get("content-length", 0))
        body = await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\nETag: \"early\"\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

        async def later():
            await asyncio.sleep(delay)
            up_reader, up_writer = await self.connect()
            up_writer.write("\r\n".join(lines).encode("latin-1") + body)
            await up_writer.drain()
            _, up_headers = await self.read_head(up_reader)
            await self.swallow(up_reader, int(up_headers.get("content-length", 0)))
            up_writer.close()

        asyncio.get_running_loop().create_task(later())

    def without_young(self, body, lag):
        """A list page without the keys that are younger than `lag` seconds."""
        now = time.monotonic()

        def keep(match):
            key = re.search(rb"<Key>(.*?)</Key>", match[0])[1].decode()
            return b"" if now - self.put_at.get(key, -1e9) < lag else match[0]

        return re.sub(rb"<Contents>.*?</Contents>", keep, body, flags=re.S)

    async def request(self, lines, headers, reader, writer):
        """Pass one request on; False when the connection has to end."""
        plan = self.plan
        method, target, _ = lines[0].split(" ", 2)
        kind = self.kind(method, target)
        size = int(headers.get("content-length", 0))
        fault = self.pick_fault(plan)
        rate = plan.get("bytes_per_s", 0)
        delay = plan.get("delay_ms", 0) / 1000
        self.counts["up_bytes"] += size
        if fault in ("500", "503", "reset", "timeout"):
            self.note(kind, target, 0, fault)
            if fault == "reset":
                return False
            await self.swallow(reader, size)
            if fault == "timeout":
                await asyncio.sleep(HANG_S)
                return False
            if fault == "503":
                self.answer(writer, "503 Slow Down", "SlowDown", "Retry-After: 0\r\n")
            else:
                self.answer(writer, "500 Internal Server Error", "InternalError")
            await writer.drain()
            return True
        if method == "PUT" and plan.get("absent_ignored"):
            lines = [line for line in lines if not line.lower().startswith("if-none-match:")]
        if delay:
            await asyncio.sleep(delay / 2)
        if method == "PUT" and plan.get("put_early_ms"):
            self.note(kind, target, 200, "early")
            await self.put_early(lines, headers, reader, writer, plan["put_early_ms"] / 1000)
            return True
        up_reader, up_writer = await self.connect()
        try:
            up_writer.write("\r\n".join(lines).encode("latin-1"))
            await self.copy(reader, up_writer, size, self.up, rate)
            await up_writer.drain()
            up_lines, up_headers = await self.read_head(up_reader)
            if up_lines is None:
                raise ConnectionError("the server has gone")
            return await self.pass_back(kind, target, fault, up_lines, up_headers, up_reader, up_writer, writer,
                                        delay, rate)
        except Exception:
            up_writer.close()
            raise

    async def pass_back(self, kind, target, fault, lines, headers, up_reader, up_writer, writer, delay, rate):
        status = int(lines[0].split(" ")[1])
        size = 0 if kind == "HEAD" or status in (204, 304) else int(headers.get("content-length", 0))
        if kind == "PUT" and status == 200:
            self.put_at[target.split("/", 2)[2]] = time.monotonic()
        self.note(kind, target, status, fault)
        if fault in ("500-after", "timeout-after", "reset-after"):
            await self.swallow(up_reader, size)
            self.idle.append((up_reader, up_writer))
            if fault == "timeout-after":
                await asyncio.sleep(HANG_S)
            if fault != "500-after":
                return False
            self.answer(writer, "500 Internal Server Error", "InternalError")
            await writer.drain()
            return True
        if delay:
            await asyncio.sleep(delay / 2)
        if fault == "wrong-etag":
            lines = [("ETag: \"00000000000000000000000000000000\"" if line.lower().startswith("etag:") else line)
                     for line in lines]
        if kind == "LIST" and self.plan.get("list_lag_ms"):
            body = self.without_young(await up_reader.readexactly(size), self.plan["list_lag_ms"] / 1000)
            lines = [(f"Content-Length: {len(body)}" if line.lower().startswith("content-length:") else line)
                     for line in lines]
            writer.write("\r\n".join(lines).encode("latin-1") + body)
        else:
            writer.write("\r\n".join(lines).encode("latin-1"))
            if fault == "cut-body" and size > 1:
                await self.copy(up_reader, writer, size // 2, self.down, rate)
                up_writer.close()
                return False
            if fault == "slow-body" and size > 1:
                await self.copy(up_reader, writer, size // 2, self.down, rate)
                await asyncio.sleep(self.random.random() * 2)
                size -= size // 2
            await self.copy(up_reader, writer, size, self.down, rate)
        self.counts["down_bytes"] += size
        await writer.drain()
        if headers.get("connection", "").lower() == "close":
            up_writer.close()
        else:
            self.idle.append((up_reader, up_writer))
        return True

    async def serve(self, reader, writer):
        try:
            while True:
                lines, headers = await self.read_head(reader)
                if lines is None:
                    break
                if lines[0].split(" ")[1].startswith("/-/"):
                    await self.control(lines, headers, reader, writer)
                    continue
                if headers.get("expect", "").lower() == "100-continue":
                    lines = [line for line in lines if not line.lower().startswith("expect:")]
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.counts["requests"] += 1
                self.in_flight += 1
                self.counts["in_flight_max"] = max(self.counts["in_flight_max"], self.in_flight)
                begun = time.monotonic()
                try:
                    is_open = await self.request(lines, headers, reader, writer)
                finally:
                    self.trace(lines, headers, begun)
                    self.in_flight -= 1
                if not is_open:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, OSError):
            pass
        writer.transport.abort()


def listener():
    """With room for what is sent while a request is held back: a window that has closed may open only by the sender's
    timer, 200 ms later."""
    # Only with its protocol named does asyncio switch Nagle's algorithm off.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    except PermissionError:
        pass
    sock.bind(("127.0.0.1", 0))
    return sock


async def main():
    args = sys.argv[1:]
    log = None
    has_times = "--times" in args
    if has_times:
        args.remove("--times")
    if "--log" in args:
        log = open(args[args.index("--log") + 1], "a", encoding="ascii")
        del args[args.index("--log"):]
    proxy = Proxy(int(args[0]), json.loads(args[1]) if len(args) > 1 else {}, log)
    proxy.has_times = has_times
    server = await asyncio.start_server(proxy.serve, sock=listener(), limit=1 << 20)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
