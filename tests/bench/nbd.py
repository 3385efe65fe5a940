"""NBD's lines of `make bench`: varve beside `nbdkit file` (Debian's) on the same disk, fio's nbd engine as
the load of both. Sides alternate within a run, each run starts from an empty device, the first run is
dropped, figures are medians. A target that is not met prints MISSED. Started by tests/bench/run."""
import atexit
import json
import os
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
ONLY = set(filter(None, os.environ.get("BENCH_LINES", "").split(",")))
if "nbd-all" in ONLY:
    ONLY = set()
MIB = 1 << 20
SIZE = (128 if SMALL else 1024) * MIB
RANDOM = (32 if SMALL else 256) * MIB  # what random lines move at depth 32; an eighth of it at depth 1
SYNCS = 200 if SMALL else 1000
VARVE = os.path.join(BUILD, "varve")
WORK = tempfile.mkdtemp(prefix="bench-nbd-", dir=os.environ.get("BENCH_DIR", BUILD))

# Why a target is missed, from profiles of the server under the same load. By line.
CAUSES = {
    "nbd-read-seq": "one reactor copies each byte out of its cache and into the socket, 29% and 27% of its time; "
                    "nbdkit's threads copy once, on both processors",
    "nbd-read-32": "the reactor serves all 32 alone: looking up inode and extent 30%, copying 25%; nbdkit has 16 threads",
    "nbd-read-1": "likely (not profiled): waking server and client; the server's processor time has its polling in it",
    "nbd-write-1": "likely (not profiled): as nbd-read-1",
    "nbd-write-32": "likely (not profiled): one reactor; its processor time of a request is less than nbdkit's",
    "nbd-sync": "likely (not profiled): the journal's write and sync go through a worker that has to be woken",
    "nbd-write-seq": "compressing and sealing (LZ4 56% for text, 5% for random bytes), and the journal or segments are "
                     "synced as they are written; nbdkit leaves all of it to the page cache until the flush",
}


def sh(*command, timeout=900):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout).stdout


class Side:
    def __init__(self, name, memory=None):
        self.name, self.memory = name, memory
        self.home = os.path.join(WORK, name.replace(" ", "-"))
        self.server = None

    def start(self):
        os.makedirs(self.home)
        self.socket = self.home + "/s"
        if self.memory:
            sh(VARVE, "init", self.home + "/vol", "--key-file", self.home + "/key", "--quiet")
            command = [VARVE, "serve", self.home + "/vol", "--key-file", self.home + "/key", "--nbd",
                       "unix:" + self.socket, "--memory", self.memory]
            self.uri = f"nbd+unix:///disk?socket={self.socket}"
        else:
            with open(self.home + "/image", "wb") as file:
                file.truncate(SIZE)
            command = ["nbdkit", "-f", "-U", self.socket, "file", self.home + "/image"]
            self.uri = f"nbd+unix:///?socket={self.socket}"
        with open(self.home + "/log", "w") as log:
            self.server = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(600):
            if os.path.exists(self.socket):
                break
            time.sleep(0.05)
        if self.memory:
            for _ in range(100):
                if subprocess.run([VARVE, "device", "create", self.home + "/vol", "disk", str(SIZE)],
                                  capture_output=True, check=False).returncode == 0:
                    break
                time.sleep(0.05)

    def remove(self):
        if self.server and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(60)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait(30)
        self.server = None
        shutil.rmtree(self.home, ignore_errors=True)

    def settle(self):
        if self.memory:
            sh(VARVE, "flush", self.home + "/vol")
        os.sync()

    def cpu(self):
        with open(f"/proc/{self.server.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def fio(self, *options):
        """(bytes a second, requests a second, server's processor seconds of a request)."""
        before = self.cpu()
        out = sh("fio", "--name=bench", "--ioengine=nbd", "--uri=" + self.uri, "--output-format=json",
                 "--verify_state_save=0", f"--size={SIZE}", "--randrepeat=1", "--refill_buffers=1", *options)
        job = json.loads(out[out.index("{"):])["jobs"][0]
        seconds = job["job_runtime"] / 1000  # with the flush at the end
        count = job["read"]["total_ios"] + job["write"]["total_ios"]
        moved = job["read"]["io_bytes"] + job["write"]["io_bytes"]
        if job["error"] or not count:
            sys.exit(f"bench: {self.name}: fio {' '.join(options)} failed")
        return moved / seconds, count / seconds, (self.cpu() - before) / count


SIDES = [Side("varve", "2G"), Side("varve 256M", "256M"), Side("nbdkit")]
SYNCED = "the flush at the end is in the time, on both sides"
WARM = "read before: nbdkit's in the page cache, varve's in its own, if that is large enough"
LINES = [
    # name, unit, fio's options, note
    ("nbd-write-seq", "MB/s", ["--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1"],
     f"{SIZE // MIB} MiB of random bytes, 1 MiB writes, 8 deep; {SYNCED}"),
    ("nbd-read-seq", "MB/s", ["--rw=read", "--bs=1m", "--iodepth=8"], f"the same read, 1 MiB, 8 deep; {WARM}"),
    ("nbd-read-1", "reads/s", ["--rw=randread", "--bs=4k", "--iodepth=1", f"--io_size={RANDOM // 8}"],
     f"4 KiB random, 1 deep; {WARM}"),
    ("nbd-read-32", "reads/s", ["--rw=randread", "--bs=4k", "--iodepth=32", f"--io_size={RANDOM}"],
     f"4 KiB random, 32 deep; {WARM}"),
    ("nbd-write-1", "writes/s", ["--rw=randwrite", "--bs=4k", "--iodepth=1", f"--io_size={RANDOM // 8}",
                                 "--end_fsync=1"], f"4 KiB random, 1 deep; {SYNCED}"),
    ("nbd-write-32", "writes/s", ["--rw=randwrite", "--bs=4k", "--iodepth=32", f"--io_size={RANDOM}",
                                  "--end_fsync=1"], f"4 KiB random, 32 deep; {SYNCED}"),
    ("nbd-sync", "writes/s", ["--rw=randwrite", "--bs=4k", "--iodepth=1", f"--io_size={SYNCS * 4096}", "--fsync=1"],
     "4 KiB random, a FLUSH after each; durable each time on both sides"),
]
if ONLY:
    LINES = [line for line in LINES if line[0] in ONLY]
FIGURES = {}
CPU = {}


def measure_all():
    for run in range(RUNS + 1):
        started = time.time()
        for side in SIDES:
            side.start()
        if LINES and LINES[0][0] != "nbd-write-seq":
            for side in SIDES:
                side.fio("--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1")
        order = SIDES[run % len(SIDES):] + SIDES[:run % len(SIDES)]
        for name, unit, options, _ in LINES:
            for side in order:
                side.settle()
                if name == "nbd-read-seq":
                    side.fio(*options)
                rate, count, cpu = side.fio(*options)
                if run > 0:
                    FIGURES.setdefault((name, side.name), []).append(rate / 1e6 if unit == "MB/s" else count)
                    CPU.setdefault((name, side.name), []).append(cpu * 1e6)
        for side in SIDES:
            side.remove()
        print(f"# nbd, run {run}{' (dropped)' if run == 0 else ''}: {time.time() - started:.0f} s", file=sys.stderr,
              flush=True)


def text_of(figure):
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}"


def print_all(load_at_start):
    print(f"block devices: varve --memory 2G and 256M beside {sh('nbdkit', '--version').strip()} file, over unix "
          "sockets; load: fio, one connection")
    if load_at_start > 0.5:
        print(f"THE MACHINE WAS BUSY: load average {load_at_start:.1f} before starting, {os.getloadavg()[0]:.1f} at "
              "the end; the figures are rough")
    print(f"{'line':<15}{'unit':<10}" + "".join(f"{side.name:>12}" for side in SIDES) +
          "   server's processor time of a request, us")
    missed = []
    for name, unit, _, note in LINES:
        figures = [statistics.median(FIGURES[name, side.name]) for side in SIDES]
        cpu = ", ".join(f"{side.name} {statistics.median(CPU[name, side.name]):.1f}" for side in SIDES)
        print(f"{name:<15}{unit:<10}" + "".join(f"{text_of(figure):>12}" for figure in figures) + f"   {cpu}")
        ratio = figures[0] / figures[-1]
        verdict = "met (at least 1)"
        if ratio < 1:
            missed.append(name)
            verdict = "MISSED (at least 1): " + CAUSES.get(name, "not profiled")
        print(f"    beside nbdkit: x{ratio:.2f}, 256M x{figures[1] / figures[-1]:.2f}  {verdict}")
        print(f"    {note}")
    print(f"bench: {len(missed)} of NBD's lines missed{': ' + ', '.join(missed) if missed else ''}", flush=True)


def clean_up():
    for side in SIDES:
        if side.server and side.server.poll() is None:
            side.server.kill()
            side.server.wait(30)
    shutil.rmtree(WORK, ignore_errors=True)


def main():
    load_at_start = os.getloadavg()[0]
    atexit.register(clean_up)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: interrupted"))
    measure_all()
    print_all(load_at_start)


main()
