"""9P's lines of `make bench`: varve beside diod over ext4 (Debian's) on the same disk, tests/bench/ninep_load.c as the load
of both: one connection over loopback. Sides alternate within a run, each run starts empty, the first run is dropped, figures are
medians. A target that is not met prints MISSED. Started by tests/bench/run; it runs in a network of its own."""
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
if not os.environ.get("BENCH_9P_INSIDE"):
    os.environ["BENCH_9P_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, *sys.argv])
SMALL = os.environ.get("BENCH_SIZE") == "small"
RUNS = int(os.environ.get("BENCH_RUNS", "5"))
ONLY = set(filter(None, os.environ.get("BENCH_LINES", "").split(",")))
FILES, MIB, IOS = (2000, 128, 2000) if SMALL else (10000, 1024, 10000)
VARVE, LOAD = os.path.join(BUILD, "varve"), os.path.join(BUILD, "bench-ninep")
WORK = tempfile.mkdtemp(prefix="bench-9p-", dir=os.environ.get("BENCH_DIR", BUILD))
PEER_PORT = "5641"

# name, work of the load, depth, count, unit
LINES = [
    ("9p-create-1", "create", 1, FILES // 4, "files/s"),
    ("9p-create-32", "create", 32, FILES, "files/s"),
    ("9p-walk-32", "walk", 32, FILES, "names/s"),
    ("9p-getattr-1", "getattr", 1, FILES, "calls/s"),
    ("9p-getattr-32", "getattr", 32, FILES, "calls/s"),
    ("9p-readdir", "readdir", 1, FILES, "entries/s"),
    ("9p-remove-32", "remove", 32, FILES, "files/s"),
    ("9p-write-seq", "write-seq", 8, MIB, "MiB/s"),
    ("9p-read-seq", "read-seq", 8, MIB, "MiB/s"),
    ("9p-read-4k-1", "read-4k", 1, IOS, "calls/s"),
    ("9p-read-4k-32", "read-4k", 32, IOS, "calls/s"),
    ("9p-write-4k-32", "write-4k", 32, IOS, "calls/s"),
    ("9p-sync-4k-1", "sync-4k", 1, IOS // 10, "calls/s"),
    ("9p-sync-4k-32", "sync-4k", 32, IOS, "calls/s"),
]
NEEDED = {"create", "write-seq"}  # they make what others use


class Side:
    def __init__(self, name):
        self.name, self.is_varve = name, name == "varve"
        self.home = os.path.join(WORK, name)
        self.server = None

    def start(self):
        data = self.home + "/data"
        os.makedirs(data)
        with open(self.home + "/log", "w", encoding="utf-8") as log:
            if self.is_varve:
                subprocess.run([VARVE, "init", self.home + "/vol", "--key-file", self.home + "/key", "--quiet"], check=True)
                command = [VARVE, "serve", self.home + "/vol", "--key-file", self.home + "/key", "--9p", "127.0.0.1:0"]
            else:
                command = ["diod", "-f", "-n", "-l", f"127.0.0.1:{PEER_PORT}", "-e", data, "-L", "stderr"]
            self.server = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(300):
            if self.server.poll() is not None:
                break
            if not self.is_varve:
                self.port, self.path = PEER_PORT, data
                time.sleep(1)
                return
            with open(self.home + "/log", encoding="utf-8") as text:
                found = re.search(r"9P on port (\d+)", text.read())
            if found:
                self.port, self.path = found[1], "/"
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not start")

    def measure(self, work, depth, count):
        out = subprocess.run([LOAD, self.port, self.path, work, str(depth), str(count)], check=True,
                             capture_output=True, text=True, timeout=900).stdout.split()
        return int(out[1]) / float(out[0])

    def settle(self):
        if self.is_varve:
            subprocess.run([VARVE, "flush", self.home + "/vol"], check=False, capture_output=True)
        subprocess.run(["sync"], check=True)

    def remove(self):
        if self.server and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(60)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    varve, peer = Side("varve"), Side("diod")
    chosen = [line for line in LINES if not ONLY or line[0] in ONLY or "9p-all" in ONLY]
    figures = {}
    try:
        for run in range(RUNS + 1):
            sides = [varve, peer] if run % 2 else [peer, varve]
            for side in sides:
                side.start()
            for line in LINES:
                name, work, depth, count, _ = line
                if line not in chosen and work not in NEEDED:
                    continue
                for side in sides:
                    rate = side.measure(work, depth, count)
                    if run > 0:
                        figures.setdefault((name, side.name), []).append(rate)
                    if work == "create" and depth == 1:
                        side.measure("remove", 32, count)
                for side in sides:
                    side.settle()
            for side in sides:
                side.remove()
    finally:
        for side in (varve, peer):
            side.remove()
        shutil.rmtree(WORK, ignore_errors=True)
    print(f"9P: load average {os.getloadavg()[0]:.1f}; {FILES} files, {MIB} MiB, {IOS} requests of 4 KiB; medians of {RUNS} "
          "runs.\nBoth answer from memory and make durable what is fsynced (the end of each line of writes, each request of "
          "sync-4k).\nEach in the largest messages it agrees to (varve 1 MiB, diod less). varve compresses and encrypts.\n")
    print(f"{'line':<16} {'unit':<10} {'varve':>10} {'diod':>10}")
    for name, _, _, _, unit in chosen:
        ours, theirs = (statistics.median(figures[name, side.name]) for side in (varve, peer))
        print(f"{name:<16} {unit:<10} {ours:>10.0f} {theirs:>10.0f}   x{ours / theirs:.2f}  "
              f"{'met' if ours >= theirs else 'MISSED'} (at least 1)")


main()
