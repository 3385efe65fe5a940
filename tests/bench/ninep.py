"""9P's lines of `make bench`: varve beside diod over ext4 (Debian's) on the same disk, tests/bench/ninep_load.c as the load of
both: one connection over loopback. door.py says how. Started by tests/bench/run; it runs in a network of its own."""
import os
import time

import door

door.go_inside("BENCH_9P_INSIDE")
FILES, MIB, IOS = (2000, 128, 2000) if door.SMALL else (10000, 1024, 10000)
LOAD = os.path.join(door.BUILD, "bench-ninep")
PEER_PORT = "5641"

# work of the load, depth, count; its unit
WORKS = [
    ("create", 1, FILES // 4, "files/s"),
    ("create", 32, FILES, "files/s"),
    ("walk", 32, FILES, "names/s"),
    ("getattr", 1, FILES, "calls/s"),
    ("getattr", 32, FILES, "calls/s"),
    ("readdir", 1, FILES, "entries/s"),
    ("remove", 32, FILES, "files/s"),
    ("write-seq", 8, MIB, "MiB/s"),
    ("read-seq", 8, MIB, "MiB/s"),
    ("read-4k", 1, IOS, "calls/s"),
    ("read-4k", 32, IOS, "calls/s"),
    ("write-4k", 32, IOS, "calls/s"),
    ("sync-4k", 1, IOS // 2, "calls/s"),
    ("sync-4k", 32, IOS, "calls/s"),
]
LINES = [door.Line(f"9p-{work}" if work in ("readdir", "write-seq", "read-seq") else f"9p-{work}-{depth}", unit,
                   (work, depth, count), is_needed=work in ("create", "write-seq"))
         for work, depth, count, unit in WORKS]
# Why a target is missed, from profiles of the server under the same load. By line.
CAUSES = {
    "9p-write-seq": "page faults of memory that the cache grows into 24% (half of them on a worker), copying out of the socket into extents; "
         "the peer copies into its page cache",
    "9p-read-seq": "likely (not profiled with all of it in memory): one reactor sends it from the cache; its processor time of a request is less "
        "than the peer's, which has several threads",
    "9p-read-4k-1": "likely (not profiled with all of it in memory): one reactor sends it from the cache; its processor time of a request is less "
         "than the peer's, which has several threads",
    "9p-read-4k-32": "likely (not profiled with all of it in memory): one reactor sends it from the cache; its processor time of a request is less "
         "than the peer's, which has several threads",
    "9p-sync-4k-1": "a write to the journal and a flush of the disk are 80 to 150 us of it, sealing the record and telling the disk 35, waking the client "
        "the rest, once of two times while the disk writes (docs/decisions/0015, 0019)",
}


class Varve(door.Side):
    def __init__(self, name, memory):
        super().__init__(name, True)
        self.memory = memory

    def begin(self):
        return self.serve("--9p", "127.0.0.1:0", "--memory", self.memory), r"9P on port (\d+)"

    def ready(self, found):
        self.port, self.path = found[1], "/"


class Diod(door.Side):
    def begin(self):
        self.port, self.path = PEER_PORT, self.home + "/data"
        os.makedirs(self.path)
        return ["diod", "-f", "-n", "-l", f"127.0.0.1:{PEER_PORT}", "-e", self.path, "-L", "stderr"], None

    def ready(self, found):
        time.sleep(1)


def load(side, work, depth, count):
    out = door.sh(LOAD, side.port, side.path, work, str(depth), str(count)).split()
    return float(out[0]), int(out[1])


def measure(side, args):
    work, depth, count = args
    seconds, done = load(side, *args)
    if work == "create" and depth == 1:
        load(side, "remove", 32, count)
    return done / seconds, done


door.run("9p", f"9P: {FILES} files, {MIB} MiB, {IOS} requests of 4 KiB.\n"
         "Both answer from memory and make durable what is fsynced (the end of each line of writes, each request of "
         "sync-4k).\nEach in the largest messages it agrees to (varve 1 MiB, diod less). varve compresses and encrypts.\n" + door.MEMORY,
         [Varve("varve", door.LARGE), Varve("varve 256M", "256M"), Diod("diod", False)], LINES, measure, CAUSES)
