"""What the comparisons share: statistics of pairs, running a child, the record of a run. Standard library only."""

import atexit
import datetime
import hashlib
import json
import math
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RUNS = REPOSITORY / "benches" / "runs"
BRICK = REPOSITORY / "target" / "release" / "brick"


def ratio(pairs, resamples=2000, seed=0x627269636B):
    """Median of candidate / base over pairs, with its 95 % interval (circular block bootstrap, as in src/stats.rs)."""
    ratios = [candidate / base for base, candidate in pairs]
    n = len(ratios)
    block = math.ceil(n ** (1 / 3))
    rng = random.Random(seed)
    medians = []
    for _ in range(resamples):
        sample = []
        while len(sample) < n:
            start = rng.randrange(n)
            sample += [ratios[(start + i) % n] for i in range(min(block, n - len(sample)))]
        medians.append(statistics.median(sample))
    medians.sort()
    at = lambda q: medians[round((resamples - 1) * q)]
    return {"estimate": statistics.median(ratios), "low": at(0.025), "high": at(0.975), "pairs": n}


def interval(values, **options):
    """Median of single values, with its interval."""
    return ratio([(1.0, v) for v in values], **options)


def run(command, **options):
    """Standard output of a child; its standard error is part of the message when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def run_and_watch(command, env=None):
    """Standard output of a child, and the most memory it had at any time, in bytes."""
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
                                 env=env)
        with child.stdout as stdout:
            out = stdout.read()
        # Not Popen.wait: the usage of this very child is wanted. The kernel counts in KiB, and from before the child's exec,
        # so a figure below this script's own few MiB would say nothing.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{command[0]} failed with {child.returncode}:\n{errors.read()[-2000:]}")
    return out, usage.ru_maxrss * 1024


def text_sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def model_file(brick, model):
    """The file of a model that brick knows by this name."""
    return Path(model) if Path(model).is_file() else Path(json.loads(run([brick, "inspect", model, "--json"]))["path"])


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else None


class Watch:
    """What share of the machine others used while a measurement ran: all busy time less that of our own children.

    Threads that wait for each other suffer from a stolen core far more than in proportion, and not all programs equally:
    above the limit a ratio says how two programs bear a crowd, not how fast they are. Processors that the measurement does
    not use may be used by others; memory bandwidth is still shared then.
    """

    def __init__(self, threads):
        cpus = os.cpu_count() or 1
        self.limit = 0.05 + max(0, cpus - threads) / cpus
        self.shares = []

    @staticmethod
    def _busy():
        """Seconds that all processors together were busy, and how many there are."""
        lines = Path("/proc/stat").read_text().splitlines()
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, lines[0].split()[1:9])
        cpus = sum(line.startswith("cpu") for line in lines) - 1
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"), cpus

    @staticmethod
    def _own():
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF))

    def __call__(self, measure):
        try:
            (busy, cpus), own, start = self._busy(), self._own(), time.monotonic()
            result = measure()
            others = self._busy()[0] - busy - (self._own() - own)
            self.shares.append(round(max(0.0, others / ((time.monotonic() - start) * cpus)), 3))
            return result
        except FileNotFoundError:
            return measure()  # no /proc: nothing is known, and nothing is claimed

    def short(self):
        """The median share, marked where it takes the word from the figures."""
        if not self.shares:
            return "unknown"
        middle = statistics.median(self.shares)
        return f"{middle:.0%}" if middle <= self.limit else f"{middle:.0%} INCONCLUSIVE"

    def summary(self):
        if not self.shares:
            return "others' share of the machine unknown"
        middle, most = statistics.median(self.shares), max(self.shares)
        text = f"others used {middle:.0%} of the machine (median; at most {most:.0%})"
        return text if middle <= self.limit else f"INCONCLUSIVE: {text}; expected at most {self.limit:.0%}"


def set_nice(nice):
    """For this process and all children, so for both sides alike. Raising priority needs the right to.

    Where the kernel groups processes by session, niceness counts only within the group, and the group has one of its own.
    """
    if nice == 0:
        return
    try:
        os.nice(nice)
        group = Path("/proc/self/autogroup")
        if group.exists() and Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() == "1":
            before = group.read_text().split()[-1]
            group.write_text(str(nice))
            atexit.register(group.write_text, before)
    except OSError as error:
        raise SystemExit(f"--nice {nice}: {error}") from error


def machine():
    info = {"os": f"{platform.system()} {platform.release()}", "arch": platform.machine(), "cpus": os.cpu_count()}
    try:
        text = Path("/proc/cpuinfo").read_text()
        field = lambda name: re.search(rf"^{name}\s*: (.*)$", text, re.M).group(1)
        info |= {"cpu": field("model name"), "family_model_stepping": "/".join(map(field, ("cpu family", "model", "stepping"))),
                 "hypervisor": " hypervisor" in field("flags")}
        info["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
        info["transparent_huge_pages"] = re.search(
            r"\[(\w+)\]", Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()).group(1)
    except (OSError, AttributeError, ValueError):
        info.setdefault("cpu", platform.processor() or info["arch"])
    return info


def brick_build(brick):
    """Which program: version, commit of the checkout, and the hash of the file, which alone is certain."""
    git = lambda *a: subprocess.run(["git", "-C", REPOSITORY, *a], capture_output=True, text=True).stdout.strip()
    return {"version": run([brick, "--version"]).strip(), "sha256": sha256(brick),
            "checkout": git("rev-parse", "--short", "HEAD"), "checkout_dirty": bool(git("status", "--porcelain", "-uno"))}


def record(experiment, table):
    """Appends an experiment to runs/<date>-<machine>/raw.json and writes SETUP.md anew from all of them."""
    host = machine()
    slug = re.sub(r"\(r\)|\(tm\)|processor|cpu|@.*", "", host["cpu"].lower())
    slug = "-".join(re.findall(r"[a-z0-9]+", slug)) or host["arch"]
    folder = RUNS / f"{datetime.date.today().isoformat()}-{slug}-{host['cpus']}cpu"
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "raw.json"
    data = json.loads(raw.read_text()) if raw.exists() else {"schema": "brick.runs/1", "machine": host, "experiments": []}
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    data["experiments"].append({"finished": now, "table": table} | experiment)
    partial = raw.with_suffix(".partial")
    partial.write_text(json.dumps(data, indent=1) + "\n")
    partial.replace(raw)
    write_setup(folder)
    return folder


def write_setup(folder):
    data = json.loads((folder / "raw.json").read_text())
    overhead = [json.loads(path.read_text()) for path in sorted(folder.glob("overhead-*.json"))]
    (folder / "SETUP.md").write_text(setup(data, overhead))


def setup(data, overhead):
    lines = ["# Set-up and results", "", "Written from `raw.json` by the scripts in `benches/peers`. Brackets are 95 % intervals.", "", "## Machine", ""]
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in data["machine"].items()]
    for e in data["experiments"]:
        lines += ["", f"## {e['title']}", "", f"    {e['command']}", ""]
        lines.append(f"- finished: {e['finished']}")
        lines += [f"- model: {m['file']}, {m['bytes']} bytes, SHA-256 `{m['sha256']}`" for m in e.get("models") or [e["model"]]]
        for name, build in e["programs"].items():
            lines.append(f"- {name}: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in build.items()))
        lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in e["settings"].items()]
        lines += [f"- while it ran: {e['quiet']}", "", e["table"]]
    if overhead:
        lines += ["", "## What profiling costs", "", "    cargo run --release -p brick-benches --bin overhead -- MODEL -t THREADS --json > overhead-THREADS-threads.json", "",
                  "| model | threads | off, µs | on / off | 95 % interval | control, off / off | pairs | at most 1.02 |",
                  "| --- | ---: | ---: | ---: | --- | --- | ---: | --- |"]
    for o in overhead:
        on, off = o["overhead"], o["control"]
        lines.append(f"| {o['model']} | {o['threads']} | {on['base_median'] / 1e3:.0f} | {on['estimate']:.4f} | {on['low']:.4f} – {on['high']:.4f} "
                     f"| {off['low']:.4f} – {off['high']:.4f} | {on['pairs']} | {o['verdict']} |")
    return "\n".join(lines) + "\n"
