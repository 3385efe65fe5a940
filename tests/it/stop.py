#!/usr/bin/env python3
"""Busy clients of a server that is stopped under them. Used by tests/it/stop.sh.

  stop.py 9p ADDRESS FILE SEED     loads through one door until it breaks off, noting in FILE what was acknowledged as
  stop.py nfs ADDRESS FILE SEED    durable: "NAME NUMBER" says that the file NAME holds at least that number
  stop.py nbd URI FILE SEED
  stop.py mount DIR FILE SEED
  stop.py map DIR COPY             maps a file of 22 MiB, fills it, tells by making COPY that it has, and lives on
  stop.py check DIR FILE...        through a mount: all of it is there. Prints what is not.
"""
import errno
import mmap
import os
import random
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def record(number):
    return b"%019d\n" % number


def load_9p(address, note, seed):
    rng = random.Random(seed)
    import ninep_client as ninep
    client = ninep.Client(address, timeout=30)
    client.version(1 << 20)
    root = client.attach()
    name = f"9p-{rng.randrange(1 << 30):x}"
    fid = client.create(root, name)
    big = client.create(root, name + ".big")
    # Somebody waits for a lock that he does not get.
    client.lock(big, ninep.WRLCK, proc_id=1)
    client.send("lock", struct.pack("<IBIQQI", big, ninep.WRLCK, 1, 0, 0, 2) + ninep.string("other"))
    number = 0
    while True:
        number += 1
        tags = [client.send("write", struct.pack("<IQI", big, rng.randrange(64) << 16, 65536) + rng.randbytes(65536))
                for _ in range(rng.randrange(8))]
        tags += [client.send("read", struct.pack("<IQI", big, rng.randrange(64) << 16, 65536)) for _ in range(4)]
        client.write(fid, record(number))
        client.fsync(fid)
        note(name, number)
        client.symlink(root, f"{name}.{number}", "target")
        client.unlinkat(root, f"{name}.{number}")
        for tag in tags:
            client.wait(tag)


def load_nfs(address, note, seed):
    rng = random.Random(seed)
    import nfs_client as nfs
    client = nfs.Client(address, timeout=30)
    root = client.mnt()
    name = f"nfs-{rng.randrange(1 << 30):x}"
    handle, _ = client.create(root, name)
    big, _ = client.create(root, name + ".big")
    number = 0
    while True:
        number += 1
        xids = [client.send(nfs.NFS, 3, nfs.WRITE, client.write_args(big, rng.randbytes(65536), rng.randrange(64) << 16))
                for _ in range(rng.randrange(8))]
        xids += [client.send(nfs.NFS, 3, nfs.READ, nfs.opaque(big) + nfs.u64(rng.randrange(64) << 16) + nfs.u32(65536))
                 for _ in range(4)]
        xids += [client.send(nfs.NFS, 3, nfs.READDIRPLUS,
                             nfs.opaque(root) + nfs.u64(0) + bytes(8) + nfs.u32(8192, 32768))]
        stable = rng.choice([nfs.UNSTABLE, nfs.FILE_SYNC])
        client.write(handle, record(number), stable=stable)
        if stable == nfs.UNSTABLE:
            client.commit(handle)
        note(name, number)
        for xid in xids:
            client.wait(xid)


def load_nbd(uri, note, seed):
    rng = random.Random(seed)
    import nbd
    handle = nbd.NBD()
    handle.connect_uri(uri)
    # Seeds of clients that run together follow one another, and those of later rounds are higher.
    slot = seed % 64  # of 4 KiB, this client's own
    number = seed * 10**9
    buffers = []
    while True:
        number += 1
        cookies = []
        for _ in range(rng.randrange(12)):
            buffers.append(nbd.Buffer.from_bytearray(bytearray(rng.randbytes(65536))))
            call = rng.choice([handle.aio_pwrite, handle.aio_pread])
            cookies.append(call(buffers[-1], (1 << 20) + (rng.randrange(64) << 16)))
        flags = rng.choice([0, nbd.CMD_FLAG_FUA])
        handle.pwrite(record(number), slot * 4096, flags)
        if flags == 0:
            handle.flush()
        note(f".nbd/disk@{slot * 4096}", number)
        if rng.randrange(4) == 0:
            handle.trim(1 << 20, (1 << 20) + (rng.randrange(4) << 20))
        for cookie in cookies:
            while not handle.aio_command_completed(cookie):
                handle.poll(-1)
        del buffers[:]


def load_mount(path, note, seed):
    rng = random.Random(seed)
    name = f"mount-{rng.randrange(1 << 30):x}"
    fd = os.open(f"{path}/{name}", os.O_RDWR | os.O_CREAT)
    big = os.open(f"{path}/{name}.big", os.O_RDWR | os.O_CREAT)
    direct = os.open(f"{path}/{name}.big", os.O_RDWR | os.O_DIRECT)
    os.ftruncate(big, 4 << 20)
    page = mmap.mmap(-1, 65536)
    number = 0
    while True:
        number += 1
        os.pread(big, 65536, rng.randrange(64) << 16)
        page[:] = rng.randbytes(65536)
        for _ in range(rng.randrange(8)):
            os.pwritev(direct, [page], rng.randrange(64) << 16)
        os.pwrite(fd, record(number), 0)
        os.fsync(fd)
        note(name, number)
        os.mkdir(f"{path}/{name}.{number}")
        os.rmdir(f"{path}/{name}.{number}")
        os.listdir(path)


def map_file(path, copy):
    data = random.randbytes(22 << 20)
    fd = os.open(f"{path}/mapped", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, len(data))
    mapped = mmap.mmap(fd, len(data))
    with open(copy + ".new", "wb") as f:
        f.write(data)
    mapped[:] = data
    os.rename(copy + ".new", copy)
    time.sleep(50)


def check(path, files):
    latest = {}
    for file in files:
        for line in open(file):
            if not line.endswith("\n"):
                continue
            name, number = line.split()
            latest[name] = max(latest.get(name, 0), int(number))
    for name, number in latest.items():
        file, _, offset = name.partition("@")
        try:
            with open(f"{path}/{file}", "rb") as f:
                f.seek(int(offset or 0))
                got = f.read(20)
        except OSError as err:
            got = str(err).encode()
        if not got.strip().isdigit() or int(got) < number:
            print(f"{name} holds {got!r}, but {number} was durable")
    print(f"# {len(latest)} files", file=sys.stderr)


def main():
    kind, where, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    if kind == "check":
        return check(where, rest)
    if kind == "map":
        return map_file(where, rest[0])
    out = os.open(rest[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    loads = {"9p": load_9p, "nfs": load_nfs, "nbd": load_nbd, "mount": load_mount}
    try:
        loads[kind](where, lambda name, number: os.write(out, f"{name} {number}\n".encode()), int(rest[1]))
    except (OSError, EOFError) as err:
        if isinstance(err, OSError) and err.errno in (errno.EINVAL, errno.EBADF, errno.EEXIST):
            raise
    except Exception as err:
        if type(err).__module__ not in ("nbd", "nfs_client", "ninep_client"):
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
