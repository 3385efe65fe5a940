#!/usr/bin/env python3
"""nfs_again.py VARVE FOLDER: requests whose answer died with the server (kill -9) are sent again, as the kernel's
client does on a hard mount: with the same xid, from another port, to the server that has started anew. What was done
is answered as it would have been, what was not is done; in no case twice. NFS_KILLS: rounds of kills at any moment
(5). Prints TAP."""
import os
import random
import select
import sys
import time

from nfs_client import *     # pylint: disable=wildcard-import,unused-wildcard-import
from nfs_durable import KILLS, run_tests

OPS = 60            # under way at once when the server is killed


def name_op(top, name):
    return opaque(top) + opaque(name)


def requests(top, sub, victims, i):
    """One of each kind that can't be done twice, all names with `i` in them; none depends on another."""
    file, folder, old, gone, shut, cut = victims
    return [
        (CREATE, name_op(top, f"guarded-{i}") + u32(GUARDED) + sattr(mode=0o640)),
        (CREATE, name_op(top, f"exclusive-{i}") + u32(EXCLUSIVE) + u64(77 + i)),
        (CREATE, name_op(top, f"unchecked-{i}") + u32(UNCHECKED) + sattr(mode=0o644, size=0)),
        (MKDIR, name_op(top, f"dir-{i}") + sattr(mode=0o755)),
        (SYMLINK, name_op(top, f"symlink-{i}") + sattr(mode=0o777, mtime=(5, 6)) + opaque("target")),
        (MKNOD, name_op(top, f"fifo-{i}") + u32(FIFO) + sattr(mode=0o600)),
        (LINK, opaque(file) + name_op(top, f"link-{i}")),
        (REMOVE, name_op(top, gone)),
        (RMDIR, name_op(top, folder)),
        (RENAME, name_op(top, old) + name_op(sub, f"new-{i}")),
        (SETATTR, opaque(shut[0]) + sattr(mode=0o400) + u32(1, *shut[1])),
        (SETATTR, opaque(cut) + sattr(size=3) + u32(0)),
    ]


def make_victims(client, top, i):
    """What the requests need to be there."""
    client.mkdir(top, f"folder-{i}")
    for name in (f"old-{i}", f"gone-{i}"):
        client.create(top, name)
    shut, attr = client.create(top, f"shut-{i}")
    cut = client.write_file(top, f"cut-{i}", b"0123456789")
    return (client.lookup(top, "file")[0], f"folder-{i}", f"old-{i}", f"gone-{i}", (shut, attr.ctime), cut)


def outcome(procedure, reader):
    """The status and the handle; the rest of the reply must decode."""
    status, handle = reader.u32(), None
    if status == 0 and procedure in (CREATE, MKDIR, SYMLINK, MKNOD):
        handle = reader.opaque() if reader.u32() else None
        reader.post_attr()
    if procedure == LINK:
        reader.post_attr()
    reader.wcc()
    if procedure == RENAME:
        reader.wcc()
    reader.end()
    return status, handle


def snapshot(client, top, sub):
    """All that a request done twice would change."""
    return sorted((e[0], e[1], e[3].mode, e[3].nlink, e[3].size, e[3].ctime, e[3].mtime)
                  for folder in (top, sub) for e in client.readdir(folder, plus=True, count=65536)
                  if e[0] != "..")


def test_done(tap, server):
    """Done and durable: the answer lies in the client's socket, unread, when the server is killed."""
    server.start()
    client = server.client()
    root = client.mnt()
    top, _ = client.mkdir(root, "again")
    sub, _ = client.mkdir(top, "sub")
    client.create(top, "file")
    wanted = requests(top, sub, make_victims(client, top, 0), 0)
    sender = server.client()
    xids = []
    for procedure, args in wanted:
        xids.append(sender.send(NFS, 3, procedure, args))
        select.select([sender.socket], [], [])
    first = [outcome(p, sender.wait(xid)) for (p, _), xid in zip(wanted, xids)]
    tap.equal([status for status, _ in first], [0] * len(wanted), "each kind of request is done")
    before = snapshot(client, top, sub)
    server.kill()
    server.start()
    sender = server.client()
    again = [outcome(p, sender.rpc(NFS, 3, p, args, xid=xid)) for (p, args), xid in zip(wanted, xids)]
    tap.equal(again, first, "sent again after kill -9, with the same xid: the same status and handle")
    more = [outcome(p, sender.rpc(NFS, 3, p, args, xid=xid)) for (p, args), xid in zip(wanted, xids)]
    tap.equal(more, first, "and once more")
    tap.equal(snapshot(server.client(), top, sub), before, "and nothing was done twice")
    client = server.client()
    client.create(top, "gone-0")
    server.kill()
    server.start()
    sender = server.client()
    index = [p for p, _ in wanted].index(REMOVE)
    tap.equal(outcome(REMOVE, sender.rpc(NFS, 3, *wanted[index], xid=xids[index])), (0, None),
              "the server after that one knows it too")
    client = server.client()
    tap.ok("gone-0" in client.names(top), "and leaves alone what has the name now")
    tap.equal([outcome(p, client.call(p, args))[0] for p, args in wanted if p not in (SETATTR, REMOVE)],
              [EXIST, 0, 0, EXIST, EXIST, EXIST, EXIST, NOENT, NOENT],
              "with another xid they are other requests")
    stranger = server.client(uid=1)
    stranger_args = wanted[3]
    tap.equal(outcome(MKDIR, stranger.rpc(NFS, 3, *stranger_args, xid=xids[3]))[0], EXIST,
              "and so they are from somebody else")
    client.remove_tree(root, "again")
    tap.equal(server.stop(), 0, "the server ends well")
    server.run("fsck", "--quiet")


def test_any_moment(tap, server):
    """Killed at any moment with requests under way: whether done or not, sent again they are answered OK."""
    rng = random.Random(1)
    server.start()
    client = server.client()
    root = client.mnt()
    top, _ = client.mkdir(root, "moment")
    sub, _ = client.mkdir(top, "sub")
    client.create(top, "file")
    wrong, answered, resent, recovered = [], 0, 0, 0
    for round_number in range(KILLS):
        wanted = []
        for i in range(round_number * 100, round_number * 100 + OPS // 12):
            wanted += requests(top, sub, make_victims(client, top, i), i)
        rng.shuffle(wanted)
        sender = server.client()
        xids = [sender.send(NFS, 3, procedure, args) for procedure, args in wanted]
        time.sleep(rng.random() * 0.01)
        server.kill()
        done = {}
        try:
            for (procedure, _), xid in zip(wanted, xids):
                done[xid] = outcome(procedure, sender.wait(xid))
        except OSError:
            pass
        answered += len(done)
        server.start()
        sender = server.client()
        for (procedure, args), xid in zip(wanted, xids):
            found = outcome(procedure, sender.rpc(NFS, 3, procedure, args, xid=xid))
            if found[0] != 0 or done.get(xid, found) != found:
                wrong.append((round_number, procedure, found, done.get(xid)))
            resent += xid not in done
        recovered += server.status()["nfs_recovered"]
        client = server.client()
    tap.equal(wrong, [], f"{KILLS} kills with {OPS} requests under way: {answered} answers came, {resent} did not; "
              f"all sent again, {recovered} had been done, none is answered with an error")
    tap.equal(server.stop(), 0, "the server ends well")
    server.run("fsck", "--quiet")
    server.start("--export", "/:no_root_squash,insecure,async")
    client = server.client()
    made, _ = client.mkdir(client.mnt(), "async")
    xid = client.xid
    server.kill()
    server.start()
    client = server.client()
    args = opaque(root) + opaque("async") + sattr(mode=0o755)
    tap.equal(outcome(MKDIR, client.rpc(NFS, 3, MKDIR, args, xid=xid))[0], 0,
              "an async export: done anew or answered, as it was lost or not")
    server.stop()


if __name__ == "__main__":
    sys.exit(run_tests(test_done, test_any_moment))
