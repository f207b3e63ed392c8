"""What the benchmarks of models share: processes that are timed in turn, medians, the table."""

import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
BASE = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
CACHE = Path(os.environ.get("VITA_CACHE") or Path(BASE) / "vita-stream")
PEERS = CACHE / "bench"


class Missing(Exception):
    """A peer that could not be run, and why."""


class Timed:
    """A process that says in one line of JSON that it is ready, then answers each line with seconds."""

    def __init__(self, name, command, env=None):
        self.name, self.times = name, {}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        try:
            self.process = subprocess.Popen(command, cwd=TOP, env=os.environ | (env or {}), text=True, **pipes)
        except OSError as error:
            raise Missing(f"{name}: {error}") from error
        self.about = json.loads(self.answer())

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            reason = (self.process.stderr.read().strip().splitlines() or ["it ended"])[-1]
            raise Missing(f"{self.name}: {reason}")
        return line

    def run(self, what="run", keep=True):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        seconds = float(self.answer())
        if keep:
            self.times.setdefault(what, []).append(seconds)
        return seconds

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def setup(parts="scripts/bench-parts.tsv"):
    """Installs the peers; says what failed instead of failing, so that the others are still compared."""
    done = subprocess.run(["scripts/setup", parts], cwd=TOP, text=True, capture_output=True)
    return None if done.returncode == 0 else done.stderr.strip() or "scripts/setup failed"


def build(*examples):
    flags = [flag for name in examples for flag in ("--example", name)]
    subprocess.run(["cargo", "build", "--quiet", "--workspace", "--release", *flags], cwd=TOP, check=True)
    return [str(TOP / "target/release/examples" / name) for name in examples]


def start(name, command, missing, env=None):
    """The process, or None with the reason added to `missing`."""
    try:
        return Timed(name, command, env)
    except Missing as reason:
        missing.append(str(reason))
        print(f"missing: {reason}", file=sys.stderr)
        return None


def peak(program):
    """GFLOP/s and GB/s of one thread, measured now."""
    return json.loads(subprocess.run([program], check=True, text=True, capture_output=True).stdout)


def spread(times):
    low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else (times * 3)
    return {"median": middle, "q1": low, "q3": high, "best": min(times), "runs": len(times)}


def cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def machine():
    rustc = subprocess.run(["rustc", "--version"], text=True, capture_output=True).stdout.strip()
    return {"cpu": cpu(), "cores": os.cpu_count(), "rustc": rustc, "load_before": os.getloadavg()[0]}


def write(name, report):
    into = TOP / "target/bench" / f"{name}.json"
    into.parent.mkdir(parents=True, exist_ok=True)
    into.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {into.relative_to(TOP)}")
