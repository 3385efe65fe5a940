#!/usr/bin/env python3
"""nfs_syncer.py work DIR LOG SECONDS: writes files and fsyncs them, noting in LOG what was; any error
ends it with status 1. nfs_syncer.py check DIR LOG: all that was noted is there.

One error is NFSv3's own: a RENAME that was done and durable, whose reply died with the server, is sent again by the
client, and the server that has started anew knows no such name (docs/contract.md). It is told from a lost name by
the new name, which is there, and counted."""
import os
import sys
import time

FILES = 40
BLOCKS = 16
BLOCK = 8192


def block_of(number):
    return (f"{number:08} ".encode() * (BLOCK // 9 + 1))[:BLOCK]


def rename(old, new):
    """1 when the server was killed between doing it and saying so."""
    try:
        os.rename(old, new)
        return 0
    except FileNotFoundError:
        if not os.path.exists(new):
            raise
        return 1


def work(folder, log, seconds):
    os.mkdir(folder)
    end = time.monotonic() + seconds
    with open(log, "w", encoding="ascii", buffering=1) as noted:
        number = repeated = 0
        while time.monotonic() < end:
            name = os.path.join(folder, f"f{number % FILES}")
            if number // FILES % 5 == 4:
                repeated += rename(name, name + "-new")     # names, not only bytes
                repeated += rename(name + "-new", name)
            fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
            for i in range(3):
                assert os.pwrite(fd, block_of(number + i), (number // FILES + i) % BLOCKS * BLOCK) == BLOCK
            os.fsync(fd)
            noted.write(f"{number}\n")
            assert os.pread(fd, BLOCK, number // FILES % BLOCKS * BLOCK) == block_of(number)
            os.close(fd)
            number += 3 if number % 2 else 1
    print(f"{repeated} renames were answered by a server that had not done them")


def check(folder, log):
    with open(log, encoding="ascii") as noted:
        numbers = [int(line) for line in noted.read().splitlines()]
    wanted = {}
    for number in numbers:
        for i in range(3):
            wanted[number % FILES, (number // FILES + i) % BLOCKS] = number + i
    lost = 0
    for (file, block), number in wanted.items():
        with open(os.path.join(folder, f"f{file}"), "rb") as opened:
            opened.seek(block * BLOCK)
            lost += opened.read(BLOCK) != block_of(number)
    print(f"{len(numbers)} fsyncs, {len(wanted)} blocks, {lost} lost")
    return lost > 0 or len(numbers) < 10


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        sys.exit(check(sys.argv[2], sys.argv[3]))
