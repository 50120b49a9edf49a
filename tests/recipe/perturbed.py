"""For every key of every section that a verb takes: another valid value, and what it needs.

A table's entry is the key's other value, or a tuple of it and of what both runs need for the key to
matter. Words that are not simply ``key=value`` stand in a list; what follows a colon in a key says
in which case it is changed once more. ``FOLDER`` stands for the folder that holds the files.
"""

from __future__ import annotations

Table = dict[str, str | tuple[str | list[str], *tuple[str, ...]]]

PICTURES = "pretrain.pictures={every: 2, samples: 2}"  # costs half of a run, so only where needed
ONLINE = "pretrain.online_probe={every: 2, samples: 12}"
CACHED = "probe.protocol=cached"
ATTENTIVE = "probe.kind=attentive"
SGD = "probe.optimizer={name: sgd, base_lr: 4}"


def words_of(key: str, table: Table) -> tuple[list[str], list[str]]:
    """Return the words that change a key, and those that both runs need."""
    entry = table[key]
    value, *both = (entry,) if isinstance(entry, str) else entry
    return [f"{key}={value}"] if isinstance(value, str) else value, both


def as_in(table: Table, old: str, new: str) -> Table:
    """Return the entries of keys that start with ``old``, for another section or set."""
    return {
        key.replace(old, new): tuple(  # type: ignore[misc]
            [word.replace(old, new) for word in part] if isinstance(part, list)
            else part.replace(old, new)
            for part in ((entry,) if isinstance(entry, str) else entry)
        )
        for key, entry in table.items()
        if key.startswith(old)
    }  # fmt: skip


PRETRAIN: Table = {
    "name": "other",
    "seed": "4",
    "data.train.name": (["data.train.name=sample-images", "data.train.count=12"],),
    "data.train.path": "FOLDER/val",
    "data.train.labels": "none",
    "data.train.root": ("FOLDER/val", "data.train.path=FOLDER/list.csv"),
    "data.train.alpha": "keep",
    "data.train.frames": "2",
    "data.train.max_bad_fraction": "0.1",
    "data.train.published": ("https://example.org", "data.train.path=nowhere"),
    "data.size": "24",
    "data.channels": "1",
    "data.stats": "auto",
    "data.stats.mean": ("[0.1,0.2,0.3]", "data.stats={mean: [0.5,0.5,0.5], std: [1,1,1]}"),
    "data.stats.std": ("[2,1,1]", "data.stats={mean: [0.5,0.5,0.5], std: [1,1,1]}"),
    "data.shuffle": "window",
    "data.shuffle_window": ("5", "data.shuffle=window"),
    "data.workers": "1",
    "data.timeout": "17",
    "model.backbone.size": ("small", "~model.backbone.width", "~model.backbone.heads"),
    "model.backbone.width": "48",
    "model.backbone.depth": "2",
    "model.backbone.heads": "4",
    "model.backbone.patch": "[8,12]",
    "model.backbone.mlp_ratio": "2",
    "model.backbone.qkv_bias": "none",
    "model.backbone.class_token": "false",
    "model.backbone.positions": "learned",
    "model.backbone.positions_grid": "[1,4,6]",
    "model.backbone.drop_path": ("0.9", "model.backbone.depth=2"),
    "model.backbone.init": "videomae",
    "model.backbone.mask_token": "true",
    "model.decoder.width": "32",
    "model.decoder.depth": "0",
    "model.decoder.heads": "4",
    "model.decoder.mlp_ratio": "2",
    "model.decoder.qkv_bias": "none",
    "model.decoder.class_token": "true",
    "model.decoder.embed_bias": "false",
    "model.decoder.positions": "sincos-1d",
    "model.decoder.positions_grid": "[1,4,6]",
    "model.decoder.init": "videomae",
    "pretrain.data": "{channels: 1}",
    "pretrain.model": (["pretrain.model.decoder.depth=2"],),
    "pretrain.masker.name": "grid",
    "pretrain.masker.ratio": "0.5",
    "pretrain.masker.rounding": "hidden",
    "pretrain.decoder_masker": (["pretrain.decoder_masker.name=grid"],),
    "pretrain.target.name": "pixel",
    "pretrain.target.space": ("unit", "pretrain.target.name=pixel"),
    "pretrain.target.loss": "l1",
    "pretrain.target.frames": "double",
    "pretrain.target.statistics": "per-channel",
    "pretrain.target.eps": "outside",
    "pretrain.augment.name": "none",
    "pretrain.augment.scale": "[0.9,1.0]",
    "pretrain.augment.ratio": "[1,1]",
    "pretrain.augment.scales": ("[1.0, 0.5]", "pretrain.augment.name=multi-scale-crop"),
    "pretrain.augment.max_distort": ("0", "pretrain.augment.name=multi-scale-crop"),
    "pretrain.augment.enlarge": ("1.5", "pretrain.augment.name=fixed-crop"),
    "pretrain.augment.brightness": ("0", "pretrain.augment.name=color-jitter"),
    "pretrain.augment.contrast": ("0", "pretrain.augment.name=color-jitter"),
    "pretrain.augment.saturation": ("0", "pretrain.augment.name=color-jitter"),
    "pretrain.augment.hue": ("0", "pretrain.augment.name=color-jitter"),
    "pretrain.augment.flip": "0",
    "pretrain.augment.interpolation": "bilinear",
    "pretrain.repeats": "2",
    "pretrain.loss_on": "all",
    "pretrain.epochs": "1",
    "pretrain.steps": "3",
    "pretrain.samples": "24",
    "pretrain.warmup.epochs": "1",
    "pretrain.warmup.steps": "3",
    "pretrain.warmup.endpoint": "true",
    "pretrain.batch.global": "4",
    "pretrain.batch.per_device": "4",
    "pretrain.batch.accumulation": "4",
    "pretrain.optimizer.base_lr": "0.2",
    "pretrain.optimizer.betas": "[0.5,0.9]",
    "pretrain.optimizer.eps": "0.01",
    "pretrain.optimizer.weight_decay": "5",
    "pretrain.optimizer.decay_tokens": ("false", "pretrain.optimizer.weight_decay=50"),
    "pretrain.optimizer.min_lr": "0.01",
    "pretrain.optimizer.min_lr_scaled": ("true", "pretrain.optimizer.min_lr=0.001"),
    "pretrain.optimizer.lr_counts_repeats": ("true", "pretrain.repeats=2"),
    "pretrain.precision": "bf16",
    "pretrain.compile": "true",
    "pretrain.activation_checkpointing": "true",
    "pretrain.clip_grad": "0.01",
    "pretrain.max_nonfinite": ("2", "pretrain.optimizer.base_lr=1e38", "pretrain.steps=8"),
    "pretrain.checkpoint.steps": "2",
    "pretrain.checkpoint.minutes": ("1e-9", "pretrain.checkpoint.keep=9"),
    "pretrain.checkpoint.keep": "1",
    "pretrain.validate.every": "3",
    "pretrain.validate.samples": "3",
    "pretrain.pictures.every": ("3", PICTURES),
    "pretrain.pictures.samples": ("1", PICTURES),
    "pretrain.online_probe.every": ("3", ONLINE),
    "pretrain.online_probe.kind": ("ridge", ONLINE),
    "pretrain.online_probe.samples": ("10", ONLINE),
    "pretrain.online_probe.pool": ("cls", ONLINE),
    "pretrain.online_probe.k": ("1", ONLINE),
    "pretrain.online_probe.ridge": ("1000", ONLINE, "pretrain.online_probe.kind=ridge"),
}

VAL: Table = {
    "data.val.path": "FOLDER/train",
    "data.val.published": ("https://example.org", "data.val.path=nowhere"),
    "data.val.max_bad_fraction": ("0.1", "pretrain.validate.samples=40"),
}

FINETUNE: Table = {
    "finetune.data": "{size: 8}",
    "finetune.model": "{backbone: {drop_path: 0.5}}",
    "finetune.warmup.epochs": "2",
    "finetune.layer_decay": "0.3",
    "finetune.blocks": "half",
    "finetune.pool": "cls",
    "finetune.norm": ("pretrained", "finetune.steps=8"),
    "finetune.positions": "fixed",
    "finetune.head.kind": "multilabel",
    "finetune.head.classes": "7",
    "finetune.head.dropout": "0.5",
    "finetune.head.init_std": "0.1",
    "finetune.head.init_scale": "2",
    "finetune.rand_augment": "rand-m9-p1.0",
    "finetune.rand_augment_on": ("frames", "finetune.rand_augment=rand-m9-p1.0"),
    "finetune.erase": "1",
    "finetune.mixup": "0.8",
    "finetune.cutmix": "1.0",
    "finetune.mix_probability": ("0.3", "finetune.mixup=0.8", "finetune.cutmix=1.0"),
    "finetune.mix_switch": ("1", "finetune.mixup=0.8", "finetune.cutmix=1.0"),
    "finetune.mix_per": ("sample", "finetune.mixup=0.8", "finetune.cutmix=1.0"),
    "finetune.label_smoothing": "0.2",
    "finetune.repeats": "2",
    "finetune.ema": "0.5",
    "finetune.views.clips": "2",
    "finetune.views.crops": "3",
    "finetune.views.enlarge": "1.5",
    "finetune.views.interpolation": "bilinear",
    "finetune.validate.every": "3",
    "finetune.validate.epochs": "0.5",
    "finetune.augment.name": ("single-try-crop", "finetune.steps=8"),
    "finetune.max_nonfinite": (
        "2",
        "finetune.optimizer.base_lr=1e38",
        "finetune.steps=8",
        "finetune.validate.every=99",
    ),
    "finetune.optimizer.lr_counts_repeats": ("true", "finetune.repeats=2"),
}

TOKENIZER: Table = {
    "tokenizer.dvae.vocabulary": "9",
    "tokenizer.dvae.width": "8",
    "tokenizer.dvae.init_width": "5",
    "tokenizer.dvae.groups": "3",
    "tokenizer.dvae.blocks": "2",
    "tokenizer.loss": "mse",
    "tokenizer.temperature.start": "2",
    "tokenizer.temperature.end": "0.5",
    "tokenizer.temperature.steps": "2",
    "tokenizer.kl_weight.start": "3",
    "tokenizer.kl_weight.end": "60",
    "tokenizer.kl_weight.steps": "0",
    "tokenizer.data": "{size: 8}",
    "tokenizer.warmup.epochs": "0.5",
}

CLIPS: Table = {
    "data.train.frames": "4",
    "data.train.stride": "2",
    "data.train.sampling": "segments",
    "data.train.sampling: spread": (["data.train.sampling=spread"], "data.train.stride=2"),
    "data.val.sampling: spread": (["data.val.sampling=spread"], "data.val.stride=2"),
    "data.val.stride": "2",
    "data.val.sampling": "segments",
    "pretrain.repeat_from": ("same-frames", "pretrain.repeats=2"),
    "videos.path": (["data.train.path=FOLDER/val"],),
    "videos.layout": (["data.train.layout=frame-folders"],),
    "videos.labels": (["data.train.labels=none"],),
    "videos.root": (["data.train.root=FOLDER/val"], "data.train.path=FOLDER/train/list.txt"),
    "videos.columns": (
        ["data.train.columns=start-frames"],
        "data.train.path=FOLDER/train/list.txt",
    ),
    "tube.ratio": (["pretrain.masker.ratio=0.5"],),
    "tube.rounding": (["pretrain.masker.rounding=keep"],),
    "frame.ratio": (["pretrain.masker.ratio=0.5"], "pretrain.masker.name=frame"),
    "frame.rounding": (
        ["pretrain.masker.rounding=keep"],
        "pretrain.masker.name=frame",
        "pretrain.masker.ratio=0.6",
    ),
    "video-vit.size": (
        ["model.backbone.size=small"],
        "~model.backbone.width",
        "~model.backbone.heads",
    ),
    "video-vit.width": (["model.backbone.width=48"],),
    "video-vit.depth": (["model.backbone.depth=2"],),
    "video-vit.heads": (["model.backbone.heads=4"],),
    "video-vit.patch": (["model.backbone.patch=[4,4,4]"],),
    "video-vit.mlp_ratio": (["model.backbone.mlp_ratio=2"],),
    "video-vit.qkv_bias": (["model.backbone.qkv_bias=none"],),
    "video-vit.class_token": (["model.backbone.class_token=true"],),
    "video-vit.positions": (["model.backbone.positions=learned"],),
    "video-vit.positions_grid": (["model.backbone.positions_grid=[1,4,6]"],),
    "video-vit.inflate": (
        ["model.backbone.inflate=center"],
        "--from",
        "FOLDER/image.safetensors",
        "model.backbone.positions=sincos-2d",
    ),
    "video-vit.drop_path": (["model.backbone.drop_path=0.9"], "model.backbone.depth=2"),
    "video-vit.init": (["model.backbone.init=mae"],),
    "video-vit.mask_token": (["model.backbone.mask_token=true"],),
}

PROBE: Table = {
    "probe.data": "{channels: 1}",
    "probe.model": "{backbone: {depth: 1}}",
    "probe.kind": "knn",
    "probe.protocol": "cached",
    "probe.pool": "mean",
    "probe.layer": ("1", CACHED),
    "probe.pixels": ("2", CACHED),
    "probe.warmup.epochs": "2",
    "probe.augment.name": "none",
    "probe.optimizer.name": (["probe.optimizer={name: sgd, base_lr: 10}"],),
    "probe.optimizer.base_lr": "5",
    "probe.optimizer.momentum": "0.5",
    "probe.optimizer.trust": "0.01",
    "probe.optimizer.weight_decay": "0.1",
    "probe.max_nonfinite": (
        "2",
        "probe.optimizer={name: sgd, base_lr: 1e38, weight_decay: 1}",
        "probe.steps=8",
    ),
    "probe.compile": "true",
    "probe.activation_checkpointing": "true",
    "probe.views.clips": "2",
    "probe.views.crops": "3",
    "probe.views.enlarge": "1.5",
    "probe.views.interpolation": "bilinear",
    "probe.linear.strengths": ("[0.0001]", CACHED),
    "probe.linear.held_out": ("0.6", CACHED),
    "probe.linear.iterations": ("1", CACHED),
    "probe.knn.k": ("2", "probe.kind=knn"),
    "probe.knn.temperature": ("null", "probe.kind=knn"),
    "probe.attentive.heads": ("2", ATTENTIVE),
    "probe.attentive.epochs": ("2", ATTENTIVE),
    "probe.attentive.warmup": ("2", ATTENTIVE),
    "probe.attentive.batch": ("9", ATTENTIVE),
    "probe.attentive.lr": ("0.1", ATTENTIVE),
    "probe.attentive.weight_decay": ("5", ATTENTIVE),
    "probe.data: cached": (["probe.data={channels: 1}"], CACHED),
    "probe.model: cached": (["probe.model={backbone: {depth: 1}}"], CACHED),
    "probe.pool: cached": (["probe.pool=mean"], CACHED),
    "probe.views.crops: cached": (["probe.views.crops=3"], CACHED),
    "probe.views.enlarge: cached": (["probe.views.enlarge=1.5"], CACHED),
    "probe.precision: cached": (["probe.precision=bf16"], CACHED),
    "probe.optimizer.base_lr: sgd": (["probe.optimizer.base_lr=2"], SGD),
    "probe.optimizer.momentum: sgd": (["probe.optimizer.momentum=0.5"], SGD),
    "probe.optimizer.weight_decay: sgd": (["probe.optimizer.weight_decay=0.1"], SGD),
    "probe.optimizer.min_lr: sgd": (["probe.optimizer.min_lr=0.3"], SGD),
}
