"""NFS's lines of `make bench`: varve beside nfs-ganesha over ext4 (Debian's, FSAL VFS) on the same disk,
tests/bench/nfs_load.c as the load of both, over loopback. door.py says how. Started by tests/bench/run; it runs in
namespaces of its own, since ganesha needs an rpcbind."""
import atexit
import os
import subprocess

import door

door.go_inside("BENCH_NFS_INSIDE", "--mount")
FILES, MIB, IOS = (2000, 128, 2000) if door.SMALL else (10000, 1024, 10000)
LOAD = os.path.join(door.BUILD, "bench-nfs")
ASYNC = "varve async"

# work of the load, depth, count; its unit; the side that stands beside the peer. What has names on the disk when it answers is
# slower: varve's default does, its async export and ganesha don't.
WORKS = [
    ("create", 1, FILES // 4, "files/s", ASYNC),
    ("create", 32, FILES, "files/s", ASYNC),
    ("lookup", 32, FILES, "names/s", "varve"),
    ("getattr", 1, FILES, "calls/s", "varve"),
    ("getattr", 32, FILES, "calls/s", "varve"),
    ("readdirplus", 1, FILES, "entries/s", "varve"),
    ("remove", 32, FILES, "files/s", ASYNC),
    ("write-seq", 8, MIB, "MiB/s", "varve"),
    ("read-seq", 8, MIB, "MiB/s", "varve"),
    ("read-4k", 1, IOS, "calls/s", "varve"),
    ("read-4k", 32, IOS, "calls/s", "varve"),
    ("write-4k", 32, IOS, "calls/s", "varve"),
    ("sync-4k", 1, IOS // 2, "calls/s", "varve"),
    ("sync-4k", 32, IOS, "calls/s", "varve"),
]
LINES = [door.Line(f"nfs-{work}" if work in ("readdirplus", "write-seq", "read-seq") else f"nfs-{work}-{depth}", unit,
                   (work, depth, count), ours=ours, is_needed=work in ("create", "write-seq"))
         for work, depth, count, unit, ours in WORKS]
# Why a target is missed, from profiles of the server under the same load. By line.
CAUSES = {
    "nfs-write-seq": "page faults of memory that the cache grows into, most on a worker, copying out of the socket into extents; "
         "LZ4 and AES; the peer copies into its page cache, which the kernel writes in one go at the end",
    "nfs-read-seq": "one reactor sends it from the cache: copying into the socket 29% of its time, waking the client 16%, resolving extents 6%; the peer has "
        "several threads",
    "nfs-read-4k-1": "likely (not profiled with all of it in memory): one reactor sends it from the cache; its processor time of a request is less "
         "than the peer's, which has several threads",
    "nfs-read-4k-32": "likely (not profiled with all of it in memory): one reactor sends it from the cache; its processor time of a request is less "
         "than the peer's, which has several threads",
    "nfs-sync-4k-1": "likely (not profiled): the sync waits for a kernel thread between write and flush, and server and client are woken (docs/decisions/0015)",
}
GANESHA = """NFS_CORE_PARAM {{ NFS_Protocols = 3; NFS_Port = 3049; MNT_Port = 3050; Enable_UDP = false; Enable_NLM = false;
    Enable_RQUOTA = false; }}
EXPORT {{ Export_Id = 1; Path = {0}; Pseudo = /data; Protocols = 3; Transports = TCP; Access_Type = RW; Squash = None;
    SecType = sys; Filesystem_Id = 1.1; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = EVENT; }}
"""


class Varve(door.Side):
    def __init__(self, name, export, memory=door.LARGE):
        super().__init__(name, True)
        self.export, self.memory = export, memory

    def begin(self):
        return self.serve("--nfs", "127.0.0.1:0", "--export", self.export, "--memory", self.memory), r"NFS on port (\d+)"

    def ready(self, found):
        self.ports, self.path = (found[1], found[1]), "/"


class Ganesha(door.Side):
    def begin(self):
        self.ports, self.path = ("3049", "3050"), self.home + "/data"
        os.makedirs(self.path)
        with open(self.home + "/conf", "w", encoding="utf-8") as conf:
            conf.write(GANESHA.format(self.path))
        return ["ganesha.nfsd", "-F", "-f", self.home + "/conf", "-L", self.home + "/log", "-p", self.home + "/pid"], \
            "NFS SERVER INITIALIZED"


def load(side, work, depth, count):
    out = door.sh(LOAD, *side.ports, side.path, work, str(depth), str(count)).split()
    return float(out[0]), int(out[1])


def measure(side, args):
    work, depth, count = args
    seconds, done = load(side, *args)
    if work == "create" and depth == 1:
        load(side, "remove", 32, count)
    return done / seconds, done


subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
os.makedirs("/run/ganesha")
os.makedirs("/run/rpcbind")
RPCBIND = subprocess.Popen(["rpcbind", "-w", "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
atexit.register(RPCBIND.kill)
door.run("nfs", f"NFS: {FILES} files, {MIB} MiB, {IOS} requests of 4 KiB; peer = nfs-ganesha (VFS) over ext4: its names are not "
         "durable when it answers;\nvarve's are, but on an async export. " + door.MEMORY,
         [Varve("varve", "/:no_root_squash"), Varve(ASYNC, "/:no_root_squash,async"),
          Varve("varve 256M", "/:no_root_squash", "256M"), Ganesha("ganesha", False)],
         LINES, measure, CAUSES)
