"""A mount that is mounted again with users mapped, as containers do: idmapped.py DIR MAPPED

DIR is the mount; it is mounted once more at MAPPED, where the file system's users 0 to 4999 are 10000 to 14999.
Prints TAP."""
import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
import sys

import programs_lib
from programs_lib import GROUP, OTHER, USER, as_user, equal, fails, read, write

SHIFT, COUNT = 10000, 5000
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
AT_FDCWD, AT_EMPTY_PATH, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = -100, 0x1000, 1, 4
MOUNT_ATTR_IDMAP, CLONE_NEWUSER = 0x00100000, 0x10000000
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x80086601, 0x40086602, 0x10
LIBC = programs_lib.LIBC


def call(number, *arguments):
    result = LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def user_namespace():
    """A descriptor of a user namespace with the mapping."""
    is_ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        if LIBC.unshare(CLONE_NEWUSER) == 0:
            os.write(is_ready[1], b"1")
        os.close(is_ready[1])
        os.close(go_on[1])
        os.read(go_on[0], 1)
        os._exit(0)
    os.close(is_ready[1])
    try:
        if not os.read(is_ready[0], 1):
            raise OSError(errno.EPERM, "no user namespaces")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write(f"0 {SHIFT} {COUNT}")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    finally:
        for fd in (is_ready[0], *go_on):
            os.close(fd)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def mount_mapped(source, target):
    tree = call(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(source), OPEN_TREE_CLONE)
    users = user_namespace()
    attributes = struct.pack("=QQQQ", MOUNT_ATTR_IDMAP, 0, 0, users)
    call(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, ctypes.c_size_t(len(attributes)))
    call(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)
    os.close(users)


def owner(path):
    status = os.lstat(path)
    return status.st_uid, status.st_gid


def mode(path):
    return oct(os.stat(path).st_mode & 0o7777)


def flags(path, value=None):
    fd = os.open(path, os.O_RDONLY)
    try:
        if value is None:
            return struct.unpack("i", fcntl.ioctl(fd, FS_IOC_GETFLAGS, struct.pack("i", 0)))[0]
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("i", value))
    finally:
        os.close(fd)


def acl(user):
    entries = ((1, 7, -1), (2, 7, user), (4, 0, -1), (16, 7, -1), (32, 0, -1))
    return struct.pack("=I", 2) + b"".join(struct.pack("=HHi", *entry) for entry in entries)


class Tests:
    """In `plain`, the directory as it is, and `mapped`, the same with users mapped."""

    def __init__(self, plain, mapped):
        self.plain, self.mapped = plain, mapped
        self.fs_user, self.fs_group, self.fs_other = USER - SHIFT, GROUP - SHIFT, OTHER - SHIFT

    def at(self, name):
        return f"{self.plain}/{name}", f"{self.mapped}/{name}"

    def test_seen(self):
        """owners are seen mapped, and who has no place there as nobody"""
        plain, mapped = self.at("seen")
        write(plain)
        os.chown(plain, 5, 6)
        equal(owner(mapped), (SHIFT + 5, SHIFT + 6))
        os.chown(plain, COUNT + 1, COUNT + 2)
        equal(owner(mapped), (65534, 65534))

    def test_made(self):
        """files, folders, links, FIFOs and nameless files belong to who made them, mapped back"""
        def make():
            os.chdir(self.mapped)
            write("made-file", b"1")
            os.mkdir("made-folder")
            os.symlink("to", "made-symlink")
            os.mkfifo("made-fifo")
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
            path = f"/proc/self/fd/{fd}".encode()
            equal(LIBC.linkat(AT_FDCWD, path, AT_FDCWD, b"made-nameless", programs_lib.AT_SYMLINK_FOLLOW), 0)
            os.link("made-file", "made-link")
            os.rename("made-folder", "made-moved")
        as_user(make)
        for name in ("file", "moved", "symlink", "fifo", "nameless", "link"):
            plain, mapped = self.at(f"made-{name}")
            equal((name, owner(plain), owner(mapped)), (name, (self.fs_user, self.fs_group), (USER, GROUP)))
        as_user(lambda: [os.unlink(f"{self.mapped}/made-{name}") for name in ("file", "symlink", "fifo", "link")])

    def test_unmapped(self):
        """who has no place there makes nothing, not even root"""
        fails(errno.EOVERFLOW, write, f"{self.mapped}/unmapped")
        as_user(lambda: fails(errno.EOVERFLOW, os.mkdir, f"{self.mapped}/unmapped"), 2001, 2002)

    def test_permissions(self):
        """the owner reads his file there, nobody else, and the file system's own user without the mapping"""
        plain, mapped = self.at("private")
        as_user(lambda: write(mapped, b"mine", 0o600))
        as_user(lambda: equal(read(mapped), b"mine"))
        as_user(lambda: fails(errno.EACCES, read, mapped), OTHER, OTHER)
        as_user(lambda: fails(errno.EACCES, read, plain))
        as_user(lambda: equal(read(plain), b"mine"), self.fs_user, self.fs_group)
        as_user(lambda: fails(errno.EPERM, os.chmod, mapped, 0o666), OTHER, OTHER)
        as_user(lambda: os.chmod(mapped, 0o640))
        equal(mode(plain), "0o640")

    def test_chown(self):
        """chown there means the mapped user"""
        plain, mapped = self.at("given")
        as_user(lambda: write(mapped))
        os.chown(mapped, OTHER, GROUP)
        equal((owner(plain), owner(mapped)), ((self.fs_other, self.fs_group), (OTHER, GROUP)))
        as_user(lambda: fails(errno.EPERM, os.chown, mapped, USER, GROUP))
        fails(errno.EOVERFLOW, os.chown, mapped, 1, 1)

    def test_sticky(self):
        """the sticky bit looks at mapped owners"""
        plain, mapped = self.at("sticky")
        os.mkdir(plain)
        os.chmod(plain, 0o1777)
        as_user(lambda: write(f"{mapped}/f"))
        as_user(lambda: fails(errno.EPERM, os.unlink, f"{mapped}/f"), OTHER, OTHER)
        as_user(lambda: os.unlink(f"{mapped}/f"))

    def test_suid(self):
        """set-user-id ends when a user writes, allocates, copies or truncates, and not when root does"""
        plain, mapped = self.at("program")

        def write_to(program):
            os.write(program, b"y")

        def allocate(program):
            os.posix_fallocate(program, 0, 20000)

        def copy(program):
            source = os.open(f"{self.mapped}/source", os.O_RDONLY)
            equal(os.copy_file_range(source, program, 5000), 5000)
            os.close(source)

        def cut(program):
            os.ftruncate(program, 3)

        def empty(program):
            os.close(os.open(mapped, os.O_WRONLY | os.O_TRUNC))

        def run(change):
            fd = os.open(mapped, os.O_RDWR)
            change(fd)
            os.close(fd)
        write(f"{self.plain}/source", b"y" * 10000)
        for change in (write_to, allocate, copy, cut, empty):
            write(plain, b"x" * 10)
            os.chown(plain, self.fs_other, self.fs_other)
            os.chmod(plain, 0o6777)
            run(change)
            equal((change.__name__, mode(plain)), (change.__name__, "0o6777"))
            as_user(lambda: run(change))
            equal((change.__name__, mode(plain)), (change.__name__, "0o777"))

    def test_acl(self):
        """ACLs name mapped users"""
        plain, mapped = self.at("acl")
        write(plain, b"for one", 0o600)
        os.setxattr(mapped, "system.posix_acl_access", acl(OTHER))
        equal(os.getxattr(plain, "system.posix_acl_access"), acl(self.fs_other))
        as_user(lambda: equal(read(mapped), b"for one"), OTHER, OTHER)
        as_user(lambda: fails(errno.EACCES, read, mapped))

    def test_trusted(self):
        """only root sees trusted attributes"""
        plain, mapped = self.at("trusted")
        write(plain, b"", 0o666)
        os.setxattr(mapped, "trusted.t", b"1")
        os.setxattr(mapped, "user.u", b"2")
        names = {"trusted.t", "user.u"}
        equal(names & set(os.listxattr(mapped)), names)
        as_user(lambda: equal(names & set(os.listxattr(mapped)), {"user.u"}))
        equal(os.getxattr(mapped, "trusted.t"), b"1")
        as_user(lambda: fails(errno.ENODATA, os.getxattr, mapped, "trusted.t"))

    def test_flags(self):
        """root makes a file immutable, its owner does not"""
        plain, mapped = self.at("flags")
        as_user(lambda: write(mapped))
        as_user(lambda: fails(errno.EPERM, flags, mapped, FS_IMMUTABLE_FL))
        equal(flags(plain) & FS_IMMUTABLE_FL, 0)
        flags(mapped, FS_IMMUTABLE_FL)
        equal(flags(plain) & FS_IMMUTABLE_FL, FS_IMMUTABLE_FL)
        as_user(lambda: fails(errno.EPERM, write, mapped))
        flags(mapped, 0)

    def test_setgid_folder(self):
        """a folder hands its group on, and keeps setgid only for its members"""
        plain, mapped = self.at("shared")
        os.mkdir(plain)
        os.chown(plain, self.fs_other, self.fs_other)
        os.chmod(plain, 0o2777)
        as_user(lambda: write(f"{mapped}/file", b"", 0o2755))
        as_user(lambda: write(f"{mapped}/member", b"", 0o2775), groups=(OTHER,))
        as_user(lambda: os.mkdir(f"{mapped}/folder"))
        for name in ("file", "member", "folder"):
            equal((name, owner(f"{plain}/{name}")), (name, (self.fs_user, self.fs_other)))
        equal(os.stat(f"{plain}/folder").st_mode & stat.S_ISGID, stat.S_ISGID)
        equal(os.stat(f"{plain}/file").st_mode & stat.S_ISGID, 0)
        equal(os.stat(f"{plain}/member").st_mode & stat.S_ISGID, stat.S_ISGID)


def main():
    plain = os.path.abspath(sys.argv[1])
    mapped = os.path.abspath(sys.argv[2])
    signal.alarm(60)
    os.umask(0)
    os.chmod(plain, 0o777)
    mount_mapped(plain, mapped)
    tests = Tests(plain, mapped)
    count = 0
    for name in [name for name in dir(Tests) if name.startswith("test_")]:
        count += 1
        function = getattr(tests, name)
        try:
            function()
            print(f"ok {count} - {function.__doc__}")
        except Exception as error:  # a test's failure, whatever it is
            print(f"not ok {count} - {function.__doc__}")
            print(f"# {type(error).__name__}: {error}")
    print(f"1..{count}")


main()
