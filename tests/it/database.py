"""database.py DIR LOG [SOCKET_DIR]: commit rows until the database is gone, and note each committed id in LOG (a local file; -
for the output).

A SQLite database DIR/db.sqlite in WAL mode with synchronous=FULL; with SOCKET_DIR, `psql` on a PostgreSQL server there. Each
transaction writes a row and changes another, so that a torn one would show. `database.py check` prints what is wrong.
"""
import os
import sqlite3
import subprocess
import sys

ROWS_MAX = 200000
TABLES = ["create table if not exists rows (id integer primary key, body text not null)",
          "create table if not exists total (one integer primary key, count integer not null, last integer not null)",
          "insert into total values (1, 0, 0) on conflict do nothing"]


def body(number):
    return f"row {number} " + "x" * (number * 37 % 3000)


def open_sqlite(folder):
    connection = sqlite3.connect(os.path.join(folder, "db.sqlite"), isolation_level=None, timeout=20)
    assert connection.execute("pragma journal_mode = wal").fetchone()[0] == "wal"
    connection.execute("pragma synchronous = full")
    return connection


def load_sqlite(folder, log):
    connection = open_sqlite(folder)
    for statement in TABLES:
        connection.execute(statement)
    start = connection.execute("select last from total").fetchone()[0]
    for number in range(start + 1, start + ROWS_MAX):
        connection.execute("begin immediate")
        connection.execute("insert into rows values (?, ?)", (number, body(number)))
        connection.execute("update total set count = count + 1, last = ?", (number,))
        connection.execute("commit")
        log.write(f"{number}\n")


def psql(sockets, **options):
    return subprocess.Popen(["psql", "-h", sockets, "-U", "postgres", "-d", "postgres", "-qAtX", "-v", "ON_ERROR_STOP=1"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, **options)


def load_postgres(sockets, log):
    client = psql(sockets)
    for statement in TABLES:
        client.stdin.write(statement + ";\n")
    client.stdin.write("select last from total;\n")
    start = int(client.stdout.readline())
    for number in range(start + 1, start + ROWS_MAX):
        client.stdin.write(f"begin; insert into rows values ({number}, '{body(number)}'); "
                           f"update total set count = count + 1, last = {number}; commit; \\echo {number}\n")
        if client.stdout.readline() != f"{number}\n":
            break
        log.write(f"{number}\n")


def look(rows, total, committed):
    """Every committed row is there as it was written, none is missing between, and the total agrees."""
    last = max(rows, default=0)
    assert sorted(rows) == list(range(1, last + 1)), "rows are missing"
    assert all(text == body(number) for number, text in rows.items()), "a row is not as it was written"
    assert total == (last, last), f"the total is {total}, the last row {last}"
    assert last >= committed, f"{committed} was committed, the last row is {last}"
    assert last <= committed + 1, f"only {committed} was committed, the last row is {last}"
    print(f"{committed} committed, {last} found")


def check_sqlite(folder, committed):
    connection = open_sqlite(folder)
    assert connection.execute("pragma integrity_check").fetchone()[0] == "ok", "integrity_check"
    rows = dict(connection.execute("select id, body from rows"))
    look(rows, connection.execute("select count, last from total").fetchone(), committed)
    connection.close()


def check_postgres(sockets, committed):
    client = psql(sockets)
    text, _ = client.communicate("select id, body from rows;\nselect 'total', count, last from total;\n")
    assert client.returncode == 0
    *lines, total = text.splitlines()
    rows = {int(number): text for number, text in (line.split("|", 1) for line in lines)}
    look(rows, tuple(int(n) for n in total.split("|")[1:]), committed)


def main():
    command, folder, log, *sockets = sys.argv[1:]
    if command == "check":
        with open(log, encoding="ascii") as file:
            numbers = [int(line) for line in file.read().splitlines()]
        committed = max(numbers, default=0)
        return check_postgres(sockets[0], committed) if sockets else check_sqlite(folder, committed)
    with open(1 if log == "-" else log, "a", buffering=1, encoding="ascii") as file:
        try:
            load_postgres(sockets[0], file) if sockets else load_sqlite(folder, file)
        except (sqlite3.Error, OSError) as error:
            print(f"stopped by: {error}", file=sys.stderr)
    return 0


sys.exit(main())
