"""Run the benchmarks: everything side by side in one run, interleaved, medians of 9 rounds or more.

From the checkout::

    PYTHONPATH=.:tests OMP_NUM_THREADS=2 python -m benchmarks.run \
        --out tests/benchmarks/results/cpu.json

writes JSON with the machine, versions and commit, a table beside it, and a plot: after each group,
so that a run that is ended early leaves what it has. What is not installed is left out, with the
reason. ``--only images`` runs a part; ``--pairs 1 --step-batch 1`` shows in little time that all of
it runs. On a GPU, steps run there. (Images and videos are read by one thread whatever
OMP_NUM_THREADS says.)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.sides import LEAST_PAIRS, Group, compare

PARTS = ("images", "videos", "steps", "costs", "scaling")
PACKAGES = (
    "torch", "torchvision", "timm", "transformers", "numpy", "pillow", "simplejpeg", "av",
    "decord", "torchcodec",
)  # fmt: skip


def facts() -> dict[str, Any]:
    """Describe machine, versions and commit."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
            "system": platform.platform(terse=True),
            "python": platform.python_version(),
        },
        "versions": versions,
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    where = Path(__file__).parent
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def groups(part: str, folder: Path, options: argparse.Namespace) -> Iterator[Group]:
    """Yield the groups of one part."""
    if part == "images":
        from benchmarks import images

        yield from images.groups(folder, samples=options.samples)
    elif part == "videos":
        from benchmarks import videos

        yield from videos.groups(folder, samples=max(2, options.samples // 8))
    elif part == "steps":
        from benchmarks import steps

        yield from steps.groups(batches={"images": options.step_batch, "videos": options.clips})
    elif part == "costs":
        from benchmarks import costs

        yield from costs.groups(folder)


def table(results: dict[str, Any]) -> str:
    """Write the results as Markdown."""
    machine = results["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread(s)"
    where += f", {machine['gpu']}" if machine["gpu"] else ""
    lines = [f"Commit {results['commit']}, {results['date']}: {where}.", ""]
    for name, found in results["groups"].items():
        lines += [f"**{name}** ({found['unit']}; medians of {found['pairs']} rounds)", ""]
        lines += ["| | median | maekit is faster by |", "|---|---|---|"]
        for side, numbers in found["sides"].items():
            ratio = "" if side == "maekit" else f"{numbers['ratio']:.2f}x"
            lines.append(f"| {side} | {numbers['median']:.3g} | {ratio} |")
        lines += ["", *(f"{key}: {value}" for key, value in found["facts"].items())]
        lines += [f"{side}: left out, {why}" for side, why in found["skipped"].items()]
        lines.append("")
    if "scaling" in results:
        lines += ["**A step against its sizes** (CPU, float32)", ""]
        lines += ["| | | ms | GFLOP | MB | time beyond operations |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {row['axis']} | {row['value']:g} | {row['ms']:.0f} | {row['gflop']:.1f} | "
            f"{row['peak_mb']:.0f} | {row['beyond']:+.0%} |"
            for row in results["scaling"]
        ]
    return "\n".join(lines).rstrip() + "\n"


def run(
    parts: Iterable[str], folder: Path, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Run parts; yield what they found, with all that is needed to understand it, as it grows."""
    import torch

    results: dict[str, Any] = {**facts(), "groups": {}}
    threads = torch.get_num_threads()
    for part in parts:
        torch.set_num_threads(threads)  # images and videos leave it at 1
        if part == "scaling":
            from benchmarks import scaling

            print("a step against its sizes ...", file=sys.stderr)
            results["scaling"] = scaling.table(rounds=max(1, options.pairs // 3))
            yield results
            continue
        for group in groups(part, folder, options):
            print(f"{group.name} ...", file=sys.stderr)
            pairs = min(options.pairs, group.most)
            results["groups"][group.name] = compare(group, pairs)
            yield results


def main(words: list[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure maekit against other people's code.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS, help="rounds of each")
    parser.add_argument("--samples", type=int, default=32, help="pictures of a round")
    parser.add_argument("--step-batch", type=int, default=16, help="pictures of a step")
    parser.add_argument("--clips", type=int, default=2, help="clips of a step")
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    options = parser.parse_args(words)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for results in run(options.only, Path(folder), options):
            write(results, options.out)
    write(results, options.out)
    print(table(results), end="")


def write(results: dict[str, Any], out: Path) -> None:
    """Write JSON, table and plot."""
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(table(results), encoding="utf-8")
    if "scaling" in results:
        from benchmarks import scaling

        scaling.plot(results["scaling"], str(out.with_suffix(".png")))


if __name__ == "__main__":
    main()
