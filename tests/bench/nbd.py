"""NBD's lines of `make bench`: varve beside `nbdkit file` (Debian's) on the same disk, fio's nbd engine as the load of both, one
connection over a unix socket. door.py says how. Started by tests/bench/run."""
import json
import os
import subprocess
import sys
import time

import door

MIB = 1 << 20
SIZE = (128 if door.SMALL else 1024) * MIB
RANDOM = (32 if door.SMALL else 256) * MIB  # what random lines move at depth 32; an eighth of it at depth 1
SYNCS = 200 if door.SMALL else 1000

# Why a target is missed, from profiles of the server under the same load. By line.
CAUSES = {
    "nbd-read-seq": "one reactor sends all of it from its cache: copying into the socket 56% of its time, waking the client 17%, resolving extents 10%; "
                    "nbdkit has 16 threads",
    "nbd-read-32": "the reactor serves all 32 alone: looking up inode, extent and block 21%, copying out of the cache 14%, waking 11%; "
                   "nbdkit has 16 threads",
    "nbd-read-1": "likely (not profiled): waking server and client; the server's processor time has its polling in it",
    "nbd-write-1": "likely (not profiled): as nbd-read-1",
    "nbd-write-32": "likely (not profiled): one reactor; its processor time of a request is less than nbdkit's",
    "nbd-sync": "likely (not profiled): the sync waits for a kernel thread between write and flush, and server and client are woken (docs/decisions/0015)",
    "nbd-write-seq": "compressing and sealing (LZ4 56% for text, 5% for random bytes), and the journal or segments are "
                     "synced as they are written; nbdkit leaves all of it to the page cache until the flush",
}
SYNCED = "the flush at the end is in the time, on both sides"
WARM = "read before: nbdkit's in the page cache, varve's in its own, if that is large enough"
LINES = [
    door.Line("nbd-write-seq", "MB/s", ["--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1"], is_needed=True,
              note=f"{SIZE // MIB} MiB of random bytes, 1 MiB writes, 8 deep; {SYNCED}"),
    door.Line("nbd-read-seq", "MB/s", ["--rw=read", "--bs=1m", "--iodepth=8"], note=f"the same read, 1 MiB, 8 deep; {WARM}"),
    door.Line("nbd-read-1", "reads/s", ["--rw=randread", "--bs=4k", "--iodepth=1", f"--io_size={RANDOM // 8}"],
              note=f"4 KiB random, 1 deep; {WARM}"),
    door.Line("nbd-read-32", "reads/s", ["--rw=randread", "--bs=4k", "--iodepth=32", f"--io_size={RANDOM}"],
              note=f"4 KiB random, 32 deep; {WARM}"),
    door.Line("nbd-write-1", "writes/s", ["--rw=randwrite", "--bs=4k", "--iodepth=1", f"--io_size={RANDOM // 8}",
                                          "--end_fsync=1"], note=f"4 KiB random, 1 deep; {SYNCED}"),
    door.Line("nbd-write-32", "writes/s", ["--rw=randwrite", "--bs=4k", "--iodepth=32", f"--io_size={RANDOM}",
                                           "--end_fsync=1"], note=f"4 KiB random, 32 deep; {SYNCED}"),
    door.Line("nbd-sync", "writes/s", ["--rw=randwrite", "--bs=4k", "--iodepth=1", f"--io_size={SYNCS * 4096}", "--fsync=1"],
              note="4 KiB random, a FLUSH after each; durable each time on both sides"),
]


class Varve(door.Side):
    def __init__(self, name, memory):
        super().__init__(name, True)
        self.memory = memory

    def begin(self):
        self.uri = f"nbd+unix:///disk?socket={self.home}/s"
        return self.serve("--nbd", f"unix:{self.home}/s", "--memory", self.memory), "serving "

    def ready(self, found):
        for _ in range(100):
            if subprocess.run([door.VARVE, "device", "create", self.home + "/vol", "disk", str(SIZE)],
                              capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)


class Nbdkit(door.Side):
    def begin(self):
        self.uri = f"nbd+unix:///?socket={self.home}/s"
        with open(self.home + "/image", "wb") as file:
            file.truncate(SIZE)
        return ["nbdkit", "-f", "-U", self.home + "/s", "file", self.home + "/image"], None

    def looks_ready(self):
        return os.path.exists(self.home + "/s")


def fio(side, options):
    out = door.sh("fio", "--name=bench", "--ioengine=nbd", "--uri=" + side.uri, "--output-format=json",
                  "--verify_state_save=0", f"--size={SIZE}", "--randrepeat=1", "--refill_buffers=1", *options)
    return json.loads(out[out.index("{"):])["jobs"][0]


def measure(side, options):
    is_warm = "--rw=read" in options
    if is_warm:
        fio(side, options)
    job = fio(side, options)
    seconds = job["job_runtime"] / 1000  # with the flush at the end
    count = job["read"]["total_ios"] + job["write"]["total_ios"]
    moved = job["read"]["io_bytes"] + job["write"]["io_bytes"]
    if job["error"] or not count:
        sys.exit(f"bench: {side.name}: fio {' '.join(options)} failed")
    return moved / seconds / 1e6 if "--bs=1m" in options else count / seconds, count * (1 + is_warm)


door.run("nbd", f"block devices: varve beside {door.sh('nbdkit', '--version').strip()} file, over unix sockets\n" + door.MEMORY,
         [Varve("varve", door.LARGE), Varve("varve 256M", "256M"), Nbdkit("nbdkit", False)], LINES, measure, CAUSES)
