"""The bucket's table of `make bench`: varve with its volume in a bucket, beside s3fs (and s3backer, when BENCH_PEERS
names it) on the same server, with 0, 10 and 30 ms added to each request. Started by tests/bench/bucket. A target that is not met prints MISSED with its
cause from CAUSES; it is never removed."""
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
DELAYS = [int(d) for d in os.environ.get("BENCH_DELAYS", "30,10,0").split(",")]
PEERS = os.environ.get("BENCH_PEERS", "s3fs").split(",")
MINUTES = float(os.environ.get("BENCH_BUCKET_MINUTES", "6"))
MIB = 1 << 20
BULK = (64 if SMALL else 256) * MIB
CREATES = 1000 if SMALL else 4000
SYNCS = 60 if SMALL else 200
STREAM = 100 * 10**6  # bytes/s of the other client
PEER_S = 6 if SMALL else 10  # a peer's loop of small operations ends after so long
VARVE = os.path.join(BUILD, "varve")
WORK = tempfile.mkdtemp(prefix="bench-bucket-", dir=os.environ.get("BENCH_DIR", BUILD))
PROCESSES = []
MISSED = []

# Why a target is missed. By line.
CAUSES = {}


def sh(*command, timeout=300, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=timeout).stdout


def drop_caches():
    os.sync()
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

    def set_delay(self, delay):
        self.delay = delay
        data = json.dumps({"delay_ms": delay} if delay else {}).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{self.proxy_port}/-/plan", data=data).read()

    def counts(self):
        """(PUTs, bytes up, all requests) so far."""
        counts = json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.proxy_port}/-/counts"))
        return counts["kinds"].get("PUT", 0), counts["up_bytes"], counts["requests"]

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
        """(seconds of a small PUT, bytes/s of four parallel PUTs, and of four parallel GETs): what the server gives to
        anybody behind this proxy."""
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
        shutil.rmtree(WORK + "/gw/vol/yard", ignore_errors=True)
        return statistics.median(times), rates[0], rates[1]


class Side:
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
        os.sync()


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
    """A block device of 1 GiB in blocks of 128 KiB, with its usual block cache, and ext4 on it through a loop device."""

    def __init__(self, server):
        super().__init__(server, "s3backer")

    def mount(self):
        os.makedirs(self.home + "/dev", exist_ok=True)
        with open(self.home + "/log", "a") as log:
            self.process = subprocess.Popen(
                ["s3backer", "-f", f"--baseURL=http://127.0.0.1:{self.server.proxy_port}/", "--accessFile=" + WORK + "/access",
                 "--blockSize=128k", "--size=1g", "--accessType=private", "--authVersion=aws4",
                 "--listBlocks", "--blockCacheSync", "--blockCacheWriteDelay=0", "--prefix=" + self.prefix() + "/", "vol", self.home + "/dev"], stdout=log, stderr=log)
        PROCESSES.append(self.process)
        wait_until(lambda: os.path.exists(self.home + "/dev/file") or self.process.poll() is not None, 30, self.name)
        if self.process.poll() is not None:
            with open(self.home + "/log") as log:
                raise RuntimeError(log.read()[-300:])
        if not os.path.exists(self.home + "/formatted"):
            delay = self.server.delay
            self.server.set_delay(0)  # making the file system is no part of the table
            sh("mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", "-J", "size=4",
               self.home + "/dev/file")
            self.server.set_delay(delay)
            open(self.home + "/formatted", "w").close()
        sh("mount", "-o", "loop", self.home + "/dev/file", self.path)

    def unmount(self):
        subprocess.run(["umount", self.path], capture_output=True, check=False, timeout=120)
        subprocess.run(["umount", self.home + "/dev"], capture_output=True, check=False, timeout=120)
        if self.process:
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
            PROCESSES.remove(self.process)
            self.process = None


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
    fd = os.open(side.path + "/log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
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
    fd = os.open(side.path + "/bulk", os.O_CREAT | os.O_WRONLY, 0o644)
    for i in range(BULK // MIB):
        os.write(fd, i.to_bytes(4, "big") + data[4:])
    os.fsync(fd)
    os.close(fd)
    return BULK / (time.perf_counter() - begun) / 1e6


def read(side):
    begun = time.perf_counter()
    with open(side.path + "/bulk", "rb", buffering=0) as file:
        size = 0
        while data := file.read(MIB):
            size += len(data)
    assert size == BULK
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
    got["create"] = creates(side)
    side.settle()
    before = server.counts()
    times = fsyncs(side)
    after = server.counts()
    got["fsync50"], got["fsync99"] = part(times, 0.5), part(times, 0.99)
    got["fsync_puts"] = (after[0] - before[0]) / max(1, len(times))
    times, got["stream"] = streaming(side, fsyncs)
    got["busy50"], got["busy99"] = part(times, 0.5), part(times, 0.99)
    side.settle()
    before = server.counts()
    got["write"] = write(side)
    side.settle()
    after = server.counts()
    got["puts"] = (after[0] - before[0]) / (BULK / MIB)
    got["bytes"] = (after[1] - before[1]) / BULK
    side.remount()
    drop_caches()
    got["cold"] = read(side)
    drop_caches()
    got["warm"] = read(side)
    side.remove()
    return got


# ---- printing ----

COLUMNS = (("create", "files/s"), ("fsync50", "ms"), ("fsync99", "ms"), ("fsync_puts", "PUTs"), ("busy50", "ms"),
           ("busy99", "ms"), ("write", "MB/s"), ("puts", "PUT/MiB"), ("bytes", "B/B"), ("cold", "MB/s"), ("warm", "MB/s"))
NOTES = {
    "varve, bucket": "durable when fsync returns: in the bucket. create and close are not durable. Caching: the kernel's, dropped "
                     "before the cold and the warm read; varve's memory, empty before the cold one",
    "varve, journal": "durable when fsync returns: in the local journal, fdatasync included; the bucket follows. Caching: as above",
    "s3fs": "durable when close or fsync returns (each uploads the whole file). Caching: the kernel's; no disk cache (use_cache is off)",
    "s3backer": "ext4 on a loop device on it, blocks of 128 KiB, --blockCacheSync: a write is answered when the bucket has "
                "its block, so fsync is durable there. Caching: the kernel's; its block cache in memory",
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
                  "times (at most 2.5)"))
    print(verdict(f"cold read at {delay} ms", got["cold"] * 1e6 >= 0.8 * yard[2],
                  f"cold read = {got['cold'] * 1e6 / yard[2]:.2f} of what four plain GETs at a time get (at least 0.80)"))


def main():
    atexit.register(clean_up)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: interrupted"))
    begun = time.monotonic()
    server = Server()
    print(f"\nthe bucket: {sh(VARVE, 'version').strip()}; versitygw over a directory of this disk (it does not sync), a proxy in "
          f"Python before it; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; one run")
    print(f"create: files of 4 KiB; fsync: append of 4 KiB, p50 and p99 of {SYNCS}; busy: the same while another client streams; "
          f"write: {BULK // MIB} MiB and fsync;\nPUT/MiB, B/B: requests and bytes sent to the server per MiB and byte of that write, "
          "settled; cold: the same file after a restart; warm: again, kernel's cache dropped")
    for delay in DELAYS:
        server.set_delay(delay)
        yard = server.yardstick()
        print(f"\n{delay} ms added; behind the proxy a PUT of 5 KB takes {yard[0] * 1e3:.1f} ms, four PUTs of 8 MiB at a time move "
              f"{yard[1] / 1e6:.0f} MB/s, four GETs {yard[2] / 1e6:.0f} MB/s")
        print(f"{'':<16}" + "".join(f"{name:>11}" for name, _ in COLUMNS))
        print(f"{'':<16}" + "".join(f"{unit:>11}" for _, unit in COLUMNS))
        sides = [Varve(server, "bucket"), Varve(server, "journal")]
        sides += [S3fs(server)] if "s3fs" in PEERS and shutil.which("s3fs") else []
        sides += [S3backer(server)] if "s3backer" in PEERS and shutil.which("s3backer") else []
        for side in sides:
            if time.monotonic() - begun > MINUTES * 60:
                print(f"{side.name:<16} not measured: BENCH_BUCKET_MINUTES={MINUTES:g} are over")
                continue
            got = measure(side)
            if "error" in got:
                print(f"{side.name:<16} not measured: {got['error'].strip()}")
                continue
            print(f"{side.name:<16}" + "".join(f"{text_of(got.get(name)):>11}" for name, _ in COLUMNS), flush=True)
            if side.name == "varve, bucket":
                print_targets(delay, got, yard)
    print()
    for name, note in NOTES.items():
        print(f"{name}: {note}")
    print(f"bench, the bucket: {len(MISSED)} targets missed{': ' + ', '.join(MISSED) if MISSED else ''}")


def clean_up():
    for process in PROCESSES:
        if process.poll() is None:
            process.kill()
    for line in sh("mount").split("\n"):
        if WORK in line:
            subprocess.run(["umount", "-l", line.split(" on ")[1].split(" type ")[0]], check=False, capture_output=True)
    shutil.rmtree(WORK, ignore_errors=True)


main()
