"""The bucket's table of `make bench`: varve with its volume in a bucket, beside s3fs and s3backer on the same server, with
0, 10 and 30 ms added to each request. Started by tests/bench/bucket. A target that is not met prints MISSED with its
cause from CAUSES; it is never removed. Every loop is bounded in time, and so is the whole (BENCH_BUCKET_MINUTES)."""
import atexit
import datetime
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

BUILD = os.path.abspath(sys.argv[1])
SMALL = os.environ.get("BENCH_SIZE") == "small"
DELAYS = [int(d) for d in os.environ.get("BENCH_DELAYS", "0,10,30").split(",")]
PEERS = os.environ.get("BENCH_PEERS", "s3fs,s3backer").split(",")
END = time.monotonic() + 60 * float(os.environ.get("BENCH_BUCKET_MINUTES", "12"))
SIDE_S = 60  # none begins when less time is left
MIB = 1 << 20
BULK = (64 if SMALL else 256) * MIB
CREATES = 1000 if SMALL else 4000
SYNCS = 60 if SMALL else 200
STREAM = 100 * 10**6  # bytes/s of the other client
LINE = 100 * 10**6  # bytes/s of the line that one of the cold reads has
PEER_S = 6 if SMALL else 10  # a peer's loop of small operations ends after so long
VARVE = os.path.join(BUILD, "varve")
WORK = tempfile.mkdtemp(prefix="bench-bucket-", dir=os.environ.get("BENCH_DIR", BUILD))
PROCESSES = []
BEGUN = time.monotonic()
MISSED = []

# Why a target is missed. By line.
CAUSES = {}
BUSY = ("a sync waits for its commit and those before it, which are under way together (docs/decisions/0017): what is above "
        "a request's time is the line, and client, kernel, server, proxy and gateway sharing two processors, as with plain PUTs")
for ms in (10, 30):
    CAUSES[f"fsync while streaming at {ms} ms"] = BUSY
    CAUSES[f"fsync at {ms} ms"] = "client, kernel, server and proxy share the processors: what is above a request's time is theirs"


def sh(*command, timeout=300, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=timeout).stdout


def drop_caches():
    """Clean pages only: sync(2) would wait for everybody's file systems."""
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def wait_until(condition, seconds, what):
    end = time.time() + seconds
    while time.time() < end:
        if condition():
            return
        time.sleep(0.02)
    sys.exit(f"bench: {what} does not start")


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_listening(port):
    import socket
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """versitygw over a directory of this disk, and a proxy before it."""

    def __init__(self):
        self.port = free_port()
        os.makedirs(WORK + "/gw/vol")
        log = open(WORK + "/gw.log", "w")
        self.process = subprocess.Popen(
            [BUILD + "/s3-servers/versitygw", "--quiet", "--keep-alive", "--port", f"127.0.0.1:{self.port}", "--access",
             "AK", "--secret", "SK", "posix", WORK + "/gw"], stdout=log, stderr=log)
        PROCESSES.append(self.process)
        wait_until(lambda: is_listening(self.port), 20, "versitygw")
        self.proxy = subprocess.Popen([sys.executable, "tests/it/s3_proxy.py", str(self.port)], stdout=subprocess.PIPE,
                                      text=True)
        PROCESSES.append(self.proxy)
        self.proxy_port = int(self.proxy.stdout.readline().split()[1])
        self.delay = 0
        with open(WORK + "/access", "w") as file:
            os.chmod(WORK + "/access", 0o600)
            file.write("AK:SK\n")

    def set_delay(self, delay, line=0):
        self.delay = delay
        data = json.dumps({"delay_ms": delay, "bytes_per_s": line}).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{self.proxy_port}/-/plan", data=data).read()

    def counts(self):
        """(PUTs, bytes up, all requests, bytes down) so far."""
        counts = json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.proxy_port}/-/counts"))
        return counts["kinds"].get("PUT", 0), counts["up_bytes"], counts["requests"], counts["down_bytes"]

    def request(self, connection, method, path, body=b""):
        """One signed request over an open connection."""
        at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        host = f"127.0.0.1:{self.proxy_port}"
        canonical = (f"{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:{at}\n\n"
                     "host;x-amz-content-sha256;x-amz-date\nUNSIGNED-PAYLOAD")
        scope = f"{at[:8]}/us-east-1/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = b"AWS4SK"
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        connection.request(method, path, body, {
            "Host": host, "x-amz-date": at, "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
            "Authorization": f"AWS4-HMAC-SHA256 Credential=AK/{scope}, SignedHeaders=host;x-amz-content-sha256;"
                             f"x-amz-date, Signature={signature}"})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            sys.exit(f"bench: {method} {path}: {answer.status}")
        return data

    def yardstick(self):
        """(seconds of a small PUT, bytes/s of four parallel PUTs, and of four parallel GETs, p99 of small PUTs while
        STREAM bytes a second are put by another client): what the server gives to anybody behind this proxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy_port)
        times = []
        for i in range(20):
            begun = time.perf_counter()
            self.request(connection, "PUT", f"/vol/yard/small{i}", os.urandom(5000))
            times.append(time.perf_counter() - begun)
        body = os.urandom(8 * MIB)

        def move(method, k):
            mine = http.client.HTTPConnection("127.0.0.1", self.proxy_port)
            for i in range(3):
                self.request(mine, method, f"/vol/yard/large{k}-{i}", body if method == "PUT" else b"")

        rates = []
        for method in ("PUT", "GET"):
            threads = [threading.Thread(target=move, args=(method, k)) for k in range(4)]
            begun = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rates.append(12 * len(body) / (time.perf_counter() - begun))
        busy = self.busy_puts(connection)
        shutil.rmtree(WORK + "/gw/vol/yard", ignore_errors=True)
        return statistics.median(times), rates[0], rates[1], busy

    def busy_puts(self, connection):
        """p99 of 100 small PUTs while another process puts STREAM bytes a second, 8 MiB at a time, two at once."""
        child = os.fork()
        if child == 0:
            try:
                self.put_stream(10)
            finally:
                os._exit(0)
        time.sleep(0.5)
        times = []
        for i in range(100):
            begun = time.perf_counter()
            self.request(connection, "PUT", f"/vol/yard/busy{i}", os.urandom(5000))
            times.append(time.perf_counter() - begun)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return sorted(times)[99 * len(times) // 100]

    def put_stream(self, seconds):
        body = os.urandom(8 * MIB)
        begun = time.monotonic()

        def put(k):
            mine = http.client.HTTPConnection("127.0.0.1", self.proxy_port)
            done = 0
            while time.monotonic() - begun < seconds:
                self.request(mine, "PUT", f"/vol/yard/stream{k}-{done % 4}", body)
                done += 1
                time.sleep(max(0, done * 2 * len(body) / STREAM - (time.monotonic() - begun)))

        threads = [threading.Thread(target=put, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class Side:
    bulk = BULK
    is_streaming = True  # is it measured beside another client's stream?
    has_names = True     # can it make files?

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.home = os.path.join(WORK, re.sub("[^a-z0-9]+", "-", name))
        self.path = self.home + "/mnt"
        self.process = None

    def start(self):
        os.makedirs(self.path)
        os.makedirs(f"{WORK}/gw/vol/{self.prefix()}", exist_ok=True)
        self.make()
        self.mount()

    def file(self, name):
        return self.path + "/" + name

    def prefix(self):
        return os.path.basename(self.home)

    def make(self):
        pass

    def run(self, command, env=None):
        with open(self.home + "/log", "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        PROCESSES.append(self.process)
        wait_until(lambda: os.path.ismount(self.path) or self.process.poll() is not None, 30, self.name)
        if self.process.poll() is not None:
            with open(self.home + "/log") as log:
                sys.exit(f"bench: {self.name} does not start: {log.read()[-500:]}")

    def unmount(self):
        subprocess.run(["umount", self.path], capture_output=True, check=False, timeout=60)
        if self.process:
            if self.process.poll() is None and isinstance(self, Varve):
                self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
            PROCESSES.remove(self.process)
            self.process = None

    def remount(self):
        self.unmount()
        self.mount()

    def remove(self):
        self.unmount()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(f"{WORK}/gw/vol/{self.prefix()}", ignore_errors=True)

    def settle(self):
        sh("sync", "-f", self.path, timeout=SIDE_S)


class Varve(Side):
    def __init__(self, server, durability):
        super().__init__(server, "varve, " + durability)
        self.durability = durability

    def store(self):
        return ["s3://vol/" + self.prefix(), "--endpoint", f"http://127.0.0.1:{self.server.proxy_port}",
                "--access-key-file", WORK + "/access", "--state", self.home + "/state"]

    def make(self):
        sh(VARVE, "init", *self.store(), "--key-file", self.home + "/key", "--quiet")

    def mount(self):
        self.run([VARVE, "serve", *self.store(), "--key-file", self.home + "/key", "--mount", self.path,
                  "--durability", self.durability])

    def settle(self):
        sh(VARVE, "flush", *self.store())


class S3fs(Side):
    def __init__(self, server):
        super().__init__(server, "s3fs")

    def mount(self):
        self.run(["s3fs", "-f", f"vol:/{self.prefix()}", self.path, "-o", f"url=http://127.0.0.1:{self.server.proxy_port}",
                  "-o", "use_path_request_style", "-o", f"passwd_file={WORK}/access", "-o", "parallel_count=8"])


class S3backer(Side):
    """Its file, a block device of 1 GiB in blocks of 128 KiB, with no file system on it. Without big_writes each 4 KiB that
    the kernel writes is a PUT of a block, so that ext4 over a loop device takes minutes for a few MiB, and sync(2) on
    the whole machine waits for it."""
    bulk = 16 * MIB
    is_streaming = False
    has_names = False

    def __init__(self, server):
        super().__init__(server, "s3backer")

    def mount(self):
        self.run(["s3backer", "-f", f"--baseURL=http://127.0.0.1:{self.server.proxy_port}/", f"--accessFile={WORK}/access",
                  "--blockSize=128k", "--size=1g", "--accessType=private", "--authVersion=aws4", "--listBlocks",
                  "--blockCacheSync", "--blockCacheWriteDelay=0", f"--prefix={self.prefix()}/", "-o", "big_writes", "vol", self.path])

    def file(self, name):
        return self.path + "/file"


# ---- what is measured ----

def creates(side):
    """Files of 4 KiB: open, write, close."""
    os.makedirs(side.path + "/d", exist_ok=True)
    data = os.urandom(4096)
    begun = time.perf_counter()
    done = 0
    while done < CREATES and (done == 0 or time.perf_counter() - begun < PEER_S):
        with open(f"{side.path}/d/f{done}", "wb", buffering=0) as file:
            file.write(data)
        done += 1
    return done / (time.perf_counter() - begun)


def fsyncs(side):
    """Milliseconds of an append of 4 KiB and its fsync: all of them, sorted."""
    times = []
    fd = os.open(side.file("log"), (os.O_CREAT | os.O_APPEND if side.has_names else 0) | os.O_WRONLY, 0o644)
    begun = time.perf_counter()
    while len(times) < SYNCS and (not times or time.perf_counter() - begun < PEER_S):
        at = time.perf_counter()
        os.write(fd, os.urandom(4096))
        os.fsync(fd)
        times.append((time.perf_counter() - at) * 1e3)
        time.sleep(0.002)
    os.close(fd)
    return sorted(times)


def streaming(side, measure):
    """The same while another client writes STREAM bytes a second. (Its real rate comes back, too.)"""
    code = ("import os, sys, time\n"
            "data = os.urandom(1 << 20); fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
            "begun = time.monotonic(); done = 0\n"
            f"while done < {STREAM} * 30:\n"
            "    os.pwrite(fd, data, done % (256 << 20)); done += len(data)\n"
            "    print(done, time.monotonic() - begun, flush=True)\n"
            f"    time.sleep(max(0, done / {STREAM} - (time.monotonic() - begun)))\n")
    with tempfile.TemporaryFile("w+") as out:
        other = subprocess.Popen([sys.executable, "-c", code, side.path + "/stream"], stdout=out)
        time.sleep(1)
        times = measure(side)
        other.kill()
        other.wait()
        out.seek(0)
        lines = out.read().split("\n")
    done, seconds = (float(x) for x in lines[-2].split()) if len(lines) > 1 else (0, 1)
    os.unlink(side.path + "/stream")
    return times, done / seconds


def write(side):
    data = os.urandom(MIB)
    begun = time.perf_counter()
    fd = os.open(side.file("bulk"), (os.O_CREAT if side.has_names else 0) | os.O_WRONLY, 0o644)
    for i in range(side.bulk // MIB):
        os.write(fd, i.to_bytes(4, "big") + data[4:])
    os.fsync(fd)
    os.close(fd)
    return side.bulk / (time.perf_counter() - begun) / 1e6


def read(side):
    begun = time.perf_counter()
    with open(side.file("bulk"), "rb", buffering=0) as file:
        size = 0
        while size < side.bulk and (data := file.read(MIB)):
            size += len(data)
    assert size == side.bulk
    return size / (time.perf_counter() - begun) / 1e6


def part(times, share):
    if not times:
        return None
    return times[min(len(times) - 1, int(len(times) * share))]


def measure(side):
    got = {}
    server = side.server
    try:
        side.start()
    except RuntimeError as error:
        return {"error": str(error)}
    if side.has_names:
        got["create"] = creates(side)
    side.settle()
    before = server.counts()
    times = fsyncs(side)
    after = server.counts()
    got["fsync50"], got["fsync99"] = part(times, 0.5), part(times, 0.99)
    got["fsync_puts"] = (after[0] - before[0]) / max(1, len(times))
    if side.is_streaming:
        times, got["stream"] = streaming(side, fsyncs)
        got["busy50"], got["busy99"] = part(times, 0.5), part(times, 0.99)
    side.settle()
    before = server.counts()
    got["write"] = write(side)
    side.settle()
    after = server.counts()
    got["puts"] = (after[0] - before[0]) / (side.bulk / MIB)
    got["bytes"] = (after[1] - before[1]) / side.bulk
    side.remount()
    drop_caches()
    got["cold"] = read(side)
    drop_caches()
    got["warm"] = read(side)
    side.remount()
    drop_caches()
    delay = server.delay
    server.set_delay(delay, LINE)
    before = server.counts()
    got["line"] = read(side)
    got["fetched"] = (server.counts()[3] - before[3]) / side.bulk
    server.set_delay(delay)
    side.remove()
    return got


def guarded(side):
    """A peer that fails or hangs must not end the table."""
    begun = time.monotonic()
    timer = threading.Timer(2 * SIDE_S, lambda: side.process and side.process.kill())
    timer.start()
    try:
        got = measure(side)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        if isinstance(side, Varve):
            raise
        side.remove()
        return {"error": str(error)}
    finally:
        timer.cancel()
        side.server.set_delay(side.server.delay)
    got["seconds"] = time.monotonic() - begun
    return got


# ---- printing ----

COLUMNS = (("create", "files/s"), ("fsync50", "ms"), ("fsync99", "ms"), ("fsync_puts", "PUTs"), ("busy50", "ms"),
           ("busy99", "ms"), ("write", "MB/s"), ("puts", "PUT/MiB"), ("bytes", "B/B"), ("cold", "MB/s"), ("warm", "MB/s"),
           ("line", "MB/s"), ("fetched", "B/B"))
NOTES = {
    "varve, bucket": "durable when fsync returns: in the bucket. create and close are not durable. Caching: the kernel's, dropped "
                     "before the cold and the warm read; varve's memory, empty before the cold one",
    "varve, journal": "durable when fsync returns: in the local journal, fdatasync included; the bucket follows. Caching: as above",
    "s3fs": "durable when close or fsync returns (each uploads the whole file). Caching: the kernel's; no disk cache (use_cache is off)",
    "s3backer": "no file system: its one file of 1 GiB, blocks of 128 KiB, --blockCacheSync: a write is answered when the bucket "
                "has its block, so it is durable when it returns. fsync: 4 KiB at its start and fsync. Caching: the kernel's; "
                f"its block cache in memory. The bulk file has {S3backer.bulk // MIB} MiB; not measured beside a stream",
}


def text_of(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def verdict(name, is_met, text):
    if is_met:
        return f"    {text}  met"
    MISSED.append(name)
    return f"    {text}  MISSED: {CAUSES.get(name, 'cause not looked into yet')}"


def print_targets(delay, got, yard):
    small_ms = yard[0] * 1e3
    if delay < 10 or "fsync50" not in got:
        return
    print(verdict(f"fsync at {delay} ms", got["fsync50"] <= 1.3 * small_ms,
                  f"fsync p50 = {got['fsync50'] / small_ms:.2f} request times of {small_ms:.1f} ms (at most 1.3)"))
    print(verdict(f"one PUT an fsync at {delay} ms", abs(got["fsync_puts"] - 1) < 0.1,
                  f"{got['fsync_puts']:.2f} PUTs an fsync (1, besides a flush of metadata now and then)"))
    print(verdict(f"fsync while streaming at {delay} ms", got["busy99"] <= 2.5 * small_ms,
                  f"p99 while another client streams {got['stream'] / 1e6:.0f} MB/s = {got['busy99'] / small_ms:.2f} request "
                  f"times (at most 2.5); a plain PUT's p99 beside a plain stream: {yard[3] * 1e3 / small_ms:.2f}"))
    print(verdict(f"cold read at {delay} ms", got["line"] * 1e6 >= 0.8 * LINE and got["fetched"] <= 1.1,
                  f"cold read over a line of {LINE / 1e6:.0f} MB/s = {got['line'] * 1e6 / LINE:.2f} of it (at least 0.80), "
                  f"{got['fetched']:.3f} bytes fetched per byte (at most 1.1); without a line {got['cold'] * 1e6 / yard[2]:.2f} "
                  "of four plain GETs at a time (no target: all processors are busy then)"))


def main():
    atexit.register(clean_up)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: interrupted"))
    server = Server()
    print(f"\nthe bucket: {sh(VARVE, 'version').strip()}; versitygw over a directory of this disk (it does not sync), a proxy in "
          f"Python before it; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; one run")
    print(f"create: files of 4 KiB; fsync: append of 4 KiB, p50 and p99 of {SYNCS}; busy: the same while another client streams; "
          f"write: {BULK // MIB} MiB and fsync;\nPUT/MiB, B/B: requests and bytes sent to the server per MiB and byte of that write, "
          "settled; cold: the same file after a restart; warm: again, kernel's cache dropped;\nline: cold after another restart, over a "
          f"line of {LINE / 1e6:.0f} MB/s, and bytes fetched per byte of it")
    for delay in DELAYS:
        server.set_delay(delay)
        yard = server.yardstick()
        print(f"\n{delay} ms added; behind the proxy a PUT of 5 KB takes {yard[0] * 1e3:.1f} ms, four PUTs of 8 MiB at a time move "
              f"{yard[1] / 1e6:.0f} MB/s, four GETs {yard[2] / 1e6:.0f} MB/s; "
              f"beside {STREAM / 1e6:.0f} MB/s of plain PUTs a PUT of 5 KB takes {yard[3] * 1e3:.1f} ms at p99")
        print(f"{'':<16}" + "".join(f"{name:>11}" for name, _ in COLUMNS))
        print(f"{'':<16}" + "".join(f"{unit:>11}" for _, unit in COLUMNS))
        sides = [Varve(server, "bucket"), Varve(server, "journal")]
        sides += [S3fs(server)] if "s3fs" in PEERS and shutil.which("s3fs") else []
        sides += [S3backer(server)] if "s3backer" in PEERS and shutil.which("s3backer") else []
        for side in sides:
            if END - time.monotonic() < SIDE_S:
                print(f"{side.name:<16} not measured: BENCH_BUCKET_MINUTES are over")
                continue
            got = guarded(side)
            if "error" in got:
                print(f"{side.name:<16} not measured: {got['error'].strip()}")
                continue
            print(f"{side.name:<16}" + "".join(f"{text_of(got.get(name)):>11}" for name, _ in COLUMNS), flush=True)
            if os.environ.get("BENCH_VERBOSE"):
                print(f"{'':<16}({got['seconds']:.0f} s)")
            if side.name == "varve, bucket":
                print_targets(delay, got, yard)
    print()
    for name, note in NOTES.items():
        print(f"{name}: {note}")
    print(f"bench, the bucket: {time.monotonic() - BEGUN:.0f} s, {len(MISSED)} targets missed{': ' + ', '.join(MISSED) if MISSED else ''}")


def clean_up():
    for process in PROCESSES:
        if process.poll() is None:
            process.kill()
    for line in sh("mount").split("\n"):
        if WORK in line:
            subprocess.run(["umount", "-l", line.split(" on ")[1].split(" type ")[0]], check=False, capture_output=True)
    shutil.rmtree(WORK, ignore_errors=True)


main()
