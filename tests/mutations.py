"""Break maekit on purpose, one mistake at a time, and see that the tests notice.

A test that passes proves little until it has been seen to fail. Each mutation below is a mistake
that a reimplementation of MAE or VideoMAE really makes: a wrong epsilon, a swapped axis, a bias on
the wrong projection. Run by hand, from the root of the checkout, not by pytest:

    python tests/mutations.py              # all; about ten minutes on two cores
    python tests/mutations.py "v's bias"   # those whose name holds the words
    python tests/mutations.py --jobs 2

Every mutation is made in a temporary copy of the tree, where the test files that should notice are
run until the first failure. The old text is looked for in all of maekit/, so that moving a module
breaks nothing here; rewriting the line does, and is reported. Before anything is changed, all those
test files must pass in the copy. Exits 1 if a mutation survives or its text is not found exactly
once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("maekit", "recipes", "tests", "pyproject.toml", "README.md", "CHANGELOG.md")
HANGS_AFTER = 900  # seconds of one pytest process


class Mutation(NamedTuple):
    """One mistake.

    Attributes:
        name: what is wrong then.
        old: the text that is replaced; it stands exactly once in maekit/.
        new: what replaces it.
        tests: the names of the test files that should notice, wherever they stand in tests/.
    """

    name: str
    old: str
    new: str
    tests: tuple[str, ...]


PARITY = "test_formulas.py"
MUTATIONS = [
    # Layers
    Mutation(
        "LayerNorm eps 1e-5",
        "LAYER_NORM_EPS = 1e-6",
        "LAYER_NORM_EPS = 1e-5",
        (PARITY,),
    ),
    Mutation(
        "LayerNorm eps 1e-12",
        "LAYER_NORM_EPS = 1e-6",
        "LAYER_NORM_EPS = 1e-12",
        (PARITY,),
    ),
    Mutation(
        "attention without its scale",
        "F.scaled_dot_product_attention(q, k, v)",
        "F.scaled_dot_product_attention(q, k, v, scale=1.0)",
        ("test_layers.py", PARITY),
    ),
    Mutation(
        "attention maps without the scale",
        "torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1))",
        "torch.matmul(q, k.transpose(-2, -1))",
        ("test_layers.py",),
    ),
    Mutation(
        "attention scaled by the whole width",
        "F.scaled_dot_product_attention(q, k, v)",
        "F.scaled_dot_product_attention(q, k, v, scale=(q.shape[1] * q.shape[-1]) ** -0.5)",
        ("test_layers.py", PARITY),
    ),
    Mutation(
        "v's bias on k",
        "torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])",
        "torch.cat([self.q_bias, self.v_bias, torch.zeros_like(self.v_bias)])",
        ("test_layers.py", PARITY),
    ),
    Mutation(
        "GELU by tanh",
        "F.gelu(self.fc1(x))",
        'F.gelu(self.fc1(x), approximate="tanh")',
        (PARITY,),
    ),
    Mutation(
        "dropped paths not scaled",
        "branch * (kept.to(branch.dtype) / keep)",
        "branch * kept.to(branch.dtype)",
        ("test_classifier.py",),
    ),
    Mutation(
        "paths dropped by batch",
        "torch.rand(len(branch), 1, 1, device=branch.device)",
        "torch.rand(1, 1, 1, device=branch.device)",
        ("test_classifier.py",),
    ),
    Mutation(
        "drop-path rates start above 0",
        "last * block / max(1, depth - 1)",
        "last * (block + 1) / depth",
        ("test_classifier.py",),
    ),
    # Tokens and positions
    Mutation(
        "patches flattened with channels slowest",
        "x.permute(0, 2, 4, 6, 3, 5, 7, 1)",
        "x.permute(0, 2, 4, 6, 1, 3, 5, 7)",
        ("test_tokens.py",),
    ),
    Mutation(
        "patches flattened column by column",
        "x.permute(0, 2, 4, 6, 3, 5, 7, 1)",
        "x.permute(0, 2, 4, 6, 3, 7, 5, 1)",
        ("test_tokens.py",),
    ),
    Mutation(
        "the embedding's weight in another order than its patches",
        "self.weight.permute(0, 2, 3, 4, 1).flatten(1)",
        "self.weight.flatten(1)",
        ("test_layers.py",),
    ),
    Mutation(
        "tokens in column order",
        "x.permute(0, 2, 4, 6, 3, 5, 7, 1)",
        "x.permute(0, 2, 6, 4, 3, 5, 7, 1)",
        ("test_tokens.py",),
    ),
    Mutation(
        "tokens with time fastest",
        "x.permute(0, 2, 4, 6, 3, 5, 7, 1)",
        "x.permute(0, 4, 6, 2, 3, 5, 7, 1)",
        ("test_tokens.py",),
    ),
    Mutation(
        "2-D positions with the row first",
        "for axis in (column, row)]",
        "for axis in (row, column)]",
        ("test_layers.py",),
    ),
    Mutation(
        "2-D positions with cosines first",
        "np.concatenate([np.sin(angles), np.cos(angles)], axis=1)",
        "np.concatenate([np.cos(angles), np.sin(angles)], axis=1)",
        ("test_layers.py",),
    ),
    Mutation(
        "2-D positions with sines and cosines interleaved",
        "np.concatenate([np.sin(angles), np.cos(angles)], axis=1)",
        "np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(len(angles), -1)",
        ("test_layers.py",),
    ),
    Mutation(
        "1-D positions with cosines first",
        "np.where(column % 2 == 0, np.sin(angles), np.cos(angles))",
        "np.where(column % 2 == 1, np.sin(angles), np.cos(angles))",
        ("test_video_vit.py",),
    ),
    Mutation(
        "the class token has a position",
        "torch.cat([torch.zeros(prefix, width), rows])",
        "torch.cat([rows[:prefix], rows])",
        (PARITY,),
    ),
    Mutation(
        "the encoder sees what is hidden",
        "visible = hidden.to(torch.uint8).argsort(",
        "visible = (~hidden).to(torch.uint8).argsort(",
        ("test_tokens.py",),
    ),
    Mutation(
        "a masker marks what is visible",
        "hidden[rng.permutation(grid.tokens)[: self.count(grid)]] = True",
        "hidden[rng.permutation(grid.tokens)[self.count(grid) :]] = True",
        ("test_maskers.py",),
    ),
    Mutation(
        "a hidden fraction taken for a kept one",
        "return n - int(n * (1 - ratio))",
        "return int(n * (1 - ratio))",
        ("test_maskers.py",),
    ),
    Mutation(
        "the two roundings exchanged",
        'if rounding == "hidden":',
        'if rounding == "keep":',
        ("test_maskers.py", "test_tube_frame.py"),
    ),
    # Decoder and loss
    Mutation(
        "mask tokens before visible ones",
        "torch.cat([tokens + table[mask.visible], requested], dim=1)",
        "torch.cat([requested, tokens + table[mask.visible]], dim=1)",
        (PARITY,),
    ),
    Mutation(
        "mask tokens at each other's positions",
        "self._mask_tokens(mask.queries, tokens) + table[mask.queries]",
        "self._mask_tokens(mask.queries, tokens) + table[mask.queries.flip(1)]",
        (PARITY,),
    ),
    Mutation(
        "visible tokens without a position in the decoder",
        "torch.cat([tokens + table[mask.visible], requested], dim=1)",
        "torch.cat([tokens, requested], dim=1)",
        (PARITY,),
    ),
    Mutation(
        "visible tokens not put back where they were",
        "self._mask_tokens(everywhere, tokens).scatter(1, index, tokens)",
        "torch.cat([tokens, self._mask_tokens(everywhere[:, tokens.shape[1] :], tokens)], dim=1)",
        ("test_model.py",),
    ),
    Mutation(
        "the loss summed over a patch",
        'target, reduction="none")\n        return each.mean(dim=-1)',
        'target, reduction="none")\n        return each.sum(dim=-1)',
        ("test_pixel.py", PARITY),
    ),
    Mutation(
        "the loss averaged over all queries, counted or not",
        "return (loss * mask.weight).sum()",
        "return (loss * mask.weight).mean()",
        (PARITY, "test_model.py"),
    ),
    Mutation(
        "weights of the loss ignored",
        "return (loss * mask.weight).sum()",
        "return loss.sum()",
        ("test_model.py", PARITY),
    ),
    Mutation(
        "micro-batches averaged one by one",
        "return Update(total / weights, norm,",
        "return Update(total / len(batches), norm,",
        ("test_loop.py",),
    ),
    Mutation(
        "loss over all tokens",
        'requested = torch.ones_like(hidden) if loss_on == "all" else hidden\n'
        "        requested_counts",
        "requested = torch.ones_like(hidden)\n        requested_counts",
        ("test_tokens.py", PARITY),
    ),
    Mutation(
        "visible queries count under dual masking",
        'requested if loss_on == "all" else requested & hidden',
        "requested",
        ("test_tokens.py", PARITY),
    ),
    Mutation(
        "target eps inside for outside",
        'if self.options.eps == "inside":',
        'if self.options.eps == "outside":',
        ("test_pixel.py",),
    ),
    Mutation(
        "target eps outside throughout",
        'if self.options.eps == "inside":',
        "if False:",
        ("test_pixel.py",),
    ),
    Mutation(
        "biased variance of the target",
        "torch.var_mean(self._grouped(patches), dim=-2, correction=1, keepdim=True)",
        "torch.var_mean(self._grouped(patches), dim=-2, correction=0, keepdim=True)",
        ("test_pixel.py", PARITY),
    ),
    Mutation(
        "joint and per-channel statistics exchanged",
        'if self.options.statistics == "per-channel" else 1',
        'if self.options.statistics == "joint" else 1',
        ("test_pixel.py", PARITY),
    ),
    Mutation(
        "the target in the space of the input",
        "self.loss(pred, [self.unnormalize(pixels)], mask)",
        "self.loss(pred, [pixels], mask)",
        ("test_mae_hf.py", "test_videomae_hf.py"),
    ),
    Mutation(
        "the target in [0, 1] throughout",
        "return (patches - self._repeated(self.mean, patches)) / self._repeated(self.std, patches)",
        "return patches",
        ("test_pixel.py",),
    ),
    # Optimization
    Mutation(
        "warm-up ends a step early",
        "span = self.warmup - 1 if self.endpoint else self.warmup",
        "span = max(1, self.warmup - 1)",
        ("test_schedule.py",),
    ),
    Mutation(
        "warm-up never ends a step early",
        "span = self.warmup - 1 if self.endpoint else self.warmup",
        "span = self.warmup",
        ("test_schedule.py",),
    ),
    Mutation(
        "the cosine starts before the warm-up",
        "progress = (step - self.warmup) / max(1, steps - self.warmup)",
        "progress = step / max(1, steps)",
        ("test_schedule.py",),
    ),
    Mutation(
        "min_lr never scaled",
        "return optimizer.min_lr * batch / LR_BATCH",
        "return optimizer.min_lr",
        ("test_schedule.py",),
    ),
    Mutation(
        "min_lr always scaled",
        "if not optimizer.min_lr_scaled:",
        "if False:",
        ("test_schedule.py",),
    ),
    Mutation(
        "lr not divided by 256",
        "return base_lr(optimizer, batch) * batch / LR_BATCH",
        "return base_lr(optimizer, batch) * batch",
        ("test_schedule.py",),
    ),
    Mutation(
        "lr not scaled by the batch",
        "return base_lr(optimizer, batch) * batch / LR_BATCH",
        "return base_lr(optimizer, batch)",
        ("test_schedule.py",),
    ),
    Mutation(
        "the decoder's mask token decayed",
        'names += [f"decoder.{name}" for name in model.decoder.no_decay()]',
        "pass",
        ("test_optimization.py",),
    ),
    Mutation(
        "weight decay on biases",
        'parameter.ndim > 1 and not name.endswith(".bias") and name not in free',
        "name not in free",
        ("test_optimization.py",),
    ),
    Mutation(
        "layer decay off by one",
        '"lr_scale": decay ** (depth + 1 - layer)',
        '"lr_scale": decay ** (depth - layer)',
        ("test_layer_decay.py",),
    ),
    # Evaluation
    Mutation(
        "views averaged over the wrong axis",
        "scores = views.astype(np.float64)\n",
        "scores = views.astype(np.float64)\n"
        "    scores = np.moveaxis(scores, 0, 1).reshape(scores.shape)\n",
        ("test_predictions.py",),
    ),
    Mutation(
        "the mean taken over classes",
        "averaged.mean(axis=1), single",
        "averaged.mean(axis=2), single",
        ("test_predictions.py",),
    ),
    Mutation(
        "views averaged before the softmax",
        "return activation(logits(pixels))",
        "return logits(pixels)",
        ("test_predictions.py",),
    ),
]


def main() -> int:
    """Run the mutations whose name holds the given words, and say which survive."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="parts of names; default: all mutations")
    parser.add_argument("--jobs", type=int, default=1, help="mutations at once")
    asked = parser.parse_args()
    chosen = [
        mutation
        for mutation in MUTATIONS
        if not asked.words or any(word in mutation.name for word in asked.words)
    ]
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        plain = copy_tree(Path(folder) / "plain")
        wanted = sorted({name for mutation in chosen for name in mutation.tests})
        passed, said = passes(plain, wanted)
        if not passed:
            print(f"the tests fail without any mutation:\n{said}")
            return 1
        with ThreadPoolExecutor(asked.jobs) as pool:
            faults = list(pool.map(lambda mutation: attempt(mutation, Path(folder)), chosen))
    bad = [name for name in faults if name]
    print(f"{len(chosen) - len(bad)} of {len(chosen)} mutations caught")
    return 1 if bad or not chosen else 0


def attempt(mutation: Mutation, folder: Path) -> str:
    """Make one mutation in a copy; returns its name unless it is caught."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        tree = copy_tree(Path(own) / "tree")
        files = {path: path.read_text(encoding="utf-8") for path in tree.glob("maekit/**/*.py")}
        found = sum(text.count(mutation.old) for text in files.values())
        if found != 1:
            print(f"not made   {mutation.name}: its text is found {found} times", flush=True)
            return mutation.name
        for path, text in files.items():
            if mutation.old in text:
                path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        survived, said = passes(tree, mutation.tests)
    if survived:
        print(f"SURVIVED   {mutation.name}: {', '.join(mutation.tests)}", flush=True)
        return mutation.name
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(f"caught     {mutation.name}: {failed[0][:150] if failed else said[-300:]}", flush=True)
    return ""


def copy_tree(where: Path) -> Path:
    """Copy what the tests need of the checkout."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        source, target = ROOT / name, where / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return where


def passes(tree: Path, names: tuple[str, ...] | list[str]) -> tuple[bool, str]:
    """Run the test files of these names; returns whether all pass, and what pytest says.

    Raises:
        RuntimeError: a file is not there, or pytest could not run it.
    """
    files = [str(path) for name in names for path in tree.glob(f"tests/**/{name}")]
    if len(files) != len(names):
        raise RuntimeError(f"of {', '.join(names)}, there are {files}")
    environment = os.environ | {
        "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"
    }  # fmt: skip
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    words += ["--basetemp", str(tree / "tmp"), *files]  # pytest's own is cleaned by other runs
    ended = subprocess.run(
        words, cwd=tree, env=environment, capture_output=True, text=True, timeout=HANGS_AFTER,
        check=False,
    )  # fmt: skip
    if ended.returncode not in (0, 1):  # 1: a test failed
        raise RuntimeError(f"pytest exited with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.returncode == 0, ended.stdout


if __name__ == "__main__":
    sys.exit(main())
