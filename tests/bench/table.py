"""The table of `make bench`: sides alternate line by line within a run, each run starts from an empty
volume, the first run is dropped, figures are medians. A target that is not met prints MISSED with
its cause from CAUSES; it is never removed. Started by tests/bench/run."""
import atexit
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(sys.argv[1])
SMALL = os.environ.get("BENCH_SIZE") == "small"
RUNS = int(os.environ.get("BENCH_RUNS", "5"))
# No run is begun that would end later than this: the table says how many were counted.
MINUTES = float(os.environ.get("BENCH_MINUTES", "18"))
MEMORY_MINUTES = 0.5 if os.environ.get("BENCH_SIZE") == "small" else 3.0  # kept for what comes after the runs
PEAK_MAX_MIB = 384
VERBOSE = "BENCH_VERBOSE" in os.environ  # say how long each measurement took
ONLY = set(filter(None, os.environ.get("BENCH_LINES", "").split(",")))
MIB = 1 << 20
FILES = 3000 if SMALL else 15000
MANY = 20000 if SMALL else 100000
BULK = (128 if SMALL else 1024) * MIB
WARM = (16 if SMALL else 64) * MIB
READS = 4000 if SMALL else 20000
APPENDS = 100 if SMALL else 500
LOAD = os.path.join(BUILD, "bench-load")
VARVE = os.path.join(BUILD, "varve")
PEER = os.path.join(BUILD, "bench-passthrough_hp")
WORK = tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIR", BUILD))

# Why a target is missed, from profiles (docs/benchmarks.md has the figures). By line.
CAUSES = {
    "write-text": "pinned, the codec has one processor together with everything else: of the processor's samples LZ4 has 55%, AES 4%, the client's write "
                  "calls 16%, receiving requests and the engine 16%, writing the segments 4%, and 3% are idle; the target leaves 20% for all that is not the codec",
    "write-random": "of both processors' samples 17% are halted, waiting for the disk; receiving requests and the engine have 25%, the client's write calls 24%, AES 19%, "
                    "writing the segments 8%: three copies and a disk, of which the bare loop has none (it writes nothing; the one with the disk is slower than this)",
    "read-direct": "pinned, of the processor's samples 28% are halted, waiting for the disk: one worker reads the store's file and opens what it has read, in turn; opening (libcrypto) has 22%, "
                   "which the peer has not, reading 23% (copying out of the page cache 11%), the reply 15%",
    "create": "seven requests a file, the peer's and GETXATTR, one after another (LOOKUP, CREATE, GETXATTR, GETATTR of the parent, WRITE, "
              "FLUSH, RELEASE); pinned, of the processor's samples the client has 30%, the server's system calls 22%, operations on the volume "
              "14%, workers that seal and write what was created 12%; unpinned, each request wakes the client on an idle processor (docs/decisions/0013)",
    "stat-cold": "the requests are the peer's (a LOOKUP; with zero timeouts two GETATTR more); pinned, of the processor's samples the client has 33%, "
                 "looking the name up in the tables 35%, the server's system calls 18%; unpinned, a third of both processors' samples is idle: the client's "
                 "processor falls idle while it is served, and waking it takes longer than serving (docs/decisions/0013)",
    "stat-again": "by default the kernel answers and no server is asked; with zero timeouts the requests are the peer's (a LOOKUP and two GETATTR): "
                  "pinned, of the processor's samples the server's system calls have 33%, the client 24%, the volume 24%; unpinned, of both processors' 50% are idle and "
                  "44% the server, a quarter of that polling in the program itself: the client's processor falls idle while it is served (docs/decisions/0013)",
    "append": "of both processors' samples 27% are halted, waiting for the disk, 11% are telling it to write and to flush (iowrite16), 42% are the server, an eighth of that "
              "polling, 10% the client; two requests are waking the client, about 43 us each time (docs/decisions/0013), the first while the disk writes "
              "(docs/decisions/0019); ext4's client is woken by the disk only",
    "readdir": "of what the server does for it, pinned, 60% is reading the directory (half of that merging runs), the rest system calls and waking",
    "readdir-many": "merging runs and comparing keys (vv_merge_next, memcmp) is 26%, waking 17%",
    "memory": "not profiled",
}



def sh(*command, timeout=900):
    return subprocess.run(command, check=True, capture_output=True, text=True,
                          timeout=timeout).stdout


def drop_caches(what):
    os.sync()
    for _ in range(2):  # the first time only clears the marks of recently used names
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write(str(what))
    time.sleep(0.1)  # the servers get their FORGETs


class Side:
    """Something with a directory to work in. `pinned`: server and client share processor 0."""

    def __init__(self, name, kind, options=(), pinned=False):
        self.name, self.kind, self.options, self.pinned = name, kind, list(options), pinned
        self.home = os.path.join(WORK, re.sub(r"[^a-z0-9]+", "-", name))
        self.bulk = BULK // 4 if pinned else BULK
        self.server = None
        self.path = None
        self.last_load_bytes = 0

    def pin(self):
        return ["taskset", "-c", "0"] if self.pinned else []

    def start(self):
        os.makedirs(self.home)
        self.path = os.path.join(self.home, "mnt" if self.kind != "ext4" else "files")
        os.makedirs(self.path)
        if self.kind == "varve":
            sh(VARVE, "init", self.home + "/vol", "--key-file", self.home + "/key", "--quiet")
        self.serve()

    def serve(self):
        if self.kind == "varve":
            command = [VARVE, "serve", self.home + "/vol", "--key-file", self.home + "/key",
                       "--mount", self.path] + self.options
        elif self.kind == "peer":
            os.makedirs(self.home + "/back", exist_ok=True)
            command = [PEER, "--foreground"] + self.options + [self.home + "/back", self.path]
        else:
            return
        with open(self.home + "/log", "w") as log:
            self.server = subprocess.Popen(self.pin() + command, stdout=log, stderr=log)
        for _ in range(1200):
            if os.path.ismount(self.path):
                return
            if self.server.poll() is not None:
                break
            time.sleep(0.05)
        with open(self.home + "/log") as log:
            sys.exit(f"bench: {self.name} does not start: {log.read()}")

    def stop(self):
        if self.server:
            subprocess.run(["umount", self.path], capture_output=True, check=False, timeout=60)
            if self.kind == "varve" and self.server.poll() is None:
                self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            self.server = None

    def kill(self):
        if self.server and self.server.poll() is None:
            self.server.kill()
            self.server.wait(30)
        self.server = None
        if self.path:
            subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)

    def remove(self):
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def load(self, *arguments, timeout=900):
        """(seconds, count) of one subcommand of load."""
        command = self.pin() + [LOAD] + [str(a) for a in arguments]
        with tempfile.TemporaryFile("w+") as out:
            child = subprocess.Popen(command, stdout=out)
            deadline = time.time() + timeout
            usage = None
            while usage is None:
                pid, status, got = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    usage, child.returncode = got, os.waitstatus_to_exitcode(status)
                elif time.time() > deadline:
                    child.kill()
                    sys.exit(f"bench: {self.name}: {' '.join(command)} takes too long")
                else:
                    time.sleep(0.005)
            if child.returncode != 0:
                sys.exit(f"bench: {self.name}: {' '.join(command)} failed")
            self.last_load_bytes += usage.ru_oublock * 512
            out.seek(0)
            seconds, count = out.read().split()
        return float(seconds), int(count)

    def status(self):
        return json.loads(sh(VARVE, "status", "--json", self.home + "/vol"))

    def settle(self):
        """Let nothing of this line be left for the next."""
        if self.kind == "varve":
            sh(VARVE, "flush", self.home + "/vol")
        os.sync()

    def written(self):
        """(bytes to the store, bytes to the journal) so far. ext4 and the peer: bytes of pages dirtied in
        ext4 by the client or the server; ext4's own journal and inode tables are not in it."""
        if self.kind == "varve":
            status = self.status()
            return (sum(status[kind + "_bytes_written"] for kind in ("log", "data", "table")),
                    status["journal_bytes_written"])
        if self.kind == "ext4":
            return self.last_load_bytes, 0
        with open(f"/proc/{self.server.pid}/io") as io:
            return int(re.search(r"^write_bytes: (\d+)", io.read(), re.M).group(1)), 0


SIDES = [
    Side("varve", "varve"), Side("peer", "peer"), Side("ext4", "ext4"),
    Side("varve/1", "varve", pinned=True), Side("peer/1", "peer", pinned=True),
    Side("ext4/1", "ext4", pinned=True),
    Side("varve nc", "varve", ["--no-cache"]), Side("peer nc", "peer", ["--nocache"]),
    Side("varve nc/1", "varve", ["--no-cache"], True),
    Side("peer nc/1", "peer", ["--nocache"], True),
]
if not os.path.exists(PEER):
    SIDES = [side for side in SIDES if side.kind != "peer"]
BULK_SIDES = ("varve", "peer", "ext4", "varve/1", "peer/1")
SYNC_SIDES = BULK_SIDES + ("ext4/1",)
FREE_SIDES = ("varve", "peer", "ext4")


class Line:
    """One line: `measure(side)` gives the figure. Sides it leaves out are not measured."""

    def __init__(self, name, unit, measure, note, **more):
        self.name, self.unit, self.measure, self.note = name, unit, measure, note
        self.sides = more.get("sides")          # None: all
        self.is_time = more.get("is_time")      # less is better
        self.peer = more.get("peer", "peer")    # whom the ratio is to
        self.target = more.get("target", 0)     # the least ratio, 0 = none
        self.is_writing = more.get("is_writing", False)
        self.figures = {}
        self.written = {}

    def run(self, side, is_counted):
        before = side.written() if self.is_writing else None
        figure = self.measure(side)
        if self.is_writing:
            side.settle()
            after = side.written()
            if is_counted:
                self.written.setdefault(side.name, []).append(
                    tuple(b - a for a, b in zip(before, after)))
        if is_counted and figure is not None:
            self.figures.setdefault(side.name, []).append(figure)

    def median(self, name):
        figures = self.figures.get(name)
        return statistics.median(figures) if figures else None

    def ratio(self, mine, theirs):
        """Over 1: varve is faster."""
        mine, theirs = self.median(mine), self.median(theirs)
        if not mine or not theirs:
            return None
        return theirs / mine if self.is_time else mine / theirs

    def spread(self, mine, theirs):
        """The least and the greatest ratio of a run: what was beside what at the same time."""
        pairs = list(zip(self.figures.get(mine, []), self.figures.get(theirs, [])))
        ratios = [b / a if self.is_time else a / b for a, b in pairs if a and b]
        return (min(ratios), max(ratios)) if len(ratios) > 1 else None


def rate(result):
    return result[1] / result[0]


def create(side):
    return rate(side.load("create", side.path + "/d", FILES, 4096))


def stat_cold(side):
    drop_caches(2)
    return rate(side.load("stat", side.path + "/d", FILES))


def stat_again(side):
    # What a side knew after stat-cold was dropped for the sides behind it.
    side.load("stat", side.path + "/d", FILES)
    return rate(side.load("stat", side.path + "/d", FILES))


def readdir(side):
    drop_caches(2)
    seconds, count = side.load("readdir", side.path + "/d")
    assert count == FILES, (side.name, count)
    return seconds * 1e3


def unlink(side):
    return rate(side.load("unlink", side.path + "/d", FILES))


def write_text(side):
    return rate(side.load("write", side.path + "/text", side.bulk, "text")) / 1e6


def write_random(side):
    if os.path.exists(side.path + "/text"):
        os.unlink(side.path + "/text")
    return rate(side.load("write", side.path + "/bulk", side.bulk, "random")) / 1e6


def read_direct(side):
    drop_caches(3)
    return rate(side.load("read", side.path + "/bulk", "direct")) / 1e6


def read_cached(side):
    side.load("read", side.path + "/bulk", "cached")
    return rate(side.load("read", side.path + "/bulk", "cached")) / 1e6


def random_read(side):
    side.load("write", side.path + "/warm", WARM, "random")
    side.load("read", side.path + "/warm", "direct")
    return rate(side.load("randread", side.path + "/warm", READS))


def overwrite(side):
    return rate(side.load("overwrite", side.path + "/bulk"))


def append(side):
    seconds, count = side.load("append", side.path + "/log", APPENDS)
    return seconds / count * 1e6


def many(side):
    """The big directory lives in volumes of its own, made once."""
    drop_caches(2)
    seconds, count = MANY_SIDES[side.name].load("readdir", MANY_SIDES[side.name].path + "/d")
    assert count == MANY, (side.name, count)
    return seconds * 1e3


NOT_DURABLE = "not durable yet when timed"
SYNCED = "durable: fsync is in the time"
LINES = [
    Line("create", "files/s", create, f"{FILES} files of 4 KiB in one directory: open O_CREAT|O_EXCL, "
         f"write, close; caching: each side's default; {NOT_DURABLE}", target=1, is_writing=True),
    Line("stat-cold", "stats/s", stat_cold, "each file once, random order; caching: the kernel's names "
         "and inodes dropped before, the servers' own warm; durability: nothing written", target=1),
    Line("stat-again", "stats/s", stat_again, "the same twice, the second time counts; caching: by default the kernel answers and "
         "no server is asked, with nc (zero timeouts) the server is; durability: nothing written",
         target=1),
    Line("readdir", "ms", readdir, f"{FILES} entries; caching: the kernel's dropped before; durability: "
         "nothing written", target=1, is_time=True),
    Line("readdir-many", "ms", many, f"{MANY} entries beside ext4; caching: the kernel's dropped before; "
         "durability: nothing written", is_time=True, peer="ext4", sides=("varve", "ext4"),
         target=1),
    Line("unlink", "files/s", unlink, f"the same files; caching: names known from the line before; "
         f"{NOT_DURABLE}", target=1, is_writing=True),
    Line("write-text", "MB/s", write_text, f"{BULK // MIB} MiB ({BULK // 4 // MIB} when pinned) of text, 1 MiB writes; caching: buffered; "
         f"{SYNCED}", sides=BULK_SIDES, is_writing=True),
    Line("write-random", "MB/s", write_random, f"{BULK // MIB} MiB ({BULK // 4 // MIB} when pinned) of random "
         "bytes, 1 MiB writes; "
         f"caching: buffered; {SYNCED}", sides=BULK_SIDES, is_writing=True),
    Line("read-direct", "MB/s", read_direct, f"{BULK // MIB} MiB ({BULK // 4 // MIB} when pinned) of random bytes, "
         "1 MiB reads, O_DIRECT; "
         "caching: none (dropped before); durability: nothing written", sides=BULK_SIDES, target=1),
    Line("read-cached", "MB/s", read_cached, "the same through the page cache, second time; caching: the "
         "kernel's; durability: nothing written", sides=BULK_SIDES),
    Line("randread", "reads/s", random_read, f"4 KiB O_DIRECT in a file of {WARM // MIB} MiB just read; "
         "caching: the server's own; the peer and ext4 ask the disk; durability: nothing written",
         sides=BULK_SIDES),
    Line("overwrite", "writes/s", overwrite, f"4 KiB random bytes, each block of {BULK // MIB} MiB once in "
         f"random order; caching: buffered (the peer: kernel write-back); {SYNCED}",
         sides=FREE_SIDES, is_writing=True),
    Line("append", "us", append, "4 KiB O_APPEND write + fsync, each; caching: none; durable each time "
         "(varve: in the local journal)", sides=SYNC_SIDES, is_time=True, peer="ext4", target=1,
         is_writing=True),
]
if ONLY:
    LINES = [line for line in LINES if line.name in ONLY]
MANY_SIDES = {"varve": Side("many varve", "varve"), "ext4": Side("many ext4", "ext4")}
MISSED = []
BARE = {}
LOAD_AT_START = os.getloadavg()[0]


def bare(kind, is_counted):
    for where in ("", WORK + "/bare"):
        arguments = [LOAD, "bare", str(BULK), kind] + ([where] if where else [])
        seconds, count = sh(*arguments).split()
        if is_counted:
            BARE.setdefault((kind, bool(where)), []).append(int(count) / float(seconds) / 1e6)
    os.unlink(WORK + "/bare")
    os.sync()


def measure_all():
    global RUNS
    began = time.time()
    longest = 0.0
    names = {line.name for line in LINES}
    if "readdir-many" in names:
        for side in MANY_SIDES.values():
            side.start()
            side.load("create", side.path + "/d", MANY, 0)
            side.settle()
    wanted = {name for line in LINES for name in (line.sides or [side.name for side in SIDES])}
    sides = [side for side in SIDES if side.name in wanted]
    for run in range(RUNS + 1):
        started = time.time()
        if run > 1 and started - began + longest > (MINUTES - MEMORY_MINUTES) * 60:
            RUNS = run - 1
            print(f"# BENCH_MINUTES={MINUTES:g}: no time for more than {RUNS} runs", file=sys.stderr, flush=True)
            break
        for side in sides:
            side.start()
        for line in LINES:
            for kind in ("random", "text"):
                if line.name == "write-" + kind:
                    bare(kind, run > 0)
            order = sides[run % len(sides):] + sides[:run % len(sides)]
            for side in order:
                if line.sides is None or side.name in line.sides:
                    before = time.time()
                    line.run(side, run > 0)
                    if VERBOSE:
                        print(f"# {line.name} {side.name}: {time.time() - before:.1f} s", file=sys.stderr, flush=True)
        for side in sides:
            side.remove()
        longest = max(longest, time.time() - started)
        print(f"# run {run}{' (dropped)' if run == 0 else ''}: {time.time() - started:.0f} s",
              file=sys.stderr, flush=True)


# ---- memory ----

def proc_kib(pid, key):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(rf"^{key}:\s+(\d+)", status.read(), re.M).group(1))


def activity(pid):
    """(processor ticks, voluntary switches) of all threads."""
    ticks = switches = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        with open(f"/proc/{pid}/task/{task}/status") as status:
            switches += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read(),
                                      re.M).group(1))
    return ticks, switches


def system_calls(pid, seconds):
    """Counted by strace; None when it does not work here."""
    out = WORK + "/strace"
    subprocess.run(["timeout", "-s", "INT", str(seconds), "strace", "-c", "-f", "-o", out, "-p",
                    str(pid)], capture_output=True, check=False, timeout=seconds + 30)
    try:
        with open(out) as file:
            text = file.read()
    except OSError:
        return None
    total = re.search(r"^100\.00\s+\S+\s+\S+\s+(\d+).*total$", text, re.M)
    names = re.findall(r"^\s*[\d.]+\s+\S+\s+\S+\s+(\d+)\s.*?(\w+)$", text, re.M)
    names = [f"{name} {count}" for count, name in names if name != "total"]
    return (int(total.group(1)) if total else 0), ", ".join(names)


def memory_idle(side, what):
    for _ in range(20):  # what opening has begun comes to its end
        before = activity(side.server.pid)
        time.sleep(1.5)
        if activity(side.server.pid) == before:
            break
    rss = proc_kib(side.server.pid, "VmRSS") / 1024
    before = activity(side.server.pid)
    time.sleep(5)
    after = activity(side.server.pid)
    calls = system_calls(side.server.pid, 5)
    ticks, switches = (b - a for a, b in zip(before, after))
    quiet = ticks == 0 and switches == 0 and rss < 32  # strace itself restarts a call in each thread
    verdict = "met" if quiet else "MISSED: " + CAUSES.get("idle", "not profiled")
    if not quiet:
        MISSED.append("idle")
    print(f"memory, {what}, freshly opened and idle: RSS {rss:.0f} MiB (under 32); in 5 s {ticks} ticks of processor "
          f"time and {switches} voluntary switches; system calls in 5 s: "
          f"{'no strace' if calls is None else f'{calls[0]} ({calls[1]})'}  {verdict}", flush=True)


def memory_all():
    side = Side("memory", "varve", ["--memory", "256M"])
    side.start()
    memory_idle(side, "empty volume")
    if not SMALL:
        pid = side.server.pid
        written = side.load("write", side.path + "/bulk", 4096 * MIB, "random")
        bulk = proc_kib(pid, "VmHWM") / 1024
        created = side.load("create", side.path + "/d", 1000000, 0, timeout=1200)
        peak = proc_kib(pid, "VmHWM") / 1024
        verdict = f"met (under {PEAK_MAX_MIB})" if peak < PEAK_MAX_MIB else "MISSED: " + CAUSES.get("memory", "not profiled")
        if peak >= PEAK_MAX_MIB:
            MISSED.append("memory")
        print(f"memory, --memory 256M: peak RSS {bulk:.0f} MiB after 4 GiB were written "
              f"({rate(written) / 1e6:.0f} MB/s), {peak:.0f} MiB after a million files were created "
              f"({rate(created):.0f}/s)  {verdict}", flush=True)
        side.stop()
        side.serve()
        memory_idle(side, "a million files and 4 GiB")
    side.remove()


# ---- printing ----

def text_of(figure):
    if figure is None:
        return "-"
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}"


def verdict_of(line, ratios):
    if not line.target:
        return ""
    missed = [f"{name} {ratio:.2f}" for name, ratio in ratios if ratio < line.target]
    if not missed:
        return f"met (at least {line.target:g})"
    MISSED.append(line.name)
    return (f"MISSED (at least {line.target:g}; {', '.join(missed)}): "
            + CAUSES.get(line.name, "not profiled"))


def print_line(line):
    cells = "".join(f"{text_of(line.median(side.name)):>11}" for side in SIDES)
    print(f"{line.name:<14}{line.unit:<9}{cells}")
    ratios, spreads = [], []
    for tail in ("", "/1", " nc", " nc/1"):
        ratio = line.ratio("varve" + tail, line.peer + tail)
        if ratio:
            ratios.append(("varve" + tail, ratio))
            spreads.append(line.spread("varve" + tail, line.peer + tail))
    words = ", ".join(f"{name} x{ratio:.2f}" for name, ratio in ratios)
    peer = "ext4" if line.peer == "ext4" else "passthrough_hp"
    if words:
        print(f"    beside {peer}: {words}  {verdict_of(line, ratios)}")
    if any(spreads):
        print("    least and greatest of a run: " + ", ".join(
            f"{name} {pair[0]:.2f}-{pair[1]:.2f}" for (name, _), pair in zip(ratios, spreads) if pair))
    print(f"    {line.note}")
    print_written(line)


def print_written(line):
    if not line.is_writing:
        return
    parts = []
    for name in FREE_SIDES:
        if name not in line.written:
            continue
        store = statistics.median(w[0] for w in line.written[name])
        journal = statistics.median(w[1] for w in line.written[name])
        more = f" + journal {journal / 1e6:.1f}" if journal else ""
        parts.append(f"{name} {store / 1e6:.1f}{more}")
    if parts:
        print(f"    bytes written to the store, settled, MB: {', '.join(parts)}")
    if line.name == "overwrite" and "varve" in line.written:
        store = statistics.median(w[0] for w in line.written["varve"]) / BULK
        both = statistics.median(w[0] + w[1] for w in line.written["varve"]) / BULK
        verdict = "met"
        if store > 3 or both > 4.5:
            MISSED.append("overwrite-bytes")
            verdict = "MISSED: " + CAUSES.get("overwrite-bytes", "not profiled")
        print(f"    per byte changed: {store:.2f} to the store (at most 3), {both:.2f} with the journal "
              f"(at most 4.5)  {verdict}")


def print_bare(line):
    kind = line.name.removeprefix("write-")
    if (kind, False) not in BARE or line.median("varve") is None:
        return
    codec, disk = (statistics.median(BARE[kind, where]) for where in (False, True))
    print(f"    bare loop of lz4 and AES-256-GCM, one thread: {codec:.0f} MB/s; the same written to the disk "
          f"and synced: {disk:.0f} MB/s")
    for name in ("varve", "varve/1"):
        figure = line.median(name)
        if figure is None:
            continue
        verdict = "met (at least 0.80)"
        if figure < 0.8 * codec:
            MISSED.append(line.name)
            verdict = "MISSED (at least 0.80): " + CAUSES.get(line.name, "not profiled")
        print(f"    {name}: x{figure / codec:.2f} of the bare loop, x{figure / disk:.2f} of the one with "
              f"the disk  {verdict}")


def print_all():
    disk = sh("df", "--output=source,fstype", WORK).split("\n")[1].split()
    print(f"varve {sh(VARVE, 'version').strip()}; {os.cpu_count()} processors, kernel {os.uname().release}, "
          f"{disk[0]} ({disk[1]})")
    if LOAD_AT_START > 0.5:
        print(f"THE MACHINE WAS BUSY: load average {LOAD_AT_START:.1f} before starting, {os.getloadavg()[0]:.1f} "
              "at the end; the figures are rough")
    print(f"medians of {RUNS} runs, sides alternating, one more run dropped; '/1' = server and client pinned "
          "to processor 0; 'nc' = zero timeouts (--no-cache, passthrough_hp --nocache);")
    print("peer = libfuse's passthrough_hp over ext4; ratios over 1: varve is faster; bytes of the peer and "
          "ext4 are dirtied pages, without ext4's journal and inodes\n")
    print(f"{'line':<14}{'unit':<9}" + "".join(f"{side.name:>11}" for side in SIDES))
    for line in LINES:
        print_line(line)
        print_bare(line)
    print(flush=True)


def clean_up():
    for side in SIDES + list(MANY_SIDES.values()):
        side.kill()
    shutil.rmtree(WORK, ignore_errors=True)


def main():
    atexit.register(clean_up)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: interrupted"))
    measure_all()
    print_all()
    if not ONLY or "memory" in ONLY:
        memory_all()
    print(f"bench: {len(set(MISSED))} of the targets' lines missed"
          f"{': ' + ', '.join(dict.fromkeys(MISSED)) if MISSED else ''}")


main()
