#!/usr/bin/python3
"""payload.py DOOR MOUNT ADDRESS: writes of all sizes through one door, compared with the mount. Prints TAP."""
import os
import random
import sys

from ninep_client import Tap

FILE_BYTES = 12 << 20
EXTENT = 32 << 10
MIB = 1 << 20


class Fuse:
    def __init__(self, mount, address):
        self.path = os.path.join(mount, "payload-fuse")
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def write(self, data, offset):
        assert os.pwrite(self.fd, data, offset) == len(data)

    def other(self, i):
        """Requests that are no WRITEs, one longer than most."""
        os.setxattr(self.path, "user.long", bytes([i % 256]) * 60000)
        assert os.getxattr(self.path, "user.long") == bytes([i % 256]) * 60000
        os.rename(self.path, self.path + "-renamed")
        os.rename(self.path + "-renamed", self.path)

    def close(self):
        os.fsync(self.fd)
        os.close(self.fd)


DOORS = {"fuse": Fuse}


def sizes(rng):
    """(offset, length), most of them large and where extents begin."""
    kind = rng.randrange(10)
    if kind < 5:
        length = rng.choice((MIB, MIB, 256 << 10, EXTENT, 3 * EXTENT))
        return rng.randrange((FILE_BYTES - length) // EXTENT) * EXTENT, length
    length = rng.randrange(1, MIB if kind < 8 else 5000)
    unit = 4096 if kind == 5 else 1
    return rng.randrange((FILE_BYTES - length) // unit) * unit, length


def main():
    name, mount, address = sys.argv[1:]
    tap = Tap()
    door = DOORS[name](mount, address)
    rng = random.Random(4)
    model = bytearray(FILE_BYTES)
    pool = rng.randbytes(4 * MIB)
    for at in range(0, FILE_BYTES, MIB):
        door.write(bytes(MIB), at)
    for i in range(120):
        offset, length = sizes(rng)
        start = rng.randrange(len(pool) - length)
        data = pool[start:start + length]
        door.write(data, offset)
        model[offset:offset + length] = data
        if i % 10 == 9:
            door.other(i)
        if i % 40 == 39:
            with open("/proc/sys/vm/drop_caches", "w") as drop:
                drop.write("1")
            with open(door.path, "rb") as file:
                tap.ok(file.read() == model, f"{i + 1} writes, read back")
    door.close()
    print(f"1..{tap.count}")
    sys.exit(tap.failed > 0)


main()
