"""Word count and inverted index of a large text: pycoll.mapreduce beside PySpark, on the same files, in turn.

    make bench-mapreduce
    python bench/mapreduce.py --spark .venv-spark/bin/python --bytes 2GiB --rounds 3 --json out/mapreduce.json

The text is made once: words by Zipf's law, lines of about 120, see mapreduce/corpus.py. Both sides read it from the
page cache, have done a smaller job of the same kind before, and write Parquet. pycoll's ranks get --memory each, all of
a process; PySpark gets as much as it likes (--spark-memory). Every result is compared with a single process's in plain
Python: pycoll's to the last position, Spark's, which numbers lines in its own way, by the number of lines of each word.

--json FILE writes {"schema": "pycoll-mapreduce/1", "environment": {...}, "settings": {...}, "corpus": {...},
"results": [{"task", "who", "seconds": [...], "peak_bytes": [...]}]}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

from mapreduce import corpus, oracle
from table import environment_of

from pycoll.mapreduce.memory import parse_bytes

HERE = Path(__file__).resolve().parent / "mapreduce"
TASKS = ("count", "index")
LIMIT = 1800  # seconds for one job


class Spark:
    """A PySpark session in a process of its own."""

    def __init__(self, python: str, ranks: int, memory: str) -> None:
        command = [python, str(HERE / "spark.py"), f"local[{ranks}]", memory, str(8 * ranks)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.versions = self._answer()

    def _answer(self) -> dict:
        deadline = threading.Timer(LIMIT, self._process.kill)
        deadline.start()
        line = self._process.stdout.readline()
        deadline.cancel()
        if not line:
            raise SystemExit(f"PySpark ended with {self._process.wait(60)}; see what {self._process.args} says")
        return json.loads(line)

    def run(self, task: str, output: Path, paths: list[Path]) -> float:
        print(task, output, *paths, file=self._process.stdin, flush=True)
        return self._answer()["seconds"]

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()


def run_pycoll(task: str, output: Path, paths: list[Path], ranks: int, memory: str) -> dict:
    command = [
        sys.executable,
        "-m",
        "pycoll.cli",
        "run",
        "-n",
        str(ranks),
        str(HERE / "rank.py"),
        task,
        str(output),
        memory,
    ]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise SystemExit(f"pycoll: {task} failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def check(output: Path, task: str, wanted: str) -> None:
    command = [sys.executable, str(HERE / "check.py"), str(output), task]
    got = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True).stdout.strip()
    if got != wanted:
        raise SystemExit(f"{output}: {task} is wrong: its digest is {got}, wanted {wanted}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bytes", default="2GiB")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--memory", default="256MB", help="of each of pycoll's ranks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--folder", type=Path, default=Path("out/mapreduce"))
    parser.add_argument("--spark", help="a Python that has pyspark; without it pycoll runs alone")
    parser.add_argument("--spark-memory", default="8g")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = options.folder.resolve()
    paths = corpus.write(folder, parse_bytes(options.bytes))
    facts = oracle.of(paths)
    print(
        f"# {facts['bytes']} bytes, {facts['words']} words, {facts['distinct']} distinct, {facts['postings']} postings"
    )
    spark = Spark(options.spark, options.ranks, options.spark_memory) if options.spark else None
    results = []
    try:
        for task in options.tasks.split(","):
            results += measure(task, paths, folder, facts, spark, options)
    finally:
        if spark:
            spark.close()
    if options.json:
        bench = SimpleNamespace(comm=SimpleNamespace(size=options.ranks, transport="shm"), peer=None)
        environment = environment_of(bench) | (spark.versions if spark else {})
        settings = {key: str(value) for key, value in vars(options).items() if key not in ("json", "folder", "spark")}
        document = {"schema": "pycoll-mapreduce/1", "environment": environment, "settings": settings}
        options.json.write_text(json.dumps(document | {"corpus": facts, "results": results}, indent=1) + "\n")


def measure(task: str, paths: list[Path], folder: Path, facts: dict, spark: Spark | None, options) -> list[dict]:
    """Rounds of both in turn; raises if a result is wrong. Prints a line for each of them."""
    ours = {"task": task, "who": "pycoll", "seconds": [], "peak_bytes": [], "spilled_bytes": [], "phases": []}
    theirs = {"task": task, "who": "PySpark", "seconds": []}
    for path in paths:  # into the page cache
        path.read_bytes()
    if spark:
        spark.run(task, folder / "spark-warm", paths[:1])
    for _ in range(options.rounds):
        if spark:
            theirs["seconds"].append(spark.run(task, folder / "spark", paths))
        done = run_pycoll(task, folder / "pycoll", paths, options.ranks, options.memory)
        ours["seconds"].append(done["seconds"])
        ours["peak_bytes"].append(max(stats["peak"] for stats in done["stats"]))
        ours["spilled_bytes"].append(sum(stats["spilled"] for stats in done["stats"]))
        ours["phases"].append(done["stats"][0]["seconds"])
    check(folder / "pycoll", task, facts["counts" if task == "count" else "index"])
    peak, budget = max(ours["peak_bytes"]), parse_bytes(options.memory)
    seconds = statistics.median(ours["seconds"])
    print(
        f"{task}: pycoll {seconds:.1f} s, right; {peak / 1e6:.0f} MB a rank at most, {peak / budget:.2f} of its budget"
    )
    if not spark:
        return [ours]
    check(folder / "spark", *(("count", facts["counts"]) if task == "count" else ("spark-index", facts["frequencies"])))
    ratio = statistics.median(b / a for a, b in zip(ours["seconds"], theirs["seconds"], strict=True))
    print(f"{task}: PySpark {statistics.median(theirs['seconds']):.1f} s, right; {ratio:.2f} times as long", flush=True)
    return [ours, theirs]


if __name__ == "__main__":
    main()
