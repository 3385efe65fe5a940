"""Were all data segments that a log object refers to durable before it was put? Read from the objects themselves, by the
independent reader, and the times at which the proxy saw them take effect.

usage: s3_order.py VOLUME_DIR KEY_FILE PROXY_LOG DELAY_S COUNT_FILE
DELAY_S: what the proxy adds to each request. COUNT_FILE: gets how many references were checked.

Half of the delay lies before a request's effect and half behind it: a put that is sent when another was answered takes
effect at least one delay after it."""
import json
import os
import sys

import reader


class Watched(reader.Volume):
    def read_batch(self, data, header, name, attempt):
        before = dict(self.records)
        self.records = {}
        result = super().read_batch(data, header, name, attempt)
        segments = set()
        for key, value in self.records.items():
            if key[:1] == b"E" and isinstance(value, bytes):
                segments |= self.segments(value)
        self.references[name] = segments
        for key, value in self.records.items():
            before[key] = value
        self.records = before
        return result

    @staticmethod
    def segments(value):
        cursor = reader.Cursor(value)
        cursor.varint()
        found = set()
        for _ in range(cursor.u8()):
            flags = cursor.u8()
            cursor.varints(2)
            if flags & 1:
                epoch, counter, _, _, _ = cursor.varints(5)
                if not flags & 2:
                    found.add("data/%02x/%016x-%016x" % (counter & 255, epoch, counter))
        return found


def main():
    path, key_path, log, delay, count = sys.argv[1:]
    with open(key_path, encoding="ascii") as file:
        secret = bytes.fromhex(file.read().strip())
    Watched.references = {}
    Watched(path, secret)
    put_at = {}
    with open(log, encoding="ascii") as file:
        for text in file:
            row = json.loads(text)
            if row["kind"] == "PUT" and row["status"] == 200:
                put_at.setdefault("/".join(row["target"].split("/")[4:]), row["at"])
    checked, logs, closest = 0, 0, float("inf")
    for name, segments in Watched.references.items():
        logs += bool(segments)
        for segment in segments:
            if segment not in put_at or name not in put_at:
                continue
            checked += 1
            closest = min(closest, put_at[name] - put_at[segment])
    print("# %d log objects refer to %d data segments; the closest follows after %.1f ms" % (logs, checked, closest * 1000))
    with open(count, "w", encoding="ascii") as file:
        file.write(str(checked))
    sys.exit(0 if closest >= float(delay) * 0.9 else 1)


if __name__ == "__main__":
    main()
