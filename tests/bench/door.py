"""What the benchmarks of the TCP doors (nbd.py, nfs.py, ninep.py) share: servers, runs in a bounded time, the table.

A door's lines are measured on each side in turn, and the side that begins rotates from run to run. Each run starts
empty. The first run is dropped; figures are medians of the runs behind it, of which there are as many as fit into
BENCH_DOOR_MINUTES (5) and BENCH_RUNS (5) allow; the table says how many. A line that would begin after that time is left out
of its run. A target that is not met prints MISSED and its cause."""
import atexit
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SMALL = os.environ.get("BENCH_SIZE") == "small"
RUNS = int(os.environ.get("BENCH_RUNS", "5"))
SECONDS = 60 * float(os.environ.get("BENCH_DOOR_MINUTES", "5"))
BUILD = os.path.abspath(sys.argv[1])
VARVE = os.path.join(BUILD, "varve")
LINE_MAX_S = 300  # one measurement
LARGE = "2G"  # varve's memory where the peer has the machine's page cache: both hold what is read over and over
MEMORY = f"varve has --memory {LARGE}, which holds what is read (the peer has the page cache of the whole machine); varve 256M has the default."


def go_inside(variable, *options):
    """Begin anew in namespaces of our own."""
    if not os.environ.get(variable):
        os.environ[variable] = "1"
        os.execvp("unshare", ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", *options,
                              sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def sh(*command, timeout=LINE_MAX_S):
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(command)}: {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


class Line:
    """`args`: what the door's measure() needs. `ours`: the side that stands beside the peer. `is_needed`: what it makes, others use."""

    def __init__(self, name, unit, args, ours="varve", note="", is_needed=False):
        self.name, self.unit, self.args, self.ours, self.note, self.is_needed = name, unit, args, ours, note, is_needed


class Side:
    """A server. Its door says how to start it: begin() returns the command and what its log says when it is ready."""

    def __init__(self, name, is_varve):
        self.name, self.is_varve = name, is_varve
        self.server = None

    def begin(self):
        raise NotImplementedError

    def ready(self, found):
        """Called with the match of what the log said."""

    def start(self, work):
        self.home = os.path.join(work, self.name.replace(" ", "-"))
        os.makedirs(self.home)
        if self.is_varve:
            sh(VARVE, "init", self.home + "/vol", "--key-file", self.home + "/key", "--quiet")
        command, pattern = self.begin()
        with open(self.home + "/log", "a", encoding="utf-8") as log:
            self.server = subprocess.Popen(command, stdout=log, stderr=log)
        found = None
        for _ in range(600):
            with open(self.home + "/log", encoding="utf-8") as text:
                found = re.search(pattern, text.read()) if pattern else self.looks_ready()
            if found or self.server.poll() is not None:
                break
            time.sleep(0.05)
        if not found:
            sys.exit(f"bench: {self.name} did not start, see {self.home}/log")
        self.ready(found)

    def looks_ready(self):
        """For a server whose log says nothing."""
        return True

    def serve(self, *options):
        return [VARVE, "serve", self.home + "/vol", "--key-file", self.home + "/key", *options]

    def settle(self):
        """Nobody pays for another's work."""
        if self.is_varve:
            sh(VARVE, "flush", self.home + "/vol")
        subprocess.run(["sync"], check=True)

    def cpu(self):
        with open(f"/proc/{self.server.pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def remove(self):
        if self.server and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(60)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait(30)
        if self.server:
            shutil.rmtree(self.home, ignore_errors=True)
        self.server = None


class Bench:
    """`door`: of the names of lines and log lines. `measure(side, args)`: (figure, requests). The last side is the peer."""

    def __init__(self, door, sides, lines, measure, causes):
        self.door, self.sides, self.measure, self.causes = door, sides, measure, causes
        only = set(filter(None, os.environ.get("BENCH_LINES", "").split(",")))
        self.all = lines
        self.chosen = [line for line in lines if not only or line.name in only or door + "-all" in only]
        self.figures, self.cpus = {}, {}
        self.work = tempfile.mkdtemp(prefix=f"bench-{door}-", dir=os.environ.get("BENCH_DIR", BUILD))
        self.load_at_start = os.getloadavg()[0]
        self.begun = time.monotonic()
        self.runs = 0
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: interrupted"))
        atexit.register(self.clean_up)

    def clean_up(self):
        for side in self.sides:
            side.remove()
        shutil.rmtree(self.work, ignore_errors=True)

    def is_over(self, more=0.0):
        return time.monotonic() - self.begun + more > SECONDS

    def measure_line(self, line, order, is_counted):
        for side in order:
            side.settle()
            before = side.cpu()
            figure, count = self.measure(side, line.args)
            if is_counted:
                self.figures.setdefault((line.name, side.name), []).append(figure)
                self.cpus.setdefault((line.name, side.name), []).append((side.cpu() - before) / count * 1e6)

    def measure_run(self, run):
        # If there is no time for another, the only run counts.
        is_counted = run > 0 or RUNS == 0
        for side in self.sides:
            side.start(self.work)
        order = self.sides[run % len(self.sides):] + self.sides[:run % len(self.sides)]
        for line in self.all:
            if (line in self.chosen or line.is_needed) and not self.is_over():
                self.measure_line(line, order, is_counted)
        for side in self.sides:
            side.remove()
        self.runs += is_counted

    def measure_all(self):
        longest = 0.0
        for run in range(RUNS + 1):
            started = time.monotonic()
            if run > 0 and self.is_over(longest):
                break
            self.measure_run(run)
            took = time.monotonic() - started
            longest = max(longest, took)
            print(f"# {self.door}, run {run}{' (dropped)' if run == 0 else ''}: {took:.0f} s", file=sys.stderr, flush=True)

    def median(self, table, line, side):
        return statistics.median(table[line.name, side]) if (line.name, side) in table else None

    def print_line(self, line):
        peer = self.sides[-1].name
        figures = [self.median(self.figures, line, side.name) for side in self.sides]
        if None in figures:
            print(f"{line.name:<16}{line.unit:<10} no time for it")
            return True
        cpus = ", ".join(f"{side.name} {self.median(self.cpus, line, side.name):.1f}" for side in self.sides)
        ours, theirs = self.median(self.figures, line, line.ours), figures[-1]
        ratio, is_met = ours / theirs, ours >= theirs
        fewer = len(self.figures[line.name, peer])
        count = f" ({fewer} runs)" if fewer != self.runs else ""
        print(f"{line.name:<16}{line.unit:<10}" + "".join(f"{text_of(figure):>13}" for figure in figures) + f"   {cpus}")
        print(f"    {line.ours} beside {peer}: x{ratio:.2f}  "
              f"{'met' if is_met else 'MISSED'} (at least 1){count}" +
              ("" if is_met else ": " + self.causes.get(line.name, "not profiled")))
        if line.note:
            print("    " + line.note)
        return is_met

    def print_all(self, title):
        print(title)
        print(f"medians of {self.runs} runs of at most {RUNS}, sides alternating, one more run dropped; "
              f"{time.monotonic() - self.begun:.0f} s of {SECONDS:.0f}; load average {self.load_at_start:.1f} before, "
              f"{os.getloadavg()[0]:.1f} at the end")
        if self.load_at_start > 0.5:
            print("THE MACHINE WAS BUSY before starting: the figures are rough")
        print(f"\n{'line':<16}{'unit':<10}" + "".join(f"{side.name:>13}" for side in self.sides) +
              "   server's processor time of a request, us")
        missed = [line.name for line in self.chosen if not self.print_line(line)]
        print(f"bench, {self.door}: {len(missed)} lines missed{': ' + ', '.join(missed) if missed else ''}\n", flush=True)


def text_of(figure):
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}"


def run(door, title, sides, lines, measure, causes):
    bench = Bench(door, sides, lines, measure, causes)
    bench.measure_all()
    bench.print_all(title)
