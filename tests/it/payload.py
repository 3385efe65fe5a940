#!/usr/bin/python3
"""payload.py DOOR MOUNT ADDRESS: writes of all sizes through one door, compared with the mount. Prints TAP."""
import os
import random
import sys

import nfs_client
import ninep_client

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


class Ninep:
    def __init__(self, mount, address):
        self.path = os.path.join(mount, "payload-9p")
        self.client = ninep_client.Client(address)
        self.top = self.client.attach()
        self.fid = self.client.create(self.top, "payload-9p")

    def write(self, data, offset):
        self.client.write_all(self.fid, data, offset)

    def other(self, i):
        value = bytes([i % 256]) * 65536  # as long as a payload
        walked = self.client.walk(self.top, "payload-9p")
        self.client.setxattr(walked, "user.long", value)
        assert os.getxattr(self.path, "user.long") == value
        self.client.clunk(walked)

    def close(self):
        self.client.fsync(self.fid)


class Nfs:
    def __init__(self, mount, address):
        self.path = os.path.join(mount, "payload-nfs")
        self.client = nfs_client.Client(address)
        self.top = self.client.mnt()
        self.handle = self.client.create(self.top, "payload-nfs")[0]

    def write(self, data, offset):
        at = 0
        while at < len(data):
            at += self.client.write(self.handle, data[at:at + MIB], offset + at)[0]

    def other(self, i):
        assert self.client.names(self.top)
        self.client.symlink(self.top, f"link-{i}", "x" * 4000)

    def close(self):
        self.client.commit(self.handle)


class Nbd:
    """A device that `varve device` has made."""

    def __init__(self, mount, address):
        import nbd
        self.path = os.path.join(mount, ".nbd/payload")
        self.handle = nbd.NBD()
        self.handle.set_pread_initialize(False)
        self.handle.connect_uri(f"nbd+unix:///payload?socket={address}")

    def write(self, data, offset):
        self.handle.pwrite(data, offset)

    def other(self, i):
        data = self.handle.pread(5000, 3 << 20)
        self.handle.zero(5000, 3 << 20)
        self.handle.pwrite(data, 3 << 20)

    def close(self):
        self.handle.flush()


DOORS = {"fuse": Fuse, "9p": Ninep, "nfs": Nfs, "nbd": Nbd}


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
    tap = ninep_client.Tap()
    door = DOORS[name](mount, address)
    rng = random.Random(4)
    model = bytearray(FILE_BYTES)
    pool = rng.randbytes(4 * MIB)
    for at in range(0, FILE_BYTES, MIB):
        door.write(bytes(MIB), at)
    for i in range(80):
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
