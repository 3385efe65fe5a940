#!/usr/bin/env python3
"""sqlite.py DIRECTORY [check]: SQLite in DIRECTORY, with a write-ahead log, which is shared memory (a mapped file) and
byte-range locks among processes. Prints TAP. With "check", only looks at what an earlier run has left."""
import os
import sqlite3
import sys

from ninep_client import Tap

WRITERS = 4
ROUNDS = 60


def connect(path):
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def write(path, who):
    """Move money between accounts: every state that can be seen has the same sum."""
    connection = connect(path)
    for i in range(ROUNDS):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE account SET money = money - ? WHERE id = ?", (i, who))
        connection.execute("UPDATE account SET money = money + ? WHERE id = ?", (i, (who + 1) % WRITERS))
        connection.execute("INSERT INTO log (who, text) VALUES (?, ?)", (who, "x" * (i * 20)))
        connection.execute("COMMIT")
        if connection.execute("SELECT sum(money) FROM account").fetchone()[0] != 1000 * WRITERS:
            os._exit(1)
    connection.close()


def main():
    tap = Tap()
    path = os.path.join(sys.argv[1], "bank.sqlite")
    if len(sys.argv) == 2:
        connection = connect(path)
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        tap.equal(mode, "wal", "a write-ahead log")
        connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER)")
        connection.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, who INTEGER, text TEXT)")
        connection.executemany("INSERT INTO account VALUES (?, 1000)", [(i,) for i in range(WRITERS)])
        connection.close()
        pids = []
        for who in range(WRITERS):
            pid = os.fork()
            if pid == 0:
                write(path, who)
                os._exit(0)
            pids.append(pid)
        tap.equal([os.waitpid(pid, 0)[1] for pid in pids], [0] * WRITERS, "four processes write")
    connection = connect(path)
    tap.equal(connection.execute("PRAGMA integrity_check").fetchone()[0], "ok", "it is whole")
    tap.equal(connection.execute("SELECT sum(money) FROM account").fetchone()[0], 1000 * WRITERS,
              "no money is lost")
    tap.equal(connection.execute("SELECT count(*) FROM log").fetchone()[0], WRITERS * ROUNDS,
              "every transaction is there")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    print(f"1..{tap.count}")
    sys.exit(tap.failed > 0)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main()
