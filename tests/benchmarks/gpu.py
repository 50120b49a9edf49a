"""What a GPU makes of it: training steps, end to end, sharded; written to need at most 10 minutes.

From the checkout, on a machine with one GPU::

    PYTHONPATH=.:tests python -m benchmarks.gpu --out tests/benchmarks/results/gpu.json

- *steps*: MAE ViT-B, L, H at 224 and VideoMAE-B, L in bf16, compiled: samples a second, the share
  of the best matrix products around them (mfu), memory; images beside plain eager fp16 training
  with timm's blocks. Where ViT-L stays under 45 %, a profile is written.
- *loader*: ``maekit bench`` of ViT-B on JPEGs of 500 x 375, with 16 workers.
- *sharded*: FSDP with one rank trains as one process does.

Results are written after each part, and no part begins after ``--minutes``.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.images import draw
from benchmarks.run import facts
from benchmarks.steps import Ours, settle
from maekit.engine.bench import count_flops, product_rate

# Recipe and samples of a step.
MODELS = {
    "MAE ViT-B/16": ("mae_in1k_vit_b", 256),
    "MAE ViT-L/16": ("mae_in1k_vit_l", 128),
    "VideoMAE-B": ("videomae_k400", 32),
    "MAE ViT-H/14": ("mae_in1k_vit_h", 64),
    "VideoMAE-L": ("videomae_k400_l", 16),
}
WANTED, WARM_UP, STEPS = 0.45, 5, 20
PARTS = ("steps", "loader", "sharded")


class Plain(nn.Module):
    """MAE as a short script writes it: timm's blocks, sine positions left out, all of it eager."""

    def __init__(self, ours: Any, ratio: float = 0.75) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.patch, width = ours.backbone.patch[-1], ours.backbone.width
        narrow = ours.decoder.embed.out_features
        self.tokens = ours.grid[1] * ours.grid[2]
        self.kept = int(self.tokens * (1 - ratio))
        self.embed = nn.Conv2d(3, width, self.patch, self.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, narrow))
        self.places = nn.Parameter(torch.zeros(1, self.tokens, width))
        self.places_out = nn.Parameter(torch.zeros(1, self.tokens + 1, narrow))
        self.blocks = nn.Sequential(
            *(Block(width, each.attn.heads, qkv_bias=True) for each in ours.backbone.blocks())
        )
        self.norm, self.narrow = nn.LayerNorm(width), nn.Linear(width, narrow)
        self.decoder = nn.Sequential(
            *(Block(narrow, each.attn.heads, qkv_bias=True) for each in ours.decoder.blocks),
            nn.LayerNorm(narrow),
            nn.Linear(narrow, self.patch**2 * 3),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the mean squared error of hidden, normalized patches."""
        batch, p = len(pixels), self.patch
        tokens = self.embed(pixels).flatten(2).transpose(1, 2) + self.places
        order = torch.rand(batch, self.tokens, device=pixels.device).argsort(1)
        seen = order[:, : self.kept, None]
        tokens = tokens.gather(1, seen.expand(-1, -1, tokens.shape[2]))
        tokens = torch.cat([self.cls.expand(batch, -1, -1).to(tokens), tokens], 1)
        tokens = self.narrow(self.norm(self.blocks(tokens)))
        hidden = self.mask_token.expand(batch, self.tokens - self.kept, -1).to(tokens)
        whole = torch.cat([tokens[:, 1:], hidden], 1)
        back = order.argsort(1)[..., None].expand(-1, -1, whole.shape[2])
        whole = torch.cat([tokens[:, :1], whole.gather(1, back)], 1) + self.places_out
        found = self.decoder(whole)[:, 1:]
        patches = pixels.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 4, 5, 1)
        patches = patches.reshape(batch, self.tokens, -1)
        wanted = (patches - patches.mean(-1, keepdim=True)) / (
            patches.var(-1, keepdim=True) + 1e-6
        ).sqrt()
        lost = (found - wanted).square().mean(-1)
        return lost.gather(1, order[:, self.kept :]).mean()


def plain_step(ours: Ours) -> Callable[[], None]:
    """Return a step of plain eager training in fp16, on the same pixels."""
    model = Plain(ours.model).to(ours.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95))
    scaler = torch.amp.GradScaler(ours.device.type, enabled=ours.device.type == "cuda")
    half = torch.float16 if ours.device.type == "cuda" else torch.bfloat16

    def step() -> None:
        pixels = torch.from_numpy(ours.batch.views[0][:, :, 0]).to(ours.device).float() / 255
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(ours.device.type, half):
            loss = model(pixels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def timed(step: Callable[[], object], device: torch.device, steps: int) -> float:
    """Return the seconds of a step, after a few that warm up."""
    for _ in range(WARM_UP if device.type == "cuda" else 1):
        step()
    settle(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    settle(device)
    return (time.perf_counter() - began) / steps


def measure(recipe: str, batch: int, *, steps: int, words: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a step of one model takes; a batch that does not fit is halved."""
    while True:
        try:
            return _measured(recipe, batch, steps, words)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            torch.cuda.empty_cache()


def _measured(recipe: str, batch: int, steps: int, words: Sequence[str]) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    ours = Ours(recipe, "bf16", batch, words, compiled=cuda)
    device, products = ours.device, []
    flops = count_flops(ours.step, ours.batch)
    ours.state.optimizer.zero_grad(set_to_none=True)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    products.append(product_rate(device, ours.precision))
    began = time.perf_counter()
    ours(0)
    first = time.perf_counter() - began
    took = timed(lambda: ours(0), device, steps)
    products.append(product_rate(device, ours.precision))
    found = {
        "recipe": recipe,
        "batch": batch,
        "first_step_s": first,
        "step_ms": took * 1e3,
        "samples_per_second": batch / took,
        "tflops": flops / took / 1e12,
        "mfu": flops / took / max(products),
        "memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }
    if ours.model.clip[0] == 1:
        plain = timed(plain_step(ours), device, max(1, steps // 2))
        found["times_plain_eager_fp16"] = plain / took
    if cuda and "vit_l" in recipe and found["mfu"] < WANTED:
        found["profile"] = profile(ours)
    return found


def profile(ours: Ours) -> list[str]:
    """Return where a GPU's time goes, the largest first."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as seen:
        for _ in range(3):
            ours(0)
    table = seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=20)
    return str(table).splitlines()


def loader(folder: Path, *, files: int = 512, words: Sequence[str] = ()) -> dict[str, Any]:
    """Return what ``maekit bench`` says of real JPEGs."""
    draw(folder / "pictures", files)
    command = [sys.executable, "-m", "maekit", "bench", "mae_in1k_vit_b", "--json", "-q"]
    own = (f"data.train={{name: images, path: {folder / 'pictures'}}}", "~data.val")
    own += ("data.stats=imagenet", "data.workers=16", "pretrain.batch.per_device=256")
    done = subprocess.run([*command, *own, *words], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-2000:]}


def sharded() -> dict[str, Any]:
    """Return the losses of five steps by one process, and by FSDP with one rank."""
    import torch.distributed as dist

    from maekit.engine import parallel
    from maekit.engine.loop import TrainState

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ.setdefault("MASTER_PORT", "29511")
    device = torch.device("cuda")
    dist.init_process_group("cpu:gloo,cuda:nccl")
    try:
        torch.manual_seed(0)
        block = lambda: nn.Sequential(nn.LayerNorm(256), nn.Linear(256, 256), nn.GELU())  # noqa: E731
        plain = nn.Sequential(*(block() for _ in range(4))).to(device)
        shared, pixels = copy.deepcopy(plain), torch.randn(64, 256, device=device)

        def adam(model: nn.Module) -> torch.optim.Optimizer:
            names = [name for name, _ in model.named_parameters()]
            group = {"params": list(model.parameters()), "names": names}
            return torch.optim.AdamW([group], lr=1e-3, fused=True)

        def losses(call: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> list[float]:
            found = []
            for _ in range(5):
                optimizer.zero_grad()
                with torch.autocast("cuda", torch.bfloat16):
                    loss = call()
                loss.backward()
                optimizer.step()
                found.append(loss.item())
            return found

        alone = losses(lambda: plain(pixels).float().square().mean(), adam(plain))
        optimizer = adam(shared)
        state = TrainState(
            model=shared, optimizer=optimizer, schedule=None, samples_per_step=1,
            steps_per_epoch=1, sharding=parallel.Sharding(list(shared), torch.bfloat16),
        )  # fmt: skip
        root = parallel.Root(shared, lambda _: shared(pixels).float().square().mean())
        run: Any = parallel._shard(root, state, state.sharding)
        split = losses(lambda: run(None), optimizer)
    finally:
        dist.destroy_process_group()
    near = all(abs(a - b) <= 2**-7 * abs(a) for a, b in zip(alone, split, strict=True))
    return {"alone": alone, "sharded": split, "within 2^-7": near}


def parts(only: Sequence[str], folder: Path, steps: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the parts in the order of what is most wanted."""
    first, *rest = [
        (name, lambda recipe=recipe, batch=batch: measure(recipe, batch, steps=steps))
        for name, (recipe, batch) in MODELS.items()
    ]
    if "steps" in only:
        yield first
        yield from rest
    if "loader" in only:
        yield "loader", lambda: loader(folder)
    if "sharded" in only:
        yield "sharded", sharded


def main(words: list[str] | None = None) -> None:
    """Run what the command line asks for, and write what is known after each part."""
    parser = argparse.ArgumentParser(description="Measure maekit on one GPU.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no part begins")
    parser.add_argument("--steps", type=int, default=STEPS, help="that are timed, of each model")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args(words)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {**facts(), "parts": {}}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts(options.only, Path(folder), options.steps):
            if time.monotonic() - began > 60 * options.minutes:
                results["parts"][name] = {"error": "left out: no time"}
                continue
            try:
                results["parts"][name] = part()
            except Exception as error:  # noqa: BLE001 - the other parts are to be measured
                results["parts"][name] = {"error": f"{type(error).__name__}: {error}"}
            print(name, json.dumps(results["parts"][name])[:2000], file=sys.stderr)
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
