#!/usr/bin/env python3
"""nfs_durable.py VARVE FOLDER: what NFS promises across restarts and kill -9, and to whom. It makes
a volume in FOLDER, and starts and kills its servers itself, always on the same port. Prints TAP."""
import json
import os
import re
import signal
import subprocess
import sys
import time

from nfs_client import *     # pylint: disable=wildcard-import,unused-wildcard-import

LATENCY_MS = 200
KILLS = int(os.environ.get("NFS_KILLS", "5"))


class Server:
    """The server of one volume; start() again after stop() or kill()."""

    def __init__(self, varve, folder, *options):
        self.varve, self.folder, self.options = varve, folder, options
        self.port, self.process = 0, None
        self.log = os.path.join(folder, "durable.log")
        self.run("init", "--quiet")

    def run(self, command, *options):
        subprocess.run([self.varve, command, os.path.join(self.folder, "durable"), "--key-file",
                        os.path.join(self.folder, "durable.key"), *options], check=True)

    def start(self, *options):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [self.varve, "serve", os.path.join(self.folder, "durable"), "--key-file",
                 os.path.join(self.folder, "durable.key"), "--nfs", f"127.0.0.1:{self.port}",
                 *(options or self.options)], stdout=log, stderr=log)
        for _ in range(600):
            with open(self.log, encoding="utf-8") as log:
                text = log.read()
            found = re.search(r"NFS on port (\d+)", text)
            if found:
                self.port = int(found[1])
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start: {text}")

    def status(self):
        out = subprocess.run([self.varve, "status", os.path.join(self.folder, "durable"), "--key-file",
                              os.path.join(self.folder, "durable.key"), "--json"], check=True, stdout=subprocess.PIPE)
        return json.loads(out.stdout)

    def client(self, **options):
        return Client(f"127.0.0.1:{self.port}", **options)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait(60)


def test_restart(tap, server):
    """Handles, cookies, verifiers and exclusive creates outlive the server."""
    server.start()
    client = server.client()
    root = client.mnt()
    top, _ = client.mkdir(root, "restart")
    file = client.write_file(top, "before", b"content")
    for i in range(100):
        client.create(top, f"entry-{i:03}")
    mine, _ = client.create(top, "mine", EXCLUSIVE, b"verifier")
    first_page, verifier, _ = client.readdir_page(top, count=2000)
    rest = [e[0] for e in client.readdir(top)][len(first_page):]
    _, _, write_verifier = client.write(file, b"C")
    client.rename(top, "before", root, "after")
    tap.equal(server.stop(), 0, "the server ends well")
    server.start()
    client.connect()
    tap.equal(client.read(file), b"Content", "a handle is good after a restart and a rename")
    tap.equal(client.lookup(root, "after")[0], file, "and is what LOOKUP gives")
    page, cookie, eof = [], first_page[-1][2], False
    while not eof:
        more, verifier, eof = client.readdir_page(top, cookie, verifier, count=2000)
        page += more
        cookie = page[-1][2]
    tap.equal([e[0] for e in page], rest, "a listing goes on behind its page")
    tap.ok(client.commit(file) != write_verifier, "the write verifier is another")
    tap.equal(client.create(top, "mine", EXCLUSIVE, b"verifier")[0], mine,
              "an exclusive CREATE is recognised when it is repeated")
    tap.fails(EXIST, "another one is not", client.create, top, "mine", EXCLUSIVE, b"not mine")
    client.remove_tree(root, "restart")
    client.remove(root, "after")
    tap.equal(server.stop(), 0, "the server ends well")


def test_crash(tap, server):
    """UNSTABLE, COMMIT, kill -9, resend: as a client does it."""
    server.start()
    client = server.client()
    root = client.mnt()
    file, _ = client.create(root, "crash")
    lost = []
    block = 65536
    for round_number in range(KILLS):
        base = round_number * 64
        data = [bytes([1 + (base + i) % 250]) * block for i in range(64)]
        verifiers = set()
        for i in range(32):
            count, committed, verifier = client.write(file, data[i], (base + i) * block)
            verifiers.add(verifier)
            if (count, committed) != (block, UNSTABLE):
                lost.append(("short or not UNSTABLE", round_number, i))
        verifiers.add(client.commit(file))
        for i in range(32, 64):
            verifiers.add(client.write(file, data[i], (base + i) * block)[2])
        server.kill()
        server.start()
        client.connect()
        for i in range(32):
            if client.read(file, (base + i) * block, block) != data[i]:
                lost.append(("committed", round_number, i))
        # The verifier of a COMMIT says that what came before is to be sent again.
        now = client.commit(file)
        if len(verifiers) != 1 or now in verifiers:
            lost.append(("verifier", round_number, verifiers, now))
        for i in range(32, 64):
            client.write(file, data[i], (base + i) * block)
        if client.commit(file) != now:
            lost.append(("verifier changed", round_number))
    tap.equal(lost, [], f"{KILLS} kills: what was committed is there, the rest is sent again")
    server.kill()
    server.start()
    client.connect()
    whole = all(client.read(file, i * block, block) == bytes([1 + i % 250]) * block
                for i in range(KILLS * 64))
    tap.ok(whole, "and is there then")

    # What NFS wants durable on reply: names and attributes, DATA_SYNC and FILE_SYNC.
    missing = []
    for round_number in range(KILLS):
        name = f"round-{round_number}"
        top, _ = client.mkdir(root, name)
        xids = [client.send(NFS, 3, CREATE, opaque(top) + opaque(f"f{i}") + u32(GUARDED) +
                            sattr(mode=0o600)) for i in range(50)]
        for xid in xids[:30]:
            if client.wait(xid).u32():
                missing.append(("create", round_number))
        client.write(client.lookup(top, "f0")[0], b"data", stable=DATA_SYNC)
        client.write(client.lookup(top, "f1")[0], b"file", stable=FILE_SYNC)
        client.setattr(client.lookup(top, "f2")[0], mode=0o444)
        client.rename(top, "f3", root, f"moved-{round_number}")
        client.remove(top, "f4")
        client.symlink(top, "link", "target")
        server.kill()
        server.start()
        client = server.client()
        client.mnt()
        names = client.names(top)
        wanted = {f"f{i}" for i in range(30) if i not in (3, 4)} | {"link"}
        if not wanted <= set(names) or {"f3", "f4"} & set(names):
            missing.append(("names", round_number, sorted(wanted - set(names))))
        if (client.read(client.lookup(top, "f0")[0]), client.read(client.lookup(top, "f1")[0])) != (b"data", b"file"):
            missing.append(("data", round_number))
        if client.getattr(client.lookup(top, "f2")[0]).mode != 0o444:
            missing.append(("mode", round_number))
        client.lookup(root, f"moved-{round_number}")
    tap.equal(missing, [], f"{KILLS} kills: what was answered is there, without any COMMIT")
    tap.equal(server.stop(), 0, "the server ends well")
    try:
        server.run("fsck", "--quiet")
        tap.ok(True, "and the volume is whole")
    except subprocess.CalledProcessError as err:
        tap.ok(False, "and the volume is whole", repr(err))


def timed(function, *args, **options):
    begin = time.monotonic()
    function(*args, **options)
    return (time.monotonic() - begin) * 1000


def test_waits(tap, server):
    """With durability in a slow bucket it shows who waits for it."""
    options = ("--durability", "bucket", "--store-latency", str(LATENCY_MS))
    server.start("--export", "/:no_root_squash,insecure", *options)
    client = server.client()
    root = client.mnt()
    took = timed(client.mkdir, root, "slow")
    tap.ok(took >= LATENCY_MS, f"MKDIR waits for the store ({took:.0f} ms)")
    top, _ = client.lookup(root, "slow")
    file, _ = client.create(top, "file")
    client.write(file, b"x" * 4096)     # and reads from the store what it did not know yet
    took = timed(client.write, file, b"y" * 4096)
    tap.ok(took < LATENCY_MS, f"WRITE UNSTABLE does not ({took:.0f} ms)")
    took = timed(client.commit, file)
    tap.ok(took >= LATENCY_MS, f"COMMIT does ({took:.0f} ms)")
    took = timed(client.write, file, b"x", stable=FILE_SYNC)
    tap.ok(took >= LATENCY_MS, f"WRITE FILE_SYNC does ({took:.0f} ms)")
    begin = time.monotonic()
    xids = [client.send(NFS, 3, CREATE, opaque(top) + opaque(f"f{i}") + u32(GUARDED) + sattr(mode=0o600))
            for i in range(100)]
    done = all(client.wait(xid).u32() == 0 for xid in xids)
    took = (time.monotonic() - begin) * 1000
    tap.ok(done and LATENCY_MS <= took < 100 * LATENCY_MS / 4,
           f"a hundred CREATEs at once share it ({took:.0f} ms)")
    server.stop()
    server.start("--export", "/:no_root_squash,insecure,async", *options)
    client = server.client()
    client.create(top, "first")
    took = timed(client.create, top, "async")
    tap.ok(took < LATENCY_MS, f"on an async export CREATE does not wait ({took:.0f} ms)")
    file, _ = client.lookup(top, "async")
    client.write(file, b"x")
    took = timed(client.commit, file)
    tap.ok(took >= LATENCY_MS, f"but COMMIT does ({took:.0f} ms)")
    tap.equal(server.stop(), 0, "the server ends well")


def test_exports(tap, server):
    server.start()
    client = server.client()
    root = client.mnt()
    made = {}
    for name in ("open", "squash", "all", "ro", "far", "port"):
        made[name], _ = client.mkdir(root, name, mode=0o777)
        client.setattr(made[name], mode=0o777)
    client.write_file(made["ro"], "file", b"read me")
    client.mkdir(made["open"], "sub")
    server.stop()
    server.start("--export", "/open:no_root_squash,insecure", "--export", "/squash:insecure",
                 "--export", "/all:all_squash,anonuid=7,anongid=8,insecure",
                 "--export", "/ro:ro,insecure", "--export", "/far@10.99.99.0/24", "--export", "/port")
    client = server.client()
    tap.equal([path for path, _ in client.exports()], ["/open", "/squash", "/all", "/ro", "/far", "/port"],
              "EXPORT lists them")
    tap.equal(dict(client.exports())["/far"], ["10.99.99.0/24"], "with their networks")
    tap.fails(ACCES, "MNT of the root, which is not exported", client.mnt, "/")
    tap.fails(ACCES, "of an export for others", client.mnt, "/far")
    tap.equal(client.mnt("/open"), made["open"], "MNT of an export")
    sub = client.mnt("/open/sub/")
    tap.equal(client.lookup(made["open"], "sub")[0], sub, "of a directory in one")
    tap.equal(client.lookup(made["open"], "..")[0], made["open"], ".. does not lead out of it")
    tap.equal(client.lookup(sub, "..")[0], made["open"], "but up to it")
    entries = {e[0]: e for e in client.readdir(made["open"], plus=True)}
    tap.equal(entries[".."][4], made["open"], "nor does a listing show what is above")
    tap.fails(STALE, "a handle from outside", client.getattr, root)
    tap.fails(STALE, "and of an export for others", client.getattr, made["far"])
    user = server.client(uid=1000, gid=1000, gids=(0, 5))
    owners = {}
    for name in ("open", "squash", "all"):
        owners[name] = [(a.uid, a.gid) for a in (client.create(made[name], "root")[1],
                                                 user.create(made[name], "user")[1])]
    tap.equal(owners["open"], [(0, 0), (1000, 1000)], "no_root_squash")
    tap.equal(owners["squash"], [(65534, 65534), (1000, 1000)], "root_squash")
    tap.equal(owners["all"], [(7, 8), (7, 8)], "all_squash with anonuid and anongid")
    handle, _ = client.lookup(made["open"], "root")
    client.setattr(handle, mode=0o060)
    tap.equal(user.access(handle), 0x0d, "group 0 counts where root is not squashed")
    handle, _ = client.lookup(made["squash"], "user")
    tap.fails(PERM, "a squashed root may not chown", client.setattr, handle, uid=0)
    ro_file, _ = client.lookup(made["ro"], "file")
    tap.equal(client.read(ro_file), b"read me", "a read-only export is read")
    tap.fails(ROFS, "not written", client.write, ro_file, b"x")
    tap.fails(ROFS, "nor anything made", client.create, made["ro"], "x")
    tap.equal(client.access(ro_file) & 0x1c, 0, "as ACCESS says")
    client.create(made["open"], "other")
    tap.fails(XDEV, "RENAME into another export", client.rename, made["open"], "other", made["squash"], "x")
    tap.fails(XDEV, "LINK likewise", client.link, client.lookup(made["open"], "other")[0], made["squash"], "x")
    low = server.client(privileged=False)
    tap.fails(ACCES, "a port that anybody may have: MNT", low.mnt, "/port")
    tap.fails(PERM, "and everything else", low.getattr, made["port"])
    tap.equal(low.mnt("/open"), made["open"], "but where insecure ones are allowed")
    if client.privileged:
        tap.equal(client.mnt("/port"), made["port"], "a privileged port")
    tap.equal(server.stop(), 0, "the server ends well")
    server.start("--export", "/:no_root_squash,insecure", "--read-only")
    client = server.client()
    root = client.mnt()
    tap.equal(client.read(ro_file), b"read me", "a read-only server is read")
    tap.fails(ROFS, "not written", client.write, ro_file, b"x")
    tap.fails(ROFS, "and nothing is removed", client.remove, made["ro"], "file")
    server.stop()


def run_tests(*tests):
    """The main program: SERVER FOLDER are the arguments. The exit status."""
    tap = Tap()
    server = Server(sys.argv[1], sys.argv[2], "--export", "/:no_root_squash,insecure")
    try:
        for test in tests:
            begin = time.monotonic()
            test(tap, server)
            print(f"# {test.__name__}: {time.monotonic() - begin:.1f} s")
    except (NfsError, RpcError, OSError, ValueError, RuntimeError) as err:
        tap.ok(False, "no trouble", repr(err))
        raise
    finally:
        if server.process and server.process.poll() is None:
            server.kill()
    return tap.done()


if __name__ == "__main__":
    sys.exit(run_tests(test_restart, test_crash, test_waits, test_exports))
