#!/usr/bin/python3
"""Checks of the NBD door with libnbd. Started by tests/it/nbd.sh, which starts and kills servers.

  nbd_client.py status URI          block status agrees with what was written, at random
  nbd_client.py edges URI           both ends of a very large device, odd offsets, one byte
  nbd_client.py multi URI ROUND PID three connections write, a fourth, which never has, flushes; then the server PID is killed
  nbd_client.py after URI ROUND     what they wrote is there
  nbd_client.py load URI FILE SEED  writes until the connection breaks, noting in FILE what was made durable
  nbd_client.py check URI FILE      ... what is there now is a prefix of that, with all that was durable
  nbd_client.py trim URI BYTES      trims the whole device in pieces; prints the seconds
  nbd_client.py write URI OFFSET LEN SEED, nbd_client.py same URI OFFSET LEN SEED
                             random bytes of that seed; the second compares
Prints what is wrong and ends with 1.
"""
import json
import os
import random
import signal
import struct
import sys
import time

import nbd

BLOCK = 4096


def connect(uri, contexts=False):
    handle = nbd.NBD()
    handle.set_uri_allow_local_file(True)  # certificates and keys
    if contexts:
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_uri(uri)
    return handle


def fail(text):
    print(text)
    sys.exit(1)


def states(handle, offset, length):
    """[(length, flags)] of a range, asked for until it is covered."""
    result = []
    while length > 0:
        found = []
        handle.block_status(min(length, 1 << 31), offset,
                            lambda name, at, entries, err: found.extend(entries) or 0)
        pairs = list(zip(found[0::2], found[1::2]))
        if not pairs:
            fail(f"no status at {offset}")
        for count, flags in pairs:
            count = min(count, length)
            result.append((count, flags))
            offset += count
            length -= count
    return result


def status(uri):
    handle = connect(uri, contexts=True)
    size = 64 << 20
    rng = random.Random(5)
    model = [None] * (size // BLOCK)  # None: a hole; else the byte that fills the block
    handle.trim(size, 0)
    for step in range(600):
        first = rng.randrange(len(model))
        count = min(rng.choice([1, 1, 2, 8, 9, 64, 500]), len(model) - first)
        kind = rng.choice(["write", "write", "zero", "trim", "flush"])
        if kind == "write":
            count = min(count, 256)
            value = rng.randrange(1, 256)
            handle.pwrite(bytes([value]) * (count * BLOCK), first * BLOCK)
            model[first:first + count] = [value] * count
        elif kind == "zero":
            flags = rng.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO])
            handle.zero(count * BLOCK, first * BLOCK, flags)
            model[first:first + count] = [None] * count
        elif kind == "trim":
            handle.trim(count * BLOCK, first * BLOCK)
            model[first:first + count] = [None] * count
        elif step % 10 == 0:
            handle.flush()
        if step % 100 == 99:
            compare_status(handle, model)
    for first in range(0, len(model), 1024):
        got = handle.pread(1024 * BLOCK, first * BLOCK)
        want = b"".join(bytes([value or 0]) * BLOCK for value in model[first:first + 1024])
        if got != want:
            fail(f"the blocks from {first} on do not have what was written")


def compare_status(handle, model):
    at = 0
    for length, flags in states(handle, 0, len(model) * BLOCK):
        if length % BLOCK or flags not in (0, 3):
            fail(f"status {flags} for {length} bytes at {at * BLOCK}")
        for block in range(at, at + length // BLOCK):
            if (model[block] is None) != (flags == 3):
                fail(f"block {block} is {'a hole' if model[block] is None else 'data'}, "
                     f"status says {flags}")
        at += length // BLOCK


def edges(uri):
    handle = connect(uri, contexts=True)
    size = handle.get_size()
    handle.pwrite(b"last", size - 4)
    handle.pwrite(b"x", 1)
    handle.pwrite(b"odd" * 1001, (1 << 40) - 1501)
    handle.flush()
    if handle.pread(4, size - 4) != b"last" or handle.pread(3, 0) != b"\0x\0":
        fail("the ends are not what was written")
    if handle.pread(3003, (1 << 40) - 1501) != b"odd" * 1001:
        fail("the middle is not what was written")
    if handle.pread(16 << 20, size // 2) != bytes(16 << 20):
        fail("what was never written is not zero")
    handle.set_strict_mode(0)
    for call in (lambda: handle.pread(1, size), lambda: handle.pwrite(b"ab", size - 1),
                 lambda: handle.pread(512, 1 << 62)):
        try:
            call()
            fail("what lies behind the end can be used")
        except nbd.Error:
            pass
    handle.trim(1 << 20, size - (1 << 20))
    if handle.pread(4, size - 4) != bytes(4):
        fail("what was trimmed is still there")


WRITERS = 3


def blocks_of(number):
    """Block and content of each writer in this round: other places each time, so that nothing older looks right."""
    return [(number * WRITERS + i, struct.pack(">QQ", number + 1, i) * (BLOCK // 16)) for i in range(WRITERS)]


def multi(uri, number, pid):
    """The flusher has written nothing, so a flush that covered its own connection only would do nothing; and no commit by age
    comes in between: the server dies as soon as the flush is answered."""
    flusher = connect(uri)
    writers = [connect(uri) for _ in range(WRITERS)]
    if not flusher.can_multi_conn():
        fail("no multi-conn")
    flusher.flush()
    for writer, (block, data) in zip(writers, blocks_of(number)):
        writer.pwrite(data, block * BLOCK)
    for other in [flusher] + writers:
        for i, (block, data) in enumerate(blocks_of(number)):
            if other.pread(BLOCK, block * BLOCK) != data:
                fail(f"a connection does not see what writer {i} wrote")
    flusher.flush()
    os.kill(pid, signal.SIGKILL)


def after(uri, number):
    handle = connect(uri)
    for i, (block, data) in enumerate(blocks_of(number)):
        if handle.pread(BLOCK, block * BLOCK) != data:
            fail(f"what writer {i} wrote before the flush of round {number} is lost")


BLOCKS = 256  # of the device that `load` writes to


def load(uri, path, seed):
    """One write after the other, so that each state is a prefix; each write says which it is."""
    writer, flusher = connect(uri), connect(uri)
    print("connected", flush=True)
    rng = random.Random(seed)
    with open(path, "a") as file:
        done = base = sum(1 for _ in open(path))
        if base:
            done = base = json.loads(open(path).read().splitlines()[-1])["written"]
        try:
            for number in range(base + 1, base + 1000000):
                block = rng.randrange(BLOCKS)
                kind = rng.random()
                record = {"written": number, "block": block}
                if kind < 0.1:
                    record["what"] = "zero"
                    file.write(json.dumps(record) + "\n")
                    file.flush()
                    writer.zero(BLOCK, block * BLOCK)
                else:
                    record["what"] = "data"
                    flags = nbd.CMD_FLAG_FUA if kind > 0.97 else 0
                    file.write(json.dumps(record) + "\n")
                    file.flush()
                    writer.pwrite(struct.pack(">Q", number) * (BLOCK // 8), block * BLOCK, flags)
                    if flags:
                        file.write(json.dumps({"written": number, "durable": number}) + "\n")
                        file.flush()
                done = number
                if 0.5 < kind < 0.53:
                    flusher.flush()
                    file.write(json.dumps({"written": done, "durable": done}) + "\n")
                    file.flush()
        except nbd.Error:
            pass


def check(uri, path):
    handle = connect(uri)
    history = [json.loads(line) for line in open(path)]
    durable = max((entry.get("durable", 0) for entry in history), default=0)
    blocks = [handle.pread(BLOCK, i * BLOCK) for i in range(BLOCKS)]
    for i, content in enumerate(blocks):
        if content != content[:8] * (BLOCK // 8):
            fail(f"block {i} is of several writes: it was torn")
    found = [struct.unpack(">Q", content[:8])[0] for content in blocks]
    # Replay the history; at which points does it look like what is there?
    state = [0] * BLOCKS
    wrong = sum(1 for i in range(BLOCKS) if found[i] != 0)
    matches = [0] if wrong == 0 else []
    for entry in history:
        if "what" not in entry:
            continue
        i = entry["block"]
        wrong -= state[i] != found[i]
        state[i] = entry["written"] if entry["what"] == "data" else 0
        wrong += state[i] != found[i]
        if wrong == 0:
            matches.append(entry["written"])
    if not matches:
        fail("what is there is no prefix of what was written")
    if max(matches) < durable:
        fail(f"write {durable} was made durable; what is there ends at {max(matches)}")
    # From here on: what is there is the history.
    last = max(matches)
    kept = [entry for entry in history if "what" in entry and entry["written"] <= last]
    newest = {}
    for entry in kept:
        newest[entry["block"]] = entry
    with open(path, "w") as file:
        for entry in sorted(newest.values(), key=lambda e: e["written"]):
            file.write(json.dumps(entry) + "\n")
        file.write(json.dumps({"written": last, "durable": last}) + "\n")
    handle.flush()
    print(f"{last} {durable}")


def trim(uri, piece):
    handle = connect(uri)
    size = handle.get_size()
    start = time.time()
    for offset in range(0, size, piece):
        handle.trim(min(piece, size - offset), offset)
    handle.flush()
    print(f"{time.time() - start:.3f}")


def content(seed, length):
    return random.Random(seed).randbytes(length)


def write(uri, offset, length, seed):
    handle = connect(uri)
    data = content(seed, length)
    for at in range(0, length, 1 << 20):
        handle.pwrite(data[at:at + (1 << 20)], offset + at)
    handle.flush()


def same(uri, offset, length, seed):
    handle = connect(uri)
    data = content(seed, length)
    for at in range(0, length, 1 << 20):
        part = data[at:at + (1 << 20)]
        if handle.pread(len(part), offset + at) != part:
            fail(f"the bytes from {offset + at} on differ")


def main():
    commands = {"status": status, "edges": edges, "multi": multi, "after": after, "load": load, "check": check,
                "trim": trim, "write": write, "same": same}
    numbers = [int(a) if a.isdigit() else a for a in sys.argv[3:]]
    commands[sys.argv[1]](sys.argv[2], *numbers)


main()
