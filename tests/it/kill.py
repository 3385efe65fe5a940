"""A mixed load on a mounted volume, its history, and the question whether what is found after a crash is a
prefix of that history which holds everything that was synced.

usage: kill.py load DIR HISTORY SEED STATE [LOAD]  run until killed or the mount dies, noting each step in HISTORY;
                                                   LOAD is mixed (the default), syncs or renames
       kill.py check DIR HISTORY 0 STATE           compare; STATE is a JSON state; prints the new state

Each step is one request of the kernel, and so is there wholly or not at all, with two exceptions, which the kernel
makes and not the server: creating and writing are two, and a write is cut where requests end (see cuts). There the
prefix may end between them, and nowhere else.
"""

import hashlib
import json
import mmap
import os
import random
import sys

NAMES = [f"n{i}" for i in range(40)]
FOLDERS = ["d0", "d1", "e", "f"]
FOLDERS_MAX = 6
PAGE = 4096
# The most that the kernel puts into one write request: FUSE 1 MiB, and 256 pages of the file. A client that sends what it is
# given, unaware of pages (v9fs with cache=none), names its bytes in the environment.
REQUEST_BYTES = int(os.environ.get("REQUEST_BYTES", 1 << 20))
REQUEST_PAGES = 256
WRITE_MAX = 2500000

# Resident: a page of the source that had to be fetched would end a request anywhere.
BUFFER = mmap.mmap(-1, WRITE_MAX, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE | 0x2000)


def content(seed, length):
    return random.Random(seed).randbytes(length)


def perform(root, step):
    """Does one step on a real directory."""
    kind, path = step["do"], os.path.join(root, step.get("path", ""))
    if kind == "write":
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            BUFFER[:step["len"]] = content(step["seed"], step["len"])
            with memoryview(BUFFER) as view, view[:step["len"]] as part:
                done = os.pwrite(fd, part, step["at"])
            if done != step["len"]:
                raise OSError(0, f"wrote {done} of {step['len']}")
        finally:
            os.close(fd)
    elif kind == "truncate":
        os.truncate(path, step["len"])
    elif kind == "rename":
        os.rename(path, os.path.join(root, step["to"]))
    elif kind == "link":
        os.link(path, os.path.join(root, step["to"]))
    elif kind == "symlink":
        os.symlink(step["target"], path)
    elif kind == "unlink":
        os.unlink(path)
    elif kind == "mkdir":
        os.mkdir(path)
    elif kind == "rmdir":
        os.rmdir(path)
    elif kind in ("fsync", "fsyncdir"):
        fd = os.open(path or ".", os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def cuts(step):
    """The lengths after which a request of this write may end before the last one. A first page that is written in
    part, and is not in the kernel's cache, is a request of its own (fuse_fill_write_pages in the kernel's fs/fuse/file.c
    keeps such a page locked and stops there); the others follow from the page behind it."""
    at, length = step["at"], step["len"]
    if "REQUEST_BYTES" in os.environ:
        return list(range(REQUEST_BYTES, length, REQUEST_BYTES))
    first = -at % PAGE
    by_pages = range((at // PAGE + REQUEST_PAGES) * PAGE - at, length, REQUEST_PAGES * PAGE)
    by_bytes = range(REQUEST_BYTES, length, REQUEST_BYTES)
    behind_first = range(first, length, REQUEST_BYTES) if first else ()
    return sorted(set(by_pages) | set(by_bytes) | set(behind_first))


def parent(path):
    return os.path.dirname(path)


class Model:
    """What the tree should be. Files are shared by hard links: path -> number -> bytes."""

    def __init__(self, state=None):
        state = state or {"paths": {}, "files": {}}
        self.paths = {k: tuple(v) for k, v in state["paths"].items()}
        self.files = {int(k): bytes.fromhex(v) for k, v in state["files"].items()}
        self.hashes = {}
        self.next = max([0, *self.files, *(v[1] for v in self.paths.values() if v[0] == "dir")]) + 1

    def copy(self):
        other = Model()
        other.paths, other.files, other.hashes = dict(self.paths), dict(self.files), dict(self.hashes)
        other.next = self.next
        return other

    def set_bytes(self, number, data):
        self.files[number] = bytes(data)
        self.hashes.pop(number, None)

    def hash(self, number):
        if number not in self.hashes:
            self.hashes[number] = hashlib.sha256(self.files[number]).hexdigest()
        return self.hashes[number]

    def state(self):
        used = {v[1] for v in self.paths.values() if v[0] == "file"}
        return {"paths": self.paths, "files": {k: v.hex() for k, v in self.files.items() if k in used}}

    def apply(self, step):
        kind, path, paths = step["do"], step.get("path"), self.paths
        if kind == "write":
            if path not in paths:
                paths[path] = ("file", self.next)
                self.files[self.next] = b""
                self.next += 1
                if step.get("half"):
                    return
            number = paths[path][1]
            data = bytearray(self.files[number])
            length = step.get("cut", step["len"])
            end = step["at"] + length
            if len(data) < end:
                data.extend(bytes(end - len(data)))
            data[step["at"]:end] = content(step["seed"], step["len"])[:length]
            self.set_bytes(number, data)
        elif kind == "truncate":
            number = paths[path][1]
            data = self.files[number][:step["len"]]
            self.set_bytes(number, data + bytes(step["len"] - len(data)))
        elif kind == "rename":
            to = step["to"]
            if path == to or (to in paths and paths[path] == paths[to]):
                return
            paths[to] = paths.pop(path)
            if paths[to][0] == "dir":
                for below in [p for p in paths if p.startswith(path + "/")]:
                    paths[to + below[len(path):]] = paths.pop(below)
        elif kind == "link":
            paths[step["to"]] = paths[path]
        elif kind == "symlink":
            paths[path] = ("link", step["target"])
        elif kind in ("unlink", "rmdir"):
            del paths[path]
        elif kind == "mkdir":
            paths[path] = ("dir", self.next)
            self.next += 1

    def digest(self):
        lines = []
        for path, (kind, what) in self.paths.items():
            value = self.hash(what) if kind == "file" else what if kind == "link" else 0
            lines.append(f"{path} {kind} {value}")
        return sorted(lines)


def dump(root):
    lines = []
    for folder, dirs, files in os.walk(root):
        base = os.path.relpath(folder, root)
        base = "" if base == "." else base + "/"
        for name in dirs + files:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                lines.append(f"{base}{name} link {os.readlink(path)}")
            elif os.path.isdir(path):
                lines.append(f"{base}{name} dir 0")
            else:
                with open(path, "rb") as file:
                    lines.append(f"{base}{name} file {hashlib.sha256(file.read()).hexdigest()}")
    return sorted(lines)


def choose_rename(rng, paths, files, fresh, folders):
    """A rename or an exchange of places: files over files, into other folders, and whole folders."""
    if len(folders) > 1 and rng.random() < 0.3:
        path = rng.choice(folders[1:])[:-1]
        targets = [d + n for d in folders for n in FOLDERS
                   if d + n not in paths and not (d + n + "/").startswith(path + "/")]
        if targets:
            return {"do": "rename", "path": path, "to": rng.choice(targets)}
    return {"do": "rename", "path": rng.choice(files), "to": rng.choice(fresh + files)}


def choose_folder(rng, paths, folders):
    """A new folder, or the end of an empty one; None when there is neither."""
    empty = [d[:-1] for d in folders[1:] if not any(p.startswith(d) for p in paths)]
    fresh = [d + n for d in folders for n in FOLDERS if d + n not in paths and d.count("/") < 3]
    if empty and (len(folders) > FOLDERS_MAX or rng.random() < 0.3):
        return {"do": "rmdir", "path": rng.choice(empty)}
    return {"do": "mkdir", "path": rng.choice(fresh)} if fresh and len(folders) <= FOLDERS_MAX else None


# Shares of: folders, writes, truncations, renames, links, symbolic links, unlinks, syncs of a folder, syncs.
LOADS = {
    "mixed": [4, 44, 8, 10, 6, 3, 10, 2, 13],
    "syncs": [3, 35, 5, 5, 3, 2, 5, 7, 35],
    "renames": [8, 15, 3, 50, 6, 2, 6, 5, 5],
}


def choose(rng, model, shares):
    """A step that should succeed on the model's state."""
    paths = model.paths
    files = [p for p, v in paths.items() if v[0] == "file"]
    folders = [""] + [p + "/" for p, v in paths.items() if v[0] == "dir"]
    fresh = [d + n for d in folders for n in rng.sample(NAMES, 3) if d + n not in paths]
    links = [p for p, v in paths.items() if v[0] == "link"]
    if len(links) > 20 or (not files and not fresh):
        return {"do": "unlink", "path": rng.choice(links)}
    kind = rng.choices(range(len(shares)), shares)[0]
    step = choose_folder(rng, paths, folders) if kind == 0 else None
    if step:
        return step
    if kind == 7:
        return {"do": "fsyncdir", "path": rng.choice(folders)[:-1]}
    if kind <= 1 or not files:
        path = rng.choice(files) if files and rng.random() < 0.6 else (fresh or files)[0]
        length = rng.choice([10, 700, 4096, 5000, 40000, 40000, 100000, 200000, 200000, 300000,
                             rng.choice([700000, 1 << 20, WRITE_MAX])])
        return {"do": "write", "path": path, "at": rng.randrange(60000), "len": length, "seed": rng.randrange(1 << 30)}
    path = rng.choice(files)
    if kind == 2:
        return {"do": "truncate", "path": path, "len": rng.randrange(100000)}
    if kind == 3:
        return choose_rename(rng, paths, files, fresh, folders)
    if kind == 4 and fresh:
        return {"do": "link", "path": path, "to": rng.choice(fresh)}
    if kind == 5 and fresh:
        return {"do": "symlink", "path": rng.choice(fresh), "target": "t" * rng.randrange(1, 200)}
    return {"do": "unlink" if kind == 6 or len(files) > 60 else "fsync", "path": path}


def load(root, history, seed, state, shares):
    rng = random.Random(seed)
    model = Model(state)
    # From inside, so that nothing lands in the folder below when the mount goes.
    history = os.path.abspath(history)
    os.chdir(root)
    root = ""
    with open(history, "w", buffering=1, encoding="ascii") as log:
        for _ in range(100000):
            step = choose(rng, model, shares)
            log.write(json.dumps(step) + "\n")
            try:
                perform(root, step)
            except OSError as error:
                print(f"stopped by: {error}")
                return
            log.write("done\n")
            model.apply(step)


def read_history(history):
    """The steps, and which of them (1-based) are known to have ended."""
    steps, ended = [], set()
    with open(history, encoding="ascii") as log:
        for line in log:
            if line.startswith("{") and line.endswith("}\n"):
                steps.append(json.loads(line))
            elif line == "done\n":
                ended.add(len(steps))
    return steps, ended


def changed_by(model, step):
    """The inodes that a step changes: of the file, and of the folders whose entries it changes. Before the step."""
    paths, kind = model.paths, step["do"]
    inodes = set()
    if kind == "rename" and paths[step["path"]] == paths.get(step["to"]):
        return inodes  # two names of one file, or one name: the kernel does nothing
    for path in (step.get("path"), step.get("to")):
        if path is None or kind in ("fsync", "fsyncdir"):
            continue
        if path in paths and paths[path][0] != "link":
            inodes.add(paths[path][1])
        is_entry_kept = kind == "truncate" or (kind == "write" and path in paths) or \
            (kind == "link" and path == step["path"])
        if not is_entry_kept:
            folder = parent(path)
            inodes.add(paths[folder][1] if folder else 0)
    return inodes


def synced_through(steps, ended, state):
    """The last step that a sync has made durable: the newest change of what was synced, and all before it. (A sync of
    what did not change since promises nothing about others.)"""
    model, changed, synced = Model(state), {}, 0
    for number, step in enumerate(steps, 1):
        if number not in ended:
            break
        if step["do"] in ("fsync", "fsyncdir"):
            inode = model.paths[step["path"]][1] if step["path"] else 0
            synced = max(synced, changed.get(inode, 0))
        inodes = changed_by(model, step)
        model.apply(step)
        if step["do"] in ("write", "mkdir"):
            inodes.add(model.paths[step["path"]][1])
        changed.update(dict.fromkeys(inodes, number))
    return synced


def parts_of(model, step):
    """The states between the requests that the kernel makes of a write."""
    if step["do"] != "write":
        return
    if step["path"] not in model.paths:
        half = model.copy()
        half.apply(dict(step, half=True))
        yield half
    for length in cuts(step):
        half = model.copy()
        half.apply(dict(step, cut=length))
        yield half


def check(root, history, state):
    steps, ended = read_history(history)
    synced = synced_through(steps, ended, state)
    found = dump(root)
    model = Model(state)
    match, nearest, fewest = None, None, None
    for count in range(len(steps) + 1):
        if count > 0:
            step = steps[count - 1]
            for half in parts_of(model, step) if count > synced else ():
                if half.digest() == found:
                    match = half
            model.apply(step)
        if count >= synced and model.digest() == found:
            match = model.copy()
        if count >= synced:
            wrong = set(model.digest()) ^ set(found)
            if fewest is None or len(wrong) < fewest:
                nearest, fewest = (count, sorted(wrong)), len(wrong)
    if match is None:
        print(f"no prefix of {len(steps)} steps (synced {synced}) fits; nearest {nearest[0]}: "
              f"{nearest[1][:6]}", file=sys.stderr)
        return 1
    json.dump(match.state(), sys.stdout)
    return 0


def main():
    state = None
    if len(sys.argv) > 5 and os.path.exists(sys.argv[5]):
        with open(sys.argv[5], encoding="ascii") as file:
            state = json.load(file)
    if sys.argv[1] == "load":
        load(sys.argv[2], sys.argv[3], int(sys.argv[4]), state, LOADS[(sys.argv[6:] or ["mixed"])[0]])
        return 0
    return check(sys.argv[2], sys.argv[3], state)


sys.exit(main())
