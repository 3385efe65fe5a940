"""A volume many times larger than memory, from outside.

usage: small.py fill DIR FROM TO      write the files FROM..TO-1, each synced; prints the number of the last one synced
       small.py check DIR TO          the files 0..TO-1 are there, whole
       small.py churn DIR TO SEED     overwrite pieces with the same bytes, rename folders, make and remove files
       small.py full DIR              write until there is no space; remove; write again
       small.py sync DIR             the directory
       small.py crowd STORE FREE_KIB  take the space of the store's file system, but for so much
"""

import errno
import os
import random
import sys
import time

FILE_BYTES = 320 << 10
FOLDER_FILES = 100
BLOCK = 4096


def content(number):
    """Compresses about eight times; every 4 KiB differ."""
    base = random.Random(number).randbytes(BLOCK - 8)
    return b"".join((number << 32 | i).to_bytes(8, "big") + base for i in range(FILE_BYTES // BLOCK))


def path_of(root, number):
    return os.path.join(root, f"d{number // FOLDER_FILES}", f"f{number}")


def fill(root, first, last):
    folder = None
    for number in range(first, last):
        path = path_of(root, number)
        if os.path.dirname(path) != folder:
            folder = os.path.dirname(path)
            os.makedirs(folder, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            if os.write(fd, content(number)) != FILE_BYTES:
                raise OSError(errno.EIO, "short write")
            if number % 10 == 9 or number == last - 1:
                os.fsync(fd)  # and with it all before it
                print(number, flush=True)
        finally:
            os.close(fd)


def check(root, last):
    """A kill may come between the two renames of a folder by churn: then this one, and no other, has its other name."""
    between = [name for name in os.listdir(root) if name.endswith("~")]
    if len(between) > 1 or any(os.path.exists(os.path.join(root, name[:-1])) for name in between):
        print(f"{between}: at most one folder was being moved")
        return 1
    for number in range(last):
        folder = f"d{number // FOLDER_FILES}"
        folder += "~" if folder + "~" in between else ""
        path = os.path.join(root, folder, f"f{number}")
        with open(path, "rb") as file:
            if file.read() != content(number):
                print(f"{path} is not as it was written")
                return 1
    return 0


def churn(root, last, seed):
    rng = random.Random(seed)
    end = time.monotonic() + 60
    for turn in range(100000):
        if time.monotonic() > end:
            return
        number = rng.randrange(last)
        roll = rng.random()
        if roll < 0.6:
            at = rng.randrange(FILE_BYTES // BLOCK) * BLOCK
            fd = os.open(path_of(root, number), os.O_WRONLY)
            os.pwrite(fd, content(number)[at:at + 8 * BLOCK], at)
            os.close(fd)
        elif roll < 0.8:
            extra = os.path.join(root, f"x{rng.randrange(200)}")
            if os.path.exists(extra):
                os.unlink(extra)
            else:
                with open(extra, "wb") as file:
                    file.write(rng.randbytes(rng.randrange(200000)))
        else:
            name = os.path.join(root, f"d{number // FOLDER_FILES}")
            os.rename(name, name + "~")
            os.rename(name + "~", name)


def fill_up(root, prefix):
    """Random bytes until there is no space; the bytes that were synced."""
    pool = os.urandom(1 << 20)
    synced = []
    for i in range(100000):
        path = os.path.join(root, f"{prefix}{i}")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.write(fd, i.to_bytes(8, "big") + pool[8:])
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return synced, pool
        synced.append(path)
    raise RuntimeError("there is no end to the space")


def full(root):
    synced, pool = fill_up(root, "a")
    print(f"{len(synced)} MiB until there is no space")
    for i, path in enumerate(synced):
        with open(path, "rb") as file:
            if file.read() != i.to_bytes(8, "big") + pool[8:]:
                print(f"{path} is not as it was written and synced")
                return 1
    for name in os.listdir(root):
        if name.startswith("a"):
            os.unlink(os.path.join(root, name))
    # What is deleted gives its space back by and by.
    again = []
    for turn in range(30):
        again += fill_up(root, f"b{turn}-")[0]
        if len(again) >= len(synced) * 9 // 10:
            break
        time.sleep(1)
    print(f"{len(again)} MiB again, after removing them")
    for path in again:
        os.unlink(path)
    for name in os.listdir(root):
        if name.startswith("b"):
            os.unlink(os.path.join(root, name))
    return 0 if synced and len(again) >= len(synced) * 9 // 10 else 1


def crowd(store, free_kib):
    with open(os.path.join(store, "..", "crowd"), "wb") as file:
        while True:
            stat = os.statvfs(store)
            free = stat.f_bavail * stat.f_frsize - free_kib * 1024
            if free <= 0:
                return
            try:
                file.write(bytes(min(free, 1 << 20)))
                file.flush()
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return


def main():
    what, root, rest = sys.argv[1], sys.argv[2], [int(x) for x in sys.argv[3:]]
    if what == "fill":
        fill(root, *rest)
        return 0
    if what == "check":
        return check(root, *rest)
    if what == "churn":
        churn(root, *rest)
        return 0
    if what == "sync":
        os.fsync(os.open(root, os.O_RDONLY))
        return 0
    if what == "crowd":
        crowd(root, *rest)
        return 0
    return full(root)


sys.exit(main())
