#!/usr/bin/python3
"""FS_IOC_SHUTDOWN on a mount. Started by tests/it/shutdown.sh, which starts servers.

  shutdown.py down DIR HOW              0: after all that programs wrote is durable, 1: after all that has come to the
                                        server is, 2: at once; ends with 1 and the error
  shutdown.py refused DIR               who may not, and what is no way to ask; the volume goes on. Prints TAP
  shutdown.py doors DIR 9P NFSPORT NBD  at once; then nothing is to be had through any door. Prints TAP
  shutdown.py write DIR                 files that nobody syncs, one of them written by a mapping; prints their names
  shutdown.py same DIR                  ... and they are there
  shutdown.py label DIR [TEXT]          sets the volume's label; prints it, or the error
"""
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import subprocess
import sys

import nbd

import nfs_client
import ninep_client

FS_IOC_GETFSLABEL, FS_IOC_SETFSLABEL = 0x81009431, 0x41009432
FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, uint32_t)
SYNCED, COMMITTED, AT_ONCE = 0, 1, 2
FILES, FILE_BYTES = 50, 30000


def shut_down(directory, how):
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", how))
    finally:
        os.close(fd)


def error_of(action):
    """The errno with which it fails; 0."""
    try:
        action()
    except OSError as error:
        return error.errno
    except nbd.Error as error:
        return error.errnum
    except nfs_client.NfsError as error:
        return error.status
    return 0


def error_as(directory, *prefix):
    """What somebody else gets who asks."""
    run = subprocess.run([*prefix, sys.executable, __file__, "down", directory, str(AT_ONCE)],
                         capture_output=True, text=True, check=False, timeout=60)
    return run.stdout.strip() or f"{run.returncode} {run.stderr}"


def shut_down_by_page(directory, how):
    """The argument lies in a page that the kernel has to read from this mount."""
    path = os.path.join(directory, "argument")
    with open(path, "w+b") as file:
        file.write(struct.pack("I", how) * 1024)
        file.flush()
        os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 4096) as page:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            first = ctypes.c_char.from_buffer(page)
            argument = ctypes.c_void_p(ctypes.addressof(first))
            libc = ctypes.CDLL(None, use_errno=True)
            failed = libc.ioctl(file.fileno(), ctypes.c_ulong(FS_IOC_SHUTDOWN), argument) < 0
            del first, argument
            if failed:
                raise OSError(ctypes.get_errno(), "ioctl")


def refused(directory):
    tap = ninep_client.Tap()
    tap.equal(error_as(directory, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"), "EPERM", "a user may not")
    tap.equal(error_as(directory, "setpriv", "--bounding-set=-sys_admin"), "EPERM", "nor root without CAP_SYS_ADMIN")
    tap.equal(error_as(directory, "unshare", "-Ur"), "EPERM", "nor root of a user namespace")
    tap.equal(error_of(lambda: shut_down(directory, 3)), errno.EINVAL, "there is no fourth way")
    fd = os.open(directory, os.O_RDONLY)
    tap.equal(error_of(lambda: fcntl.ioctl(fd, FS_IOC_SHUTDOWN, 16)), errno.EFAULT, "nor one at a bad address")
    os.close(fd)
    tap.equal(error_of(lambda: shut_down_by_page(directory, 3)), errno.EINVAL, "an argument in a file of the mount is read")
    path = os.path.join(directory, "goes-on")
    with open(path, "w", encoding="ascii") as file:
        file.write("on")
        os.fsync(file.fileno())
    tap.equal(os.stat(path).st_size, 2, "the volume goes on")
    print(f"1..{tap.count}")


def doors(directory, address, port, uri):
    tap = ninep_client.Tap()
    kept = os.path.join(directory, "kept")
    with open(kept, "wb") as file:
        file.write(b"kept" * 20000)
        os.fsync(file.fileno())
    lost = os.open(os.path.join(directory, "lost"), os.O_RDWR | os.O_CREAT)
    os.write(lost, b"lost")
    direct = os.open(kept, os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, 4096)
    ninep = ninep_client.Client(address)
    root = ninep.attach()
    ninep_file = ninep.open(root, "kept", flags=os.O_RDWR)
    nfs = nfs_client.Client(f"127.0.0.1:{port}")
    nfs_root = nfs.mnt("/")
    nfs_file = nfs.lookup(nfs_root, "kept")[0]
    device = nbd.NBD()
    device.connect_uri(uri)
    device.pwrite(b"x" * 4096, 0)
    device.flush()

    shut_down(directory, AT_ONCE)

    def fails(name, action):
        tap.equal(error_of(action), errno.EIO, name)

    fails("mount: fsync of what was never synced", lambda: os.fsync(lost))
    fails("mount: fsync of what was", lambda: os.fsync(direct))
    fails("mount: write", lambda: os.pwrite(lost, b"more", 10))
    fails("mount: read", lambda: os.preadv(direct, [page], 4096))
    fails("mount: create", lambda: os.open(os.path.join(directory, "new"), os.O_CREAT | os.O_WRONLY))
    fails("mount: open", lambda: os.open(kept, os.O_RDONLY))
    fails("mount: readdir", lambda: os.listdir(directory))
    fails("mount: rename", lambda: os.rename(kept, kept + "2"))
    fails("mount: unlink", lambda: os.unlink(kept))
    fails("mount: truncate", lambda: os.ftruncate(lost, 1))
    fails("mount: setxattr", lambda: os.setxattr(kept, "user.x", b"1"))
    fails("9P: read", lambda: ninep.read(ninep_file, 10))
    fails("9P: write", lambda: ninep.write(ninep_file, b"x"))
    fails("9P: fsync", lambda: ninep.fsync(ninep_file))
    fails("9P: walk", lambda: ninep.walk(root, "lost"))
    fails("9P: readdir", lambda: ninep.names(ninep.walk(root)))
    fails("9P: mkdir", lambda: ninep.mkdir(root, "new"))
    fails("NFS: getattr", lambda: nfs.getattr(nfs_file))
    fails("NFS: read", lambda: nfs.read(nfs_file))
    fails("NFS: write", lambda: nfs.write(nfs_file, b"x"))
    fails("NFS: access", lambda: nfs.access(nfs_file))
    fails("NFS: commit", lambda: nfs.commit(nfs_file))
    fails("NFS: mkdir", lambda: nfs.mkdir(nfs_root, "new"))
    fails("NBD: read", lambda: device.pread(4096, 0))
    fails("NBD: write", lambda: device.pwrite(b"y" * 4096, 0))
    fails("NBD: write with FUA", lambda: device.pwrite(b"y" * 4096, 0, nbd.CMD_FLAG_FUA))
    fails("NBD: flush", device.flush)
    fails("NBD: trim", lambda: device.trim(4096, 0))
    fails("mount: shutting down again needs an open directory", lambda: shut_down(directory, AT_ONCE))
    print(f"1..{tap.count}")


def content(number):
    return bytes([number + 1]) * FILE_BYTES


def write(directory):
    names = []
    for number in range(FILES):
        names.append(f"file{number}")
        with open(os.path.join(directory, names[-1]), "wb") as file:
            file.write(content(number))
    with open(os.path.join(directory, "mapped"), "w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192) as mapping:
            mapping[5000] = 5
    print(" ".join(names))


def same(directory, has_mapped):
    for number in range(FILES):
        with open(os.path.join(directory, f"file{number}"), "rb") as file:
            if file.read() != content(number):
                sys.exit(f"file{number} differs")
    with open(os.path.join(directory, "mapped"), "rb") as file:
        if has_mapped and file.read()[5000] != 5:
            sys.exit("what was mapped is not there")


def label(directory, text):
    fd = os.open(directory, os.O_RDONLY)
    try:
        if text is not None:
            fcntl.ioctl(fd, FS_IOC_SETFSLABEL, text.encode().ljust(256, b"\0"))
        got = bytearray(256)
        fcntl.ioctl(fd, FS_IOC_GETFSLABEL, got)
        print(got.rstrip(b"\0").decode())
    except OSError as error:
        print(errno.errorcode[error.errno])


def main():
    command, directory = sys.argv[1:3]
    if command == "down":
        got = error_of(lambda: shut_down(directory, int(sys.argv[3])))
        print(errno.errorcode.get(got, got))
        return got != 0
    if command == "label":
        label(directory, sys.argv[3] if len(sys.argv) > 3 else None)
    elif command == "refused":
        refused(directory)
    elif command == "doors":
        doors(directory, sys.argv[3], sys.argv[4], sys.argv[5])
    elif command == "write":
        write(directory)
    else:
        same(directory, sys.argv[3] == "mapped")
    return 0


sys.exit(main())
