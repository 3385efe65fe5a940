"""What dm-log-writes has recorded of a block device (Linux, drivers/md/dm-log-writes.c), and files whose content is known.

writelog.py load DIR DM_NAME COUNT      write files, fsync every other one, and mark each fsync in the log (in the guest)
writelog.py cuts LOG COUNT SEED         COUNT positions in the log to cut it at, behind its first mark, ascending
writelog.py replay LOG IMAGE FROM TO    what the entries FROM..TO-1 do, done to IMAGE; prints the number of fsyncs among 0..TO-1
writelog.py look DIR SYNCED             the first SYNCED fsynced files are whole; no other file has bytes never written

The log: a super block, then entries of a sector each (place, sectors, flags, length), each with its sectors behind it.
"""
import os
import random
import struct
import subprocess
import sys

MAGIC = 0x6A736677736872
DISCARD, MARK = 4, 8


def content(number):
    rng = random.Random(number)
    return rng.randbytes(rng.choice([100, 5000, 30000, 200000]))


def load(folder, dm_name, count):
    for i in range(count):
        fd = os.open(f"{folder}/f{i}", os.O_WRONLY | os.O_CREAT)
        os.write(fd, content(i))
        if i % 2 == 0:
            os.fsync(fd)
            subprocess.run(["dmsetup", "message", dm_name, "0", "mark", f"synced-{i}"], check=True)
        os.close(fd)
        if i % 10 == 4:
            os.rename(f"{folder}/f{i - 3}", f"{folder}/g{i - 3}")  # never a synced one


def entries(log):
    """(position of the data, place, bytes, flags, mark) of each."""
    with open(log, "rb") as file:
        magic, version, count, sector = struct.unpack("<QQQI", file.read(28))
        assert (magic, version) == (MAGIC, 1), "no log of dm-log-writes"
        at = sector
        for _ in range(count):
            file.seek(at)
            place, sectors, flags, length = struct.unpack("<QQQQ", file.read(32))
            mark = file.read(length).decode() if flags & MARK else None
            yield at + sector, place * sector, sectors * sector, flags, mark
            at += sector + (0 if flags & (DISCARD | MARK) else sectors * sector)


def cuts(log, count, seed):
    marks = [i for i, entry in enumerate(entries(log)) if entry[4]]
    total = sum(1 for _ in entries(log))
    chosen = random.Random(seed).sample(range(marks[0] + 1, total + 1), min(count, total - marks[0]))
    print(*sorted(chosen))


def replay(log, image, start, end):
    synced = 0
    with open(log, "rb") as source, open(image, "r+b") as target:
        for i, (at, place, length, flags, mark) in enumerate(entries(log)):
            if i >= end:
                break
            synced += bool(mark and mark.startswith("synced"))
            if i < start or mark:
                continue
            target.seek(place)
            if flags & DISCARD:
                target.write(bytes(length))
            else:
                source.seek(at)
                target.write(source.read(length))
    print(synced)


def look(folder, synced):
    for i in range(0, 2 * synced, 2):
        with open(f"{folder}/f{i}", "rb") as file:
            assert file.read() == content(i), f"f{i} was synced and is not as it was"
    for name in os.listdir(folder):
        if name[0] in "fg":
            with open(f"{folder}/{name}", "rb") as file:
                found = file.read()
            wanted = content(int(name[1:]))
            wrong = [at for at in range(0, len(found), 512)
                     if found[at:at + 512] not in (wanted[at:at + 512], bytes(len(found[at:at + 512])))]
            assert len(found) <= len(wanted) and not wrong, f"{name} has bytes that nobody wrote"


def main():
    command, *words = sys.argv[1:]
    numbers = [int(word) if word.isdigit() else word for word in words]
    {"load": load, "cuts": cuts, "replay": replay, "look": look}[command](*numbers)


main()
