"""A mixed load on a mounted volume, its history, and the question whether what is found after a crash is a
prefix of that history which holds everything that was synced.

usage: kill.py load DIR HISTORY SEED    run until killed or the mount dies, noting each step in HISTORY
       kill.py check DIR HISTORY START  compare; START is a JSON state; prints the new state
"""

import hashlib
import json
import os
import random
import sys

NAMES = [f"n{i}" for i in range(40)]
DIRS = ["", "d0/", "d1/", "d0/e/"]


def content(seed, length):
    return random.Random(seed).randbytes(length)


def perform(root, step):
    """Does one step on a real directory."""
    kind, path = step["do"], os.path.join(root, step.get("path", ""))
    if kind == "write":
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, content(step["seed"], step["len"]), step["at"])
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
    elif kind == "fsync":
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class Model:
    """What the tree should be. Files are shared by hard links: path -> number -> bytes."""

    def __init__(self, state=None):
        state = state or {"paths": {}, "files": {}}
        self.paths = {k: tuple(v) for k, v in state["paths"].items()}
        self.files = {int(k): bytearray.fromhex(v) for k, v in state["files"].items()}
        self.next = max(self.files, default=0) + 1

    def state(self):
        used = {v[1] for v in self.paths.values() if v[0] == "file"}
        return {"paths": self.paths, "files": {k: v.hex() for k, v in self.files.items() if k in used}}

    def apply(self, step):
        kind, path, paths = step["do"], step.get("path"), self.paths
        if kind == "write":
            if path not in paths:
                paths[path] = ("file", self.next)
                self.files[self.next] = bytearray()
                self.next += 1
                if step.get("half"):
                    return
            data = self.files[paths[path][1]]
            length = step.get("cut", step["len"])
            end = step["at"] + length
            if len(data) < end:
                data.extend(bytes(end - len(data)))
            data[step["at"]:end] = content(step["seed"], step["len"])[:length]
        elif kind == "truncate":
            data = self.files[paths[path][1]]
            del data[step["len"]:]
            data.extend(bytes(step["len"] - len(data)))
        elif kind == "rename":
            if path == step["to"] or (step["to"] in paths and paths[path] == paths[step["to"]]):
                return
            paths[step["to"]] = paths.pop(path)
        elif kind == "link":
            paths[step["to"]] = paths[path]
        elif kind == "symlink":
            paths[path] = ("link", step["target"])
        elif kind in ("unlink", "rmdir"):
            del paths[path]
        elif kind == "mkdir":
            paths[path] = ("dir", 0)

    def digest(self):
        lines = []
        for path, (kind, what) in self.paths.items():
            value = hashlib.sha256(self.files[what]).hexdigest() if kind == "file" else str(what)
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


def choose(rng, model):
    """A step that should succeed on the model's state."""
    paths = model.paths
    files = [p for p, v in paths.items() if v[0] == "file"]
    folders = [d for d in DIRS if d == "" or d[:-1] in paths]
    fresh = [d + n for d in folders for n in rng.sample(NAMES, 3) if d + n not in paths]
    links = [p for p, v in paths.items() if v[0] == "link"]
    if len(links) > 20 or (not files and not fresh):
        return {"do": "unlink", "path": rng.choice(links)}
    roll = rng.random()
    if roll < 0.04:
        missing = [d[:-1] for d in DIRS[1:] if d[:-1] not in paths and os.path.dirname(d[:-1]) + "/" in
                   [f or "/" for f in folders] + (["/"] if "/" not in d[:-1] else [])]
        if missing:
            return {"do": "mkdir", "path": missing[0]}
    if roll < 0.5 or not files:
        path = rng.choice(files) if files and rng.random() < 0.6 else (fresh or files)[0]
        length = rng.choice([10, 700, 4096, 5000, 40000, 200000])
        return {"do": "write", "path": path, "at": rng.randrange(60000), "len": length,
                "seed": rng.randrange(1 << 30)}
    path = rng.choice(files)
    if roll < 0.58:
        return {"do": "truncate", "path": path, "len": rng.randrange(100000)}
    if roll < 0.68 and fresh:
        return {"do": "rename", "path": path, "to": rng.choice(fresh + files)}
    if roll < 0.74 and fresh:
        return {"do": "link", "path": path, "to": rng.choice(fresh)}
    if roll < 0.77 and fresh:
        return {"do": "symlink", "path": rng.choice(fresh), "target": "t" * rng.randrange(1, 200)}
    if roll < 0.88:
        return {"do": "unlink", "path": path}
    return {"do": "fsync", "path": path}


def load(root, history, seed, state):
    rng = random.Random(seed)
    model = Model(state)
    # From inside, so that nothing lands in the folder below when the mount goes.
    history = os.path.abspath(history)
    os.chdir(root)
    root = ""
    with open(history, "w", buffering=1, encoding="ascii") as log:
        for _ in range(100000):
            step = choose(rng, model)
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


def synced_through(steps, ended, state):
    """The last step that an fsync has made durable: the newest change of the file that was synced, and all
    before it. (An fsync of a file that did not change since promises nothing about others.)"""
    model, changed, synced = Model(state), {}, 0
    for number, step in enumerate(steps, 1):
        if number not in ended:
            break
        if step["do"] == "fsync":
            synced = max(synced, changed.get(model.paths[step["path"]][1], 0))
        model.apply(step)
        if step["do"] in ("write", "truncate"):
            changed[model.paths[step["path"]][1]] = number
    return synced


def partly(root, model, step):
    """The state with as much of a write done as the file found shows; None when it is not there."""
    half = Model(json.loads(json.dumps(model.state())))
    try:
        with open(os.path.join(root, step["path"]), "rb") as file:
            actual = file.read()
    except OSError:
        return None
    full = content(step["seed"], step["len"])
    part = actual[step["at"]:step["at"] + step["len"]]
    done = next((i for i, (a, b) in enumerate(zip(part, full)) if a != b), len(part))
    if done > 0:
        half.apply(dict(step, len=step["len"], cut=done))
    elif step["path"] not in half.paths:
        half.apply(dict(step, half=True))
    return half


def check(root, history, state):
    steps, ended = read_history(history)
    synced = synced_through(steps, ended, state)
    found = dump(root)
    model = Model(state)
    match, nearest, fewest = None, None, None
    for count in range(len(steps) + 1):
        if count > 0:
            step = steps[count - 1]
            if count > synced and step["do"] == "write":
                # The kernel makes several requests of creating and writing: the prefix may end between them.
                half = partly(root, model, step)
                if half is not None and half.digest() == found:
                    match = half
            model.apply(step)
        if count >= synced and model.digest() == found:
            match = Model(json.loads(json.dumps(model.state())))
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
        load(sys.argv[2], sys.argv[3], int(sys.argv[4]), state)
        return 0
    return check(sys.argv[2], sys.argv[3], state)


sys.exit(main())
