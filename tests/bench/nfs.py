"""NFS's lines of `make bench`: varve beside nfs-ganesha over ext4 (Debian's, FSAL VFS) on the same disk,
tests/bench/nfs_load.c as the load of both, over loopback. Sides alternate within a run, each run starts
empty, the first run is dropped, figures are medians. A target that is not met prints MISSED.
Started by tests/bench/run; it runs in namespaces of its own, since ganesha needs an rpcbind."""
import atexit
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
if not os.environ.get("BENCH_NFS_INSIDE"):
    os.environ["BENCH_NFS_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc",
                          sys.executable, *sys.argv])
SMALL = os.environ.get("BENCH_SIZE") == "small"
RUNS = int(os.environ.get("BENCH_RUNS", "5"))
ONLY = set(filter(None, os.environ.get("BENCH_LINES", "").split(",")))
FILES, MIB, IOS = (2000, 128, 2000) if SMALL else (10000, 1024, 10000)
VARVE = os.path.join(BUILD, "varve")
LOAD = os.path.join(BUILD, "bench-nfs")
WORK = tempfile.mkdtemp(prefix="bench-nfs-", dir=os.environ.get("BENCH_DIR", BUILD))

# name, line of the load, depth, count, unit, whether varve's async export is beside the peer. Neither has names on the disk
# then when it answers; varve's default has, ganesha never.
LINES = [
    ("nfs-create-1", "create", 1, FILES // 4, "files/s", True),
    ("nfs-create-32", "create", 32, FILES, "files/s", True),
    ("nfs-lookup-32", "lookup", 32, FILES, "names/s", False),
    ("nfs-getattr-1", "getattr", 1, FILES, "calls/s", False),
    ("nfs-getattr-32", "getattr", 32, FILES, "calls/s", False),
    ("nfs-readdirplus", "readdirplus", 1, FILES, "entries/s", False),
    ("nfs-remove-32", "remove", 32, FILES, "files/s", True),
    ("nfs-write-seq", "write-seq", 8, MIB, "MiB/s", False),
    ("nfs-read-seq", "read-seq", 8, MIB, "MiB/s", False),
    ("nfs-read-4k-1", "read-4k", 1, IOS, "calls/s", False),
    ("nfs-read-4k-32", "read-4k", 32, IOS, "calls/s", False),
    ("nfs-write-4k-32", "write-4k", 32, IOS, "calls/s", False),
    ("nfs-sync-4k-1", "sync-4k", 1, IOS // 10, "calls/s", False),
    ("nfs-sync-4k-32", "sync-4k", 32, IOS, "calls/s", False),
]
GANESHA = """NFS_CORE_PARAM {{ NFS_Protocols = 3; NFS_Port = 3049; MNT_Port = 3050; Enable_UDP = false; Enable_NLM = false;
    Enable_RQUOTA = false; }}
EXPORT {{ Export_Id = 1; Path = {0}; Pseudo = /data; Protocols = 3; Transports = TCP; Access_Type = RW; Squash = None;
    SecType = sys; Filesystem_Id = 1.1; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = EVENT; }}
"""


class Side:
    def __init__(self, name, export=None):
        self.name, self.export = name, export
        self.home = os.path.join(WORK, name.replace(" ", "-"))
        self.server = None

    def start(self):
        os.makedirs(self.home)
        log = open(self.home + "/log", "w", encoding="utf-8")
        if self.export:
            subprocess.run([VARVE, "init", self.home + "/vol", "--key-file", self.home + "/key", "--quiet"], check=True)
            self.server = subprocess.Popen(
                [VARVE, "serve", self.home + "/vol", "--key-file", self.home + "/key", "--nfs", "127.0.0.1:0",
                 "--export", self.export], stdout=log, stderr=log)
            self.path, ready = "/", r"NFS on port (\d+)"
        else:
            self.path = self.home + "/data"
            os.makedirs(self.path)
            with open(self.home + "/conf", "w", encoding="utf-8") as conf:
                conf.write(GANESHA.format(self.path))
            self.server = subprocess.Popen(
                ["ganesha.nfsd", "-F", "-f", self.home + "/conf", "-L", self.home + "/log", "-p", self.home + "/pid"],
                stdout=log, stderr=log)
            self.ports, ready = ("3049", "3050"), r"NFS SERVER INITIALIZED"
        for _ in range(300):
            with open(self.home + "/log", encoding="utf-8") as text:
                found = re.search(ready, text.read())
            if found or self.server.poll() is not None:
                break
            time.sleep(0.1)
        if not found:
            raise RuntimeError(f"{self.name} did not start, see {self.home}/log")
        if self.export:
            self.ports = (found[1], found[1])

    def measure(self, line, depth, count):
        out = subprocess.run([LOAD, *self.ports, self.path, line, str(depth), str(count)], check=True,
                             capture_output=True, text=True, timeout=900).stdout.split()
        return int(out[1]) / float(out[0])

    def settle(self):
        if self.export:
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
    subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
    os.makedirs("/run/ganesha")
    os.makedirs("/run/rpcbind")
    rpcbind = subprocess.Popen(["rpcbind", "-w", "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(rpcbind.kill)
    atexit.register(shutil.rmtree, WORK, True)
    varve, weak, peer = Side("varve", "/:no_root_squash"), Side("varve async", "/:no_root_squash,async"), Side("ganesha")
    lines = [line for line in LINES if not ONLY or line[0] in ONLY or "nfs-all" in ONLY]
    # Those that make what others use are run for them, if need be.
    needed = {"create", "write-seq"}
    figures = {}
    for run in range(RUNS + 1):
        sides = [varve, weak, peer][run % 3:] + [varve, weak, peer][:run % 3]
        for side in sides:
            side.start()
        for name, line, depth, count, _, _ in LINES:
            if not any(name == chosen[0] for chosen in lines) and line not in needed:
                continue
            for side in sides:
                rate = side.measure(line, depth, count)
                if run > 0:
                    figures.setdefault((name, side.name), []).append(rate)
                if line == "create" and depth == 1:
                    side.measure("remove", 32, count)
            for side in sides:
                side.settle()
        for side in sides:
            side.remove()
    print(f"NFS: load average {os.getloadavg()[0]:.1f}; {FILES} files, {MIB} MiB, {IOS} requests of 4 KiB; medians of {RUNS} runs\n"
          "peer = nfs-ganesha (VFS) over ext4: its names are not durable when it answers; varve's are, but on an async export\n")
    print(f"{'line':<16} {'unit':<10} {'varve':>10} {'async':>10} {'peer':>10}")
    for name, _, _, _, unit, is_weak in lines:
        ours, asynchronous, theirs = (statistics.median(figures[name, side.name]) for side in (varve, weak, peer))
        print(f"{name:<16} {unit:<10} {ours:>10.0f} {asynchronous:>10.0f} {theirs:>10.0f}")
        ratio = (asynchronous if is_weak else ours) / theirs
        beside = "varve async" if is_weak else "varve"
        print(f"    {beside} beside nfs-ganesha: x{ratio:.2f}  {'met' if ratio >= 1 else 'MISSED'} (at least 1)")


main()
