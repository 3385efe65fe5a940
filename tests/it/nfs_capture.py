#!/usr/bin/env python3
"""nfs_capture.py make PORT | check WHERE CAPTURE PORT [STRACE]: what stands on the wire. Prints TAP.

make: WRITEs of every kind, and COMMITs, against a server of "/". check: reads the capture of that
with tshark. WHERE is bucket:MS (each request to the store takes that long) or journal, and then
STRACE is what `strace -f -ttt -T -e trace=fdatasync` wrote about the server meanwhile.
"""
import re
import subprocess
import sys

from nfs_client import *     # pylint: disable=wildcard-import,unused-wildcard-import

ROUNDS = 5


def make(port):
    client = Client(f"127.0.0.1:{port}")
    root = client.mnt()
    file, _ = client.create(root, "captured", UNCHECKED)
    client.write(file, b"x" * 100000)     # warms what the first write has to look up
    client.commit(file)
    for i in range(ROUNDS):
        client.write(file, b"u" * 5000, i * 10000, UNSTABLE)
        client.commit(file)
        client.write(file, b"d" * 5000, i * 10000, DATA_SYNC)
        client.write(file, b"f" * 5000, i * 10000, FILE_SYNC)


def read_capture(path, port):
    """(procedure, time of the call, time of the reply, what was asked for, what was answered)"""
    fields = ["frame.time_epoch", "rpc.xid", "rpc.msgtyp", "nfs.procedure_v3", "nfs.write.stable",
              "nfs.write.committed", "nfs.status3"]
    text = subprocess.run(
        ["tshark", "-r", path, "-d", f"tcp.port=={port},rpc", "-Y", "rpc && nfs", "-T", "fields",
         *[word for field in fields for word in ("-e", field)]],
        check=True, capture_output=True, text=True).stdout
    calls, out = {}, []
    for line in text.splitlines():
        when, xid, kind, procedure, stable, committed, status = line.split("\t")
        if kind == "0":
            calls.setdefault(xid, (float(when), procedure, stable))
        elif xid in calls:
            begin, procedure, stable = calls.pop(xid)
            out.append((int(procedure), begin, float(when), stable, committed, status))
    return out


def read_strace(path):
    """(begin, end) of each fdatasync that succeeded"""
    begun, out = {}, []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            found = re.match(r"(\d+) +([\d.]+) (.*)", line)
            if not found:
                continue
            pid, when, rest = found[1], float(found[2]), found[3]
            if rest.startswith("fdatasync("):
                begun[pid] = when
            if rest.startswith("<... fdatasync resumed") or rest.startswith("fdatasync("):
                took = re.search(r"= 0 <([\d.]+)>", rest)
                if took and pid in begun:
                    begin = begun.pop(pid)
                    out.append((begin, begin + float(took[1])))
    return out


def check(where, capture, port, strace=None):
    tap = Tap()
    all_calls = read_capture(capture, port)
    writes = [c for c in all_calls if c[0] == WRITE]
    commits = [c for c in all_calls if c[0] == COMMIT][-ROUNDS:]
    tap.equal(len(writes), 3 * ROUNDS + 1, "all WRITEs are in the capture")
    tap.equal(len(commits), ROUNDS, "and COMMITs")
    tap.equal([c for c in writes if c[3] != c[4]], [], "WRITE answers what was asked for")
    unstable = [c for c in writes if c[3] == "0"][1:]
    stable = [c for c in writes if c[3] in ("1", "2")]
    tap.equal((len(unstable), len(stable)), (ROUNDS, 2 * ROUNDS), "of each kind")
    if where.startswith("bucket:"):
        least = int(where[7:]) / 1000
        # One may have to look something up there.
        usual = sorted(c[2] - c[1] for c in unstable)[ROUNDS // 2]
        tap.ok(usual < least, f"UNSTABLE is answered before the store could ({usual * 1000:.2f} ms)")
        fastest = min(c[2] - c[1] for c in commits + stable)
        tap.ok(fastest >= least, f"COMMIT and stable WRITEs are not (from {fastest * 1000:.0f} ms)")
    else:
        syncs = read_strace(strace)
        tap.ok(len(syncs) >= 3 * ROUNDS, f"{len(syncs)} syncs of the journal")
        # The sync may begin before the COMMIT, where that was foreseen, but not before the WRITE whose bytes it is about.
        asked = [(c[1], c) for c in stable]
        asked += [(max(w[1] for w in writes if w[1] < c[1]), c) for c in commits]
        early = [c for since, c in asked
                 if not any(since <= begin and end <= c[2] for begin, end in syncs)]
        tap.equal(early, [], "each COMMIT and stable WRITE is answered behind a sync of the journal")
    return tap.done()


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(int(sys.argv[2]))
    else:
        sys.exit(check(sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:]))
