#!/usr/bin/env python3
"""reader.py [--replies] DIR KEYFILE: an independent reader of a varve volume, written from docs/format.md alone.

Replays manifest, tables, log and journal of the file:// store in DIR, and prints one line for each
file of the tree, sorted by path: type, mode, size, sha256 of the contents (of a symlink's target; "-"
for others), path; with --replies, how many reply records there are. Changes nothing. Needs python3-cryptography, python3-lz4, python3-zstandard;
python3-xxhash if the cipher is "none" (else its checksums are not verified).
"""
import hashlib
import os
import stat
import struct
import sys

import lz4.block
import zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

try:
    import xxhash
except ImportError:
    xxhash = None

HEADER = 96
EXTENT = 32768
BLOCK = 4096
REPLIES = 2048
KINDS = {"volume": 1, "manifest": 2, "keys": 3, "log": 4, "fence": 5, "data": 6, "sst": 7, "journal": 8}
DELETE, PUT, MERGE = 0, 1, 2


def need(condition, what):
    if not condition:
        raise ValueError(what)


# ---- bytes ----

def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ 0x82F63B78 if byte & 1 else byte >> 1
        table.append(byte)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, count):
        need(self.at + count <= len(self.data), "cut short")
        self.at += count
        return self.data[self.at - count:self.at]

    def unpack(self, form):
        return struct.unpack("<" + form, self.bytes(struct.calcsize("<" + form)))

    def u8(self):
        return self.bytes(1)[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                need(byte != 0 or shift == 7, "a varint that is not minimal")
                return value
            need(shift < 70, "a varint that is too long")

    def varints(self, count):
        return [self.varint() for _ in range(count)]

    def svarint(self):
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def string(self):
        return self.bytes(self.varint())

    def rest(self):
        return self.bytes(len(self.data) - self.at)

    def is_end(self):
        return self.at == len(self.data)

    def end(self):
        need(self.is_end(), "bytes are left over")


# ---- sealing ----

def hchacha20(key, nonce):
    """The subkey of XChaCha20 (draft-irtf-cfrg-xchacha)."""
    state = list(struct.unpack("<4I", b"expand 32-byte k")) + list(struct.unpack("<8I4I", key + nonce))

    def quarter(a, b, c, d):
        for first, second, third, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[first] = state[first] + state[second] & 0xFFFFFFFF
            value = state[third] ^ state[first]
            state[third] = (value << bits | value >> 32 - bits) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *state[:4], *state[12:])


def xchacha_open(key, nonce, sealed, aad):
    subkey = hchacha20(key, nonce[:16])
    return ChaCha20Poly1305(subkey).decrypt(bytes(4) + nonce[16:], sealed, aad)


def hkdf(secret, salt, info):
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)


class Header:
    def __init__(self, data, kind):
        need(len(data) >= HEADER and data[:8] == b"varve\0\r\n", "no object header")
        self.raw = bytes(data[:HEADER])
        (self.version, self.kind, self.cipher, self.generation, self.volume, self.attempt, self.salt,
         self.number, reserved, crc) = struct.unpack("<HBBI16s16s32sQII", self.raw[8:])
        need(crc == crc32c(self.raw[:92]) and reserved == 0, "a damaged object header")
        need(self.version == 1, "a format version that this reader does not know")
        need(kind is None or self.kind in kind, "an object of another kind")


class Sealer:
    """Opens the frames of one object."""

    def __init__(self, keys, header, name):
        self.cipher = header.cipher
        self.key = hkdf(keys[header.generation], header.salt,
                        b"varve" + header.raw[8:92] + name.encode())

    def open(self, frame, index, origin):
        compression, plain_len = struct.unpack("<BI", frame[:5])
        aad = frame[:5] + struct.pack("<IQQ", index, *origin)
        sealed = frame[5:]
        if self.cipher == 1:
            text = AESGCM(self.key).decrypt(struct.pack("<I8x", index), sealed, aad)
        elif self.cipher == 2:
            text = xchacha_open(self.key, struct.pack("<I20x", index), sealed, aad)
        else:
            text = sealed[:-16]
            if xxhash:
                seed = xxhash.xxh3_64_intdigest(aad, int.from_bytes(self.key[:8], "little"))
                need(xxhash.xxh3_128_digest(text, seed) == sealed[-16:], "a wrong checksum")
        if compression == 1:
            text = lz4.block.decompress(text, uncompressed_size=plain_len)
        elif compression == 2:
            text = zstandard.ZstdDecompressor().decompress(text, max_output_size=plain_len)
        need(len(text) == plain_len and compression <= 2, "a frame of the wrong length")
        return text


def open_slots(data, secret):
    """The master keys by generation, with a key file's 32 bytes."""
    header = Header(data, [KINDS["keys"]])
    need(struct.unpack("<I", data[-4:])[0] == crc32c(data[:-4]), "damaged key slots")
    cursor = Cursor(data[HEADER + 4:-4])
    for _ in range(data[HEADER]):
        head = cursor.bytes(52)
        kind, derivation, ring_len, _, _, salt, nonce = struct.unpack("<BBHII16s24s", head)
        wrapped = cursor.bytes(ring_len + 16)
        if (kind, derivation) != (2, 2):
            continue
        try:
            ring = xchacha_open(hkdf(secret, salt, b"varve key file"), nonce, wrapped,
                                head + header.volume)
        except Exception:  # InvalidTag: another slot's key
            continue
        keys = {}
        ring = Cursor(ring)
        need(ring.bytes(16) == header.volume, "another volume's keys")
        for _ in range(ring.unpack("I")[0]):
            generation, = ring.unpack("I")
            keys[generation] = ring.bytes(32)
        ring.end()
        return keys
    raise ValueError("the key file opens no slot")


# ---- records ----

def sums(value):
    cursor = Cursor(value)
    result = (cursor.svarint(), cursor.svarint())
    cursor.end()
    return result


def lay_over(records, kind, key, value):
    """A record that is newer than all in `records`."""
    if kind == DELETE:
        records.pop(key, None)
    elif kind == PUT:
        records[key] = value
    else:
        old = records.get(key, (0, 0))
        old = sums(old) if isinstance(old, bytes) else old
        add = sums(value)
        records[key] = (old[0] + add[0], old[1] + add[1])


def changes(data):
    cursor = Cursor(data)
    while not cursor.is_end():
        kind, key = cursor.u8(), cursor.string()
        need(kind <= MERGE, "a change of an unknown kind")
        yield kind, key, b"" if kind == DELETE else cursor.string()


def block_records(data):
    count, = struct.unpack("<I", data[-4:])
    cursor = Cursor(data[:len(data) - 4 - 4 * count])
    key = b""
    while not cursor.is_end():
        shared, rest, tail = cursor.varints(3)
        key = key[:shared] + cursor.bytes(rest)
        yield tail & 3, key, cursor.bytes(tail >> 2)


class Volume:
    def __init__(self, path, secret):
        self.path = path
        numbers = sorted(int(name) for name in os.listdir(os.path.join(path, "manifest")))
        name = "manifest/%020d" % numbers[-1]
        data = self.get(name)
        header = Header(data, [KINDS["manifest"]])
        self.keys = open_slots(self.get("keys/%d" % header.number), secret)
        self.sealers = {}
        self.read_manifest(Cursor(Sealer(self.keys, header, name)
                                  .open(data[HEADER:], 0, (5, numbers[-1]))), numbers[-1])
        self.check_volume_object()
        self.records = {}
        self.layers = {}
        # Oldest first: the deepest level, ..., level 0 by order, the log.
        for table in sorted(self.tables, key=lambda t: (-t["level"], t["order"])):
            self.read_table(table)
        self.read_log()
        self.read_journal()

    def get(self, name):
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read()

    def read_manifest(self, cursor, number):
        need(cursor.varint() == number, "another manifest")
        cursor.varint()  # keys
        self.epoch = cursor.varint()
        cursor.bytes(16)
        self.journal_id = cursor.bytes(16)
        self.last_commit, self.next_inode, self.next_data_id = cursor.varints(3)
        cursor.bytes(2)
        cursor.svarint()
        self.epochs = [cursor.varints(2) for _ in range(cursor.varint())]
        self.tables = []
        for _ in range(cursor.varint()):
            table = dict(zip(("epoch", "counter"), cursor.varints(2)))
            table["level"] = cursor.u8()
            table.update(zip(("bytes", "entries", "order"), cursor.varints(3)))
            table["least"], table["greatest"] = cursor.string(), cursor.string()
            self.tables.append(table)
        for _ in range(cursor.varint()):
            cursor.varint(), cursor.bytes(16), cursor.string()
        for _ in range(cursor.varint()):
            cursor.bytes(16)
        cursor.end()

    def check_volume_object(self):
        data = self.get("varve.volume")
        header = Header(data, [KINDS["volume"]])
        cursor = Cursor(Sealer(self.keys, header, "varve.volume").open(data[HEADER:], 0, (6, 0)))
        cursor.svarint(), cursor.varint()
        cursor.end()

    # ---- tables and log ----

    def read_table(self, table):
        name = "sst/%02x/%016x-%016x" % (table["counter"] & 0xFF, table["epoch"], table["counter"])
        data = self.get(name)
        header = Header(data, [KINDS["sst"]])
        need(len(data) == table["bytes"], "a table of another length")
        magic, count, _, _, index_at, index_len, _, crc = struct.unpack("<4sIQIQIII", data[-40:])
        need(magic == b"vvst" and crc == crc32c(data[-40:-4]), "a damaged table")
        need(data[-40 - HEADER:-40] == data[:HEADER], "a table with two headers")
        sealer = Sealer(self.keys, header, name)
        index = sealer.open(data[index_at:index_at + index_len], count + 1, (4, 0))
        entries = 0
        last = None
        for i, (_, separator, place) in enumerate(block_records(index)):
            offset, length = Cursor(place).varints(2)
            block = sealer.open(data[offset:offset + length], i, (3, i))
            for kind, key, value in block_records(block):
                need(last is None or last < key <= separator, "keys that do not ascend")
                need(table["least"] <= key <= table["greatest"], "a key outside of its table")
                lay_over(self.records, kind, key, value)
                last = key
                entries += 1
        need(entries == table["entries"] and last == table["greatest"], "records are missing")

    def read_log(self):
        for i, (epoch, seq) in enumerate(self.epochs):
            attempt = bytes(16) if seq == 0 else None
            while True:
                name = "log/%016x/%016x" % (epoch, seq)
                try:
                    data = self.get(name)
                except FileNotFoundError:
                    need(i + 1 == len(self.epochs), "a log that ends without a fence")
                    break
                header = Header(data, [KINDS["log"], KINDS["fence"]])
                if header.kind == KINDS["fence"]:
                    break
                attempt = self.read_batch(data, header, name, attempt)
                seq += 1

    def read_batch(self, data, header, name, attempt):
        magic, count, batch_at, batch_len, _, _, _, crc = struct.unpack("<4sIQIQIII", data[-40:])
        need(magic == b"vvsg" and crc == crc32c(data[-40:-4]), "a damaged segment")
        cursor = Cursor(Sealer(self.keys, header, name)
                        .open(data[batch_at:batch_at + batch_len], count, (1, 0)))
        first, commits = cursor.varints(2)
        before = cursor.bytes(16)
        next_inode, next_data_id = cursor.varints(2)
        need(first == self.last_commit + 1, "a gap in the commits")
        need(attempt is None or before == attempt, "a log object of another history")
        for change in changes(cursor.rest()):
            lay_over(self.records, *change)
        self.last_commit = first + commits - 1
        self.next_inode = max(self.next_inode, next_inode)
        self.next_data_id = max(self.next_data_id, next_data_id)
        return header.attempt

    # ---- journal ----

    def journal_records(self):
        folder = os.path.join(self.path, "journal")
        try:
            with open(os.path.join(folder, "journal.id"), encoding="ascii") as file:
                journal = file.read().strip()
        except FileNotFoundError:
            return
        if bytes.fromhex(journal) != self.journal_id:
            return
        files = []
        for name in os.listdir(folder):
            if name.endswith(".wal"):
                with open(os.path.join(folder, name), "rb") as file:
                    head = self.journal_head(file)
                    if head:
                        files.append((head[0], head[2], name))
        for first, session, name in sorted(files):
            with open(os.path.join(folder, name), "rb") as file:
                expected = first
                while True:
                    head = self.journal_head(file)
                    if not head or head[0] != expected or head[2] != session:
                        break
                    yield journal, head[0], file.read(head[1])
                    file.seek(-(32 + head[1]) % 512, 1)
                    expected += 1

    @staticmethod
    def journal_head(file):
        head = file.read(32)
        if len(head) < 32 or head[:4] != b"vvjr" or \
                struct.unpack("<I", head[4:8])[0] != crc32c(head[8:]):
            return None
        return struct.unpack("<QIQI", head[8:])

    def read_journal(self):
        for journal, commit, sealed in self.journal_records():
            if commit != self.last_commit + 1:
                continue
            try:
                header = Header(sealed, [KINDS["journal"]])
                plain = Sealer(self.keys, header, "journal/%s/%016x" % (journal, commit)).open(
                    sealed[HEADER:], 0, (7, commit))
            except Exception:  # torn: the end
                return
            self.apply_journal(Cursor(plain), commit)
            self.last_commit = commit

    def apply_journal(self, cursor, commit):
        need(cursor.varint() == 1, "an unknown journal record")
        next_inode, next_data_id = cursor.varints(2)
        self.next_inode = max(self.next_inode, next_inode)
        self.next_data_id = max(self.next_data_id, next_data_id)
        for change in changes(cursor.string()):
            lay_over(self.records, *change)
        for _ in range(cursor.varint()):
            data_id, _, extent, start, end = cursor.varints(5)
            kind = cursor.u8()
            aside = cursor.u8() if kind & 4 else 0
            need(kind == kind & 3 or (aside > 0 and kind > 4), "an unknown layer")
            kind &= 3
            what = None
            if kind == 1:
                what = cursor.bytes(end - start)
            elif kind == 2:
                epoch, counter, index, offset, length = cursor.varints(5)
                what = (False, epoch, counter, index, offset, length)
                cursor.varint()
            self.layers.setdefault((data_id, extent), []).append((commit, start, end, what))
        cursor.end()

    # ---- files ----

    def frame(self, place, origin):
        is_log, epoch, counter, index, offset, length = place
        if is_log:
            name = "log/%016x/%016x" % (epoch, counter)
        else:
            name = "data/%02x/%016x-%016x" % (counter & 0xFF, epoch, counter)
        with open(os.path.join(self.path, name), "rb") as file:
            if name not in self.sealers:
                header = Header(file.read(HEADER), [KINDS["log"], KINDS["data"]])
                self.sealers[name] = Sealer(self.keys, header, name)
            file.seek(offset)
            return self.sealers[name].open(file.read(length), index, origin)

    def ranges(self):
        """Tombstones by data id."""
        if not hasattr(self, "tombstones"):
            self.tombstones = {}
            for key, value in self.records.items():
                if key[:1] == b"R":
                    data_id, start, commit = struct.unpack(">QQQ", key[1:])
                    end, _ = Cursor(value).varints(2)
                    self.tombstones.setdefault(data_id, []).append((start, end, commit))
        return self.tombstones

    def extent(self, data_id, extent):
        """32 KiB of a data id, or None for zeros."""
        hidden = max((commit for start, end, commit in self.ranges().get(data_id, [])
                      if start <= extent < end), default=0)
        record = self.records.get(b"E" + struct.pack(">QQ", data_id, extent))
        layers = [layer for layer in self.layers.get((data_id, extent), []) if layer[0] >= hidden]
        if record is None and not layers:
            return None
        result = bytearray(EXTENT)
        if record is not None:
            self.lay_pieces(result, Cursor(record), hidden, (data_id, extent))
        for _, start, end, what in layers:
            if what is None:
                what = bytes(end - start)
            elif isinstance(what, tuple):
                what = self.frame(what, (data_id, extent))
            result[start:end] = what[:end - start]
        return bytes(result)

    def lay_pieces(self, result, cursor, hidden, origin):
        if cursor.varint() < hidden:
            return
        count = cursor.u8()
        if count & 128:
            need(cursor.u8() > 0, "no block in space set aside")
        for _ in range(count & 127):
            flags = cursor.u8()
            need(flags <= 3, "a piece of another volume")
            start, length = cursor.varints(2)
            plain = bytes(length)
            if flags & 1:
                plain = self.frame((bool(flags & 2), *cursor.varints(5)), origin)
            need(len(plain) >= length, "a frame that is too short")
            result[start:start + length] = plain[:length]
        cursor.end()

    def contents(self, inode):
        """The bytes of a regular file, a piece at a time."""
        left = inode["size"]
        if not inode["parts"]:
            yield inode["inline"][:left]
            left -= min(left, len(inode["inline"]))
        for data_id, start, length in inode["parts"]:
            length = min(length, left)
            left -= length
            while length > 0:
                index, skip = divmod(start, EXTENT)
                count = min(EXTENT - skip, length)
                plain = self.extent(data_id, index)
                yield plain[skip:skip + count] if plain else bytes(count)
                start += count
                length -= count
        while left > 0:
            yield bytes(min(left, 1 << 20))
            left -= min(left, 1 << 20)

    def inode(self, number):
        cursor = Cursor(self.records[b"I" + struct.pack(">Q", number)])
        version, bits, parts, mode, nlink, uid, gid, _ = cursor.unpack("BBHIIIII")
        need(version == (2 if bits & 8 else 1), "an unknown inode record")
        size, _ = cursor.unpack("QQ")
        times = cursor.unpack("qqqqIIII")
        _, _, _, _, _, inline_len, _ = cursor.unpack("QQQIIHH")
        inode = {"mode": mode, "nlink": nlink, "uid": uid, "gid": gid, "size": size,
                 "mtime": (times[1], times[5]),
                 "parts": [cursor.unpack("QQQ") for _ in range(parts)],
                 "inline": cursor.bytes(inline_len)}
        inode["aside"] = cursor.unpack("Q")[0] if bits & 8 else 0
        cursor.end()
        return inode

    def aside(self, number):
        """The stretches of blocks of a file that are set aside."""
        stretches, at = [], 0
        cursor = Cursor(self.records.get(b"P" + struct.pack(">Q", number), b"\1"))
        need(cursor.u8() == 1, "an unknown record of what is set aside")
        while not cursor.is_end():
            gap, count = cursor.varints(2)
            need(count > 0 and (gap > 0 or not stretches), "a stretch that is set aside")
            stretches.append((at + gap, at + gap + count))
            at += gap + count
        return stretches

    @staticmethod
    def blocks(record):
        """Of an extent record: its commit, the blocks with frames, and those of them in space set aside, as bits."""
        cursor = Cursor(record)
        commit, count, blocks = cursor.varint(), cursor.u8(), 0
        aside = cursor.u8() if count & 128 else 0
        for _ in range(count & 127):
            flags = cursor.u8()
            start, length = cursor.varints(2)
            if flags & 1:
                cursor.varints(5)
                blocks |= (1 << -(-(start + length) // BLOCK)) - (1 << start // BLOCK)
            else:
                first, end = -(-start // BLOCK), (start + length) // BLOCK
                blocks &= ~((1 << end) - (1 << first)) if first < end else -1
        need(aside & ~blocks == 0, "a block without a frame lies in space set aside")
        return commit, blocks, aside

    def check_blocks(self):
        """What is counted for st_blocks: sums are those of the extent records, and what these say lies in space set
        aside does. Returns how many blocks are set aside."""
        counted, owners, total = {}, {}, 0
        for key, value in self.records.items():
            if key[:1] == b"E":
                data_id, _ = struct.unpack(">QQ", key[1:])
                _, blocks, aside = self.blocks(value)
                counted[data_id] = counted.get(data_id, 0) + BLOCK * bin(blocks & ~aside).count("1")
            elif key[:1] == b"I" and len(key) == 9:
                number, = struct.unpack(">Q", key[1:])
                inode = self.inode(number)
                stretches = self.aside(number)
                need(sum(end - start for start, end in stretches) == inode["aside"], "blocks set aside")
                total += inode["aside"]
                at = 0
                for data_id, start, length in inode["parts"]:
                    owners.setdefault(data_id, []).append((number, at, start, length, stretches))
                    at += length
        for data_id, parts in owners.items():
            have = self.records.get(b"I" + struct.pack(">QQ", parts[0][0], data_id), (0, 0))
            have = sums(have) if isinstance(have, bytes) else have
            need(have == (counted.get(data_id, 0), 0), "the sum of a data id")
        for key, value in self.records.items():
            commit, _, aside = self.blocks(value) if key[:1] == b"E" else (0, 0, 0)
            if aside:
                self.check_aside(*struct.unpack(">QQ", key[1:]), commit, aside, owners)
        return total

    def check_aside(self, data_id, extent, commit, aside, owners):
        ranges = self.ranges().get(data_id, [])
        if (data_id, extent) in self.layers or any(a <= extent < b and commit < other for a, b, other in ranges):
            return
        for block in range(EXTENT // BLOCK):
            place = extent * EXTENT + block * BLOCK
            for _, at, start, length, stretches in owners.get(data_id, []):
                if aside >> block & 1 and start <= place < start + length:
                    place = (at + place - start) // BLOCK
                    need(any(a <= place < b for a, b in stretches), "a block that is not in what is set aside")
                    break

    def check_replies(self):
        """How many requests are noted as done."""
        replies = [(key, value) for key, value in self.records.items() if key[:1] == b"A"]
        for key, value in replies:
            slot, = struct.unpack(">H", key[1:])
            version, protocol, procedure, zero, _, sequence, inode = struct.unpack("<BBBB20sQQ", value)
            need((version, protocol, zero) == (1, 1, 0) and procedure in range(2, 16), "an unknown reply record")
            need(sequence % REPLIES == slot < REPLIES, "a reply record in another's slot")
            need(inode < self.next_inode, "a reply about an inode that never was")
        return len(replies)

    def walk(self):
        """(path, inode) of the whole tree."""
        entries = {}
        for key, value in self.records.items():
            if key[:1] == b"D":
                directory, = struct.unpack(">Q", key[1:9])
                number, _, kind = struct.unpack("<QQB", value)
                entries.setdefault(directory, []).append((key[9:], number, kind))
        stack = [(b"", 1)]
        while stack:
            path, number = stack.pop()
            inode = self.inode(number)
            yield path or b".", inode
            for name, child, kind in entries.get(number, []):
                need(self.inode(child)["mode"] >> 12 == kind, "an entry of another type")
                stack.append((path + b"/" + name if path else name, child))


TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
         stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}


def line(path, mode, size, digest):
    shown = path.decode("utf-8", "backslashreplace").replace("\n", "\\n")
    kind = TYPES[stat.S_IFMT(mode)]
    return "%s %04o %d %s %s" % (kind, stat.S_IMODE(mode), size, digest, shown)


def list_volume(path, key_path):
    with open(key_path, encoding="ascii") as file:
        secret = bytes.fromhex(file.read().strip())
    volume = Volume(path, secret)
    volume.check_replies()
    volume.check_blocks()
    lines = []
    for name, inode in volume.walk():
        digest, size = "-", 0
        if stat.S_ISREG(inode["mode"]):
            total = hashlib.sha256()
            for part in volume.contents(inode):
                total.update(part)
            digest, size = total.hexdigest(), inode["size"]
        elif stat.S_ISLNK(inode["mode"]):
            digest, size = hashlib.sha256(inode["inline"]).hexdigest(), inode["size"]
        lines.append((name, line(name, inode["mode"], size, digest)))
    return [text for _, text in sorted(lines)]


def list_directory(path):
    """The same of a directory of this machine: what to compare with."""
    lines = []
    top = os.fsencode(path)
    for folder, dirs, files in os.walk(top):
        for name in [b""] * (folder == top) + dirs + files:
            full = os.path.join(folder, name) if name else folder
            info = os.lstat(full)
            digest, size = "-", 0
            if stat.S_ISREG(info.st_mode):
                with open(full, "rb") as file:
                    digest, size = hashlib.sha256(file.read()).hexdigest(), info.st_size
            elif stat.S_ISLNK(info.st_mode):
                digest, size = hashlib.sha256(os.readlink(full)).hexdigest(), info.st_size
            shown = os.path.relpath(full, top)
            lines.append((shown, line(shown, info.st_mode, size, digest)))
    return [text for _, text in sorted(lines)]


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--directory":
        lines = list_directory(sys.argv[2])
    elif len(sys.argv) == 4 and sys.argv[1] == "--replies":
        with open(sys.argv[3], encoding="ascii") as file:
            volume = Volume(sys.argv[2], bytes.fromhex(file.read().strip()))
        lines = [str(volume.check_replies())]
    elif len(sys.argv) == 3:
        lines = list_volume(sys.argv[1], sys.argv[2])
    else:
        sys.exit(__doc__)
    for text in lines:
        print(text)


if __name__ == "__main__":
    main()
