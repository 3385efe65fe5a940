#!/usr/bin/env python3
"""nfs_syncer.py work DIR LOG SECONDS: writes files and fsyncs them, noting in LOG what was; any error
ends it with status 1. Between two fsyncs it makes, moves and removes names: whichever request the server is killed
under, the kernel's client sends it again, and it must be answered as if nothing had happened. nfs_syncer.py check DIR LOG: all that was noted is there."""
import os
import sys
import time

FILES = 40
BLOCKS = 16
BLOCK = 8192


def block_of(number):
    return (f"{number:08} ".encode() * (BLOCK // 9 + 1))[:BLOCK]


def play(name):
    """Each kind of request that cannot be done twice; it ends as it began."""
    os.rename(name, name + "-new")
    os.link(name + "-new", name)
    os.unlink(name + "-new")
    os.mkdir(name + "-dir")
    os.symlink("nowhere", name + "-dir/symlink")
    os.mkfifo(name + "-dir/fifo")
    os.close(os.open(name + "-dir/own", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.truncate(name + "-dir/own", 100)
    for made in ("symlink", "fifo", "own"):
        os.unlink(f"{name}-dir/{made}")
    os.rmdir(name + "-dir")


def work(folder, log, seconds):
    os.mkdir(folder)
    end = time.monotonic() + seconds
    with open(log, "w", encoding="ascii", buffering=1) as noted:
        number = 0
        while time.monotonic() < end:
            name = os.path.join(folder, f"f{number % FILES}")
            if number // FILES % 2 == 1:
                play(name)
            fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
            for i in range(3):
                assert os.pwrite(fd, block_of(number + i), (number // FILES + i) % BLOCKS * BLOCK) == BLOCK
            os.fsync(fd)
            noted.write(f"{number}\n")
            assert os.pread(fd, BLOCK, number // FILES % BLOCKS * BLOCK) == block_of(number)
            os.close(fd)
            number += 3 if number % 2 else 1


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
