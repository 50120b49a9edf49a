"""Numbers of the sources of every shipped recipe, and where a recipe departs from them.

Keys are those of ``recipes show X --resolved``. A source's number stands in its table even where
the recipe has another: then the recipe's own stands in ``DEPARTURES``, with the reason that the
recipe's comments give.

MAE: PRETRAIN.md, FINETUNE.md, main_*.py, models_mae.py of facebookresearch/mae@efb2a80; the paper's
tables 9 to 11 (arXiv 2111.06377). VideoMAE: scripts/*, run_*.py, datasets.py of
MCG-NJU/VideoMAE@14ef8d8; MODEL_ZOO.md. mae_st: PRETRAIN.md, FINETUNE.md, util/kinetics.py,
main_pretrain.py of facebookresearch/mae_st@c5dec1b. VideoMAEv2: scripts/pretrain/*.sh,
scripts/finetune/*_k400_ft.sh, models/ of OpenGVLab/VideoMAEv2@29eab1e.
"""

from __future__ import annotations

from typing import Any

Numbers = dict[str, Any]


def under(start: str, **numbers: Any) -> Numbers:
    """Return numbers below a key; ``__`` stands for a dot."""
    return {f"{start}.{key.replace('__', '.')}": value for key, value in numbers.items()}


def adamw(start: str, lr: float, betas: list[float], decay: float, **more: Any) -> Numbers:
    return under(
        f"{start}.optimizer", name="adamw", base_lr=lr, betas=betas, eps=1e-8, weight_decay=decay,
        **more,
    )  # fmt: skip


THREE_QUARTERS_TO = [0.75, 1.3333333333333333]  # torchvision's aspects

# --- MAE ------------------------------------------------------------------------------------------

MAE_MODEL = under(
    "model.backbone", name="image-vit", size="base", patch=16, mlp_ratio=4.0, qkv_bias="all",
    class_token=True, positions="sincos-2d", init="mae", norm_eps=None, drop_path=0.0,
) | under(
    "model.decoder", name="vit", width=512, depth=8, heads=16, mlp_ratio=4.0, qkv_bias="all",
    embed_bias=True, class_token=False, positions="sincos-2d", init="mae", norm_eps=None,
)  # fmt: skip
MAE_PRETRAIN = (
    MAE_MODEL
    | {"data.size": 224, "data.stats": "imagenet"}
    | under("pretrain.masker", name="random", ratio=0.75, rounding="keep")
    | under(
        "pretrain.target", name="norm-pixel", space="normalized", statistics="joint", eps="inside",
        loss="mse", frames="same",
    )
    | under(
        "pretrain.augment", name="random-resized-crop", scale=[0.2, 1.0], ratio=THREE_QUARTERS_TO,
        flip=0.5, interpolation="bicubic",
    )
    | under("pretrain", epochs=1600, warmup__epochs=40, warmup__endpoint=False, batch__global=4096,
            repeats=1, clip_grad=None, loss_on="hidden")
    | adamw("pretrain", 1.5e-4, [0.9, 0.95], 0.05, decay_tokens=True, min_lr=0.0,
            min_lr_scaled=False)
)  # fmt: skip
TIMM_TRAINING = under(
    "finetune", rand_augment="rand-m9-mstd0.5-inc1", rand_augment_on="crop",
    rand_augment_fill="mean", erase=0.25, mixup=0.8, cutmix=1.0, mix_probability=1.0,
    mix_switch=0.5, mix_per="batch", label_smoothing=0.1, repeats=1, clip_grad=None, pool="mean",
    norm="fresh", positions="trainable", head__classes=1000, head__dropout=0.0,
) | under(
    "finetune.augment", name="random-resized-crop", scale=[0.08, 1.0], ratio=THREE_QUARTERS_TO,
    flip=0.5, interpolation="bicubic",
) | under(
    "finetune.views", clips=1, crops=1, enlarge=256 / 224, resize="whole-pixels",
    interpolation="bicubic",
)  # fmt: skip
MAE_FINETUNE = (
    TIMM_TRAINING
    | under("finetune", epochs=100, warmup__epochs=5, batch__global=1024, layer_decay=0.65,
            head__init_std=2e-5, ema=None, model__backbone__drop_path=0.1)
    | adamw("finetune", 5e-4, [0.9, 0.999], 0.05, min_lr=1e-6, min_lr_scaled=False)
)  # fmt: skip
MAE_PROBE = (
    under("probe", kind="linear", protocol="paper", pool="cls", epochs=90, warmup__epochs=10,
          batch__global=16384)
    | under("probe.optimizer", name="lars", base_lr=0.1, momentum=0.9, trust=0.001,
            weight_decay=0.0, min_lr=0.0)
    | under("probe.augment", name="single-try-crop", scale=[0.08, 1.0], ratio=THREE_QUARTERS_TO,
            flip=0.5, interpolation="bicubic")
    | under("probe.views", clips=1, crops=1, enlarge=256 / 224, resize="whole-pixels",
            interpolation="bicubic")
)  # fmt: skip
MAE_B = MAE_PRETRAIN | MAE_FINETUNE | MAE_PROBE
LARGE = {"finetune.epochs": 50, "finetune.optimizer.base_lr": 1e-3, "finetune.layer_decay": 0.75}
MAE_L = MAE_B | LARGE | {
    "model.backbone.size": "large", "finetune.model.backbone.drop_path": 0.2,
}  # fmt: skip
MAE_H = MAE_B | LARGE | {
    "model.backbone.size": "huge", "model.backbone.patch": 14,
    "finetune.model.backbone.drop_path": 0.3,
}  # fmt: skip
# The paper's table 11 and A.2; what it leaves out, main_finetune.py without --finetune.
SCRATCH = (
    TIMM_TRAINING
    | under("model.backbone", name="image-vit", size="base", patch=16)
    | {"data.size": 224, "data.stats": "imagenet"}
    | under("finetune", epochs=300, warmup__epochs=20, batch__global=4096, layer_decay=1.0,
            head__init_std=0.02, ema=0.9999, model__backbone__drop_path=0.1)
    | adamw("finetune", 1e-4, [0.9, 0.95], 0.3, min_lr=1e-6, min_lr_scaled=False)
    | {"model.backbone.init": "timm", "model.backbone.positions": "learned"}  # N(0, 0.02)
)  # fmt: skip
SCRATCH_LARGE = {"finetune.epochs": 200, "finetune.model.backbone.drop_path": 0.2}

# --- VideoMAE -------------------------------------------------------------------------------------

VIDEO_MODEL = under(
    "model.backbone", name="video-vit", size="base", patch=[2, 16, 16], mlp_ratio=4.0,
    qkv_bias="qv", class_token=False, positions="sincos-1d", init="videomae", norm_eps=None,
    drop_path=0.0,
) | under(
    "model.decoder", name="vit", width=384, depth=4, heads=6, mlp_ratio=4.0, qkv_bias="qv",
    embed_bias=False, class_token=False, positions="sincos-1d", init="videomae", norm_eps=None,
)  # fmt: skip
VIDEO_PRETRAIN = (
    VIDEO_MODEL
    | {"data.size": 224, "data.stats": "imagenet"}
    | under("data.train", frames=16, stride=4, sampling="dense")
    | under("pretrain.masker", name="tube", ratio=0.9, rounding="hidden")
    | under("pretrain.target", name="norm-pixel", space="unit", statistics="per-channel",
            eps="outside", loss="mse", frames="same")
    | under("pretrain.augment", name="multi-scale-crop", scales=[1.0, 0.875, 0.75, 0.66],
            max_distort=1, flip=0.0, interpolation="bilinear")
    | under("pretrain", epochs=801, warmup__epochs=40, warmup__endpoint=True, batch__global=2048,
            repeats=1, clip_grad=None, loss_on="hidden")
    | adamw("pretrain", 1.5e-4, [0.9, 0.95], 0.05, decay_tokens=False, min_lr=1e-5,
            min_lr_scaled=True)
)  # fmt: skip
VIDEO_FINETUNE = (
    under("finetune", data__train__sampling="spread", model__backbone__drop_path=0.1,
          rand_augment="rand-m7-n4-mstd0.5-inc1", rand_augment_on="frames",
          rand_augment_fill="gray", erase=0.25, mixup=0.8, cutmix=1.0, mix_probability=1.0,
          mix_switch=0.5, mix_per="batch", label_smoothing=0.1, repeats=1,
          repeat_from="same-frames", epochs=100, warmup__epochs=5, warmup__endpoint=True,
          batch__global=512, layer_decay=0.75, clip_grad=None, pool="mean", norm="fresh",
          positions="fixed", head__classes=400, head__dropout=0.0, head__init_scale=0.001,
          ema=None)
    | under("finetune.augment", name="random-resized-crop", scale=[0.08, 1.0],
            ratio=THREE_QUARTERS_TO, flip=0.5, interpolation="bilinear-aliased")
    | under("finetune.views", clips=5, crops=3, interpolation="bilinear-aliased",
            resize="whole-pixels", enlarge=1.0)
    | adamw("finetune", 1e-3, [0.9, 0.999], 0.05, min_lr=1e-6, min_lr_scaled=True,
            lr_counts_repeats=False)
)  # fmt: skip
K400 = VIDEO_PRETRAIN | VIDEO_FINETUNE


def tuned(epochs: int, batch: int, lr: float, repeats: int = 2, **more: Any) -> Numbers:
    """Return what a finetune.sh sets: --epochs, batch x GPUs, --lr, --num_sample, and more."""
    return {
        "finetune.epochs": epochs, "finetune.batch.global": batch,
        "finetune.optimizer.base_lr": lr, "finetune.repeats": repeats,
    } | under("finetune", **more)  # fmt: skip


def decoded(width: int, depth: int, heads: int) -> Numbers:
    return under("model.decoder", width=width, depth=depth, heads=heads)


LONG = {"pretrain.epochs": 1601}
DROPPED = {
    "model__backbone__drop_path": 0.2, "head__dropout": 0.5, "optimizer__min_lr": 1e-5,
}  # fmt: skip
SSV2 = (
    K400
    | {"data.train.stride": 2, "finetune.views.clips": 2, "finetune.augment.flip": 0.0}
    | tuned(50, 512, 5e-4, 1, head__classes=174, data__train__sampling="segments-floor")
    | under("finetune.data", val__sampling="segments", train__stride=1, val__stride=1)
    # The paper's table 11; there is no code.
    | under("probe", kind="linear", epochs=100, warmup__epochs=10, batch__global=1024)
    | under("probe.optimizer", name="sgd", base_lr=0.1, momentum=0.9, weight_decay=0.0)
    | under("probe.augment", name="multi-scale-crop", scales=[1.0, 0.875, 0.75, 0.66],
            max_distort=1, flip=0.0, interpolation="bilinear")
)  # fmt: skip
UCF = (
    K400
    | {"pretrain.masker.ratio": 0.75, "pretrain.epochs": 3201, "pretrain.batch.global": 192}
    | {"pretrain.optimizer.base_lr": 3e-4}
    | tuned(100, 128, 5e-4, layer_decay=0.7, head__classes=101, **DROPPED)
)
# The paper's section 7; UCF101's script for what it leaves out.
HMDB = (
    UCF
    | {"data.train.stride": 2, "pretrain.epochs": 4800, "finetune.views.clips": 10}
    | tuned(50, 128, 1e-3, head__classes=51)
)

# --- VideoMAEv2 -----------------------------------------------------------------------------------

V2_B = (
    K400
    | under("pretrain.decoder_masker", name="running-cell", ratio=0.5)
    | under("pretrain", repeats=4, repeat_from="same-frames", epochs=200, warmup__epochs=20,
            batch__global=32 * 32, optimizer__base_lr=1e-3)
    | tuned(90, 512, 7e-4)
)  # fmt: skip
V2_LONG = {"pretrain.epochs": 300, "pretrain.warmup.epochs": 30}
V2_L = (
    V2_B | V2_LONG | decoded(512, 4, 8)
    | {"model.backbone.size": "large", "pretrain.batch.global": 32 * 48}
    | tuned(35, 192, 2e-3, model__backbone__drop_path=0.2)
)  # fmt: skip
V2_H = (
    V2_B | V2_LONG | decoded(512, 4, 8)
    | {"model.backbone.size": "huge", "pretrain.batch.global": 32 * 64}
    # VideoMAE's ViT-H: version 2's script was not at hand, as the recipe says.
    | tuned(50, 512, 1e-3, **DROPPED)
)  # fmt: skip
V2_G = (
    V2_B | V2_LONG | decoded(512, 4, 8)
    | under("model.backbone", width=1408, depth=40, heads=16, mlp_ratio=48 / 11, patch=[2, 14, 14])
    | under("pretrain", batch__global=32 * 64, optimizer__base_lr=6e-4, clip_grad=0.02)
)  # fmt: skip

# --- mae_st ---------------------------------------------------------------------------------------

MAE_ST = (
    under("model.backbone", name="video-vit", size="large", patch=[2, 16, 16], mlp_ratio=4.0,
          qkv_bias="all", class_token=True, positions="learned-separable", init="mae-st",
          norm_eps=None, drop_path=0.0)
    | under("model.decoder", name="vit", width=512, depth=4, heads=16, mlp_ratio=4.0,
            qkv_bias="all", embed_bias=True, class_token=True, positions="learned-separable",
            init="mae-st", norm_eps=None)
    | {"data.size": 224, "data.stats": {"mean": [0.45] * 3, "std": [0.225] * 3}}
    | under("data.train", frames=16, stride=4, sampling="timed", rate=30.0)
    | under("data.val", stride=4, sampling="timed", rate=30.0)
    | under("pretrain.masker", name="random", ratio=0.9, rounding="keep")
    | under("pretrain.target", name="norm-pixel", frames=8, space="normalized",
            statistics="joint", eps="inside", loss="mse")
    | under("pretrain.augment", name="random-resized-crop", scale=[0.5, 1.0],
            ratio=THREE_QUARTERS_TO, flip=0.5, interpolation="bilinear-aliased")
    | under("pretrain", repeats=4, repeat_from="new-clip", epochs=100, warmup__epochs=5,
            warmup__endpoint=False, batch__global=512, clip_grad=0.02, precision="fp32",
            loss_on="hidden")
    | adamw("pretrain", 1.6e-3, [0.9, 0.95], 0.05, decay_tokens=True, min_lr=0.0,
            lr_counts_repeats=False)
    | under("finetune", model__backbone__drop_path=0.2, rand_augment="rand-m7-mstd0.5-inc1",
            rand_augment_on="frames", rand_augment_fill="gray", erase=0.25, mixup=0.8, cutmix=1.0,
            mix_probability=1.0, label_smoothing=0.1, repeats=2, repeat_from="new-clip",
            epochs=50, warmup__epochs=5, layer_decay=0.75, clip_grad=5.0, pool="mean",
            norm="pretrained", positions="trainable", head__classes=400, head__dropout=0.3,
            head__init_std=2e-5, precision="fp32")
    | under("finetune.augment", name="random-resized-crop", scale=[0.08, 1.0],
            ratio=THREE_QUARTERS_TO, flip=0.5, interpolation="bilinear-aliased")
    | under("finetune.optimizer", name="adamw", base_lr=2.4e-3, weight_decay=0.05,
            lr_counts_repeats=True)
    | under("finetune.views", clips=10, crops=3)
)  # fmt: skip

# VideoMAE-Action-Detection 15615db, scripts/ava and the defaults of run_class_finetuning.py, by the
# names of its files that the recipe's comments give (shared/facts/ava.md has them line by line).
AVA = (
    under("model.backbone", name="video-vit", patch=[2, 16, 16], qkv_bias="qv", class_token=False,
          positions="sincos-1d", init="videomae")
    | under("data.train", frames=16, stride=4, sampling="centered", rate=25, classes=80)
    | under("data.val", stride=4, sampling="centered", rate=25, classes=80, min_score=0.8)
    | {"data.size": 224}
    | {"data.stats": {"mean": [122.7717 / 255, 115.9465 / 255, 102.9801 / 255], "std": [0.225] * 3}}
    | under("finetune", model__backbone__drop_path=0.2, own_stats=True, positions="fixed",
            warmup__epochs=5, warmup__endpoint=True, batch__global=128, head__kind="detection",
            head__classes=80, head__init_scale=0.001, validate__epochs=10)
    | under("finetune.augment", name="fixed-crop", enlarge=256 / 224, hsv=[10, 26, 26], flip=0.5,
            interpolation="bilinear-aliased")
    | under("finetune.boxes", bins=7, aligned=False, inclusive=True, loss="sum", most=100,
            widen=[0.1, 0.05], short=256, person_score=True, dialect="alphaction")
    | adamw("finetune", 2.5e-4, [0.9, 0.999], 0.05, min_lr=1e-6, min_lr_scaled=True)
)  # fmt: skip
SIZE_OF = {"s": "small", "b": "base", "l": "large", "h": "huge"}
# open-mmlab/mmaction2 4d6c934, configs/detection/videomae.
AVA_KINETICS = (
    {key: value for key, value in AVA.items() if key != "finetune.head.init_scale"}
    | under("data.train", rate=30, first=-32, jitter=True, min_score=0.9, or_best=True, iou=0.9,
            ask="both")
    | under("data.val", rate=30, first=-32, min_score=0.9, or_best=True)
    | {"model.backbone.size": "base", "data.size": 256, "data.stats": "imagenet"}
    | under("finetune", own_stats=False, norm="pretrained", epochs=20, warmup__epochs=5,
            batch__global=64, layer_decay=0.75, clip_grad=40, head__dropout=0.5,
            head__init_std=0.0485)
    | under("finetune.augment", enlarge=1.0, enlarge_most=1.25, hsv=None)
    | under("finetune.boxes", bins=8, aligned=True, inclusive=False, jitter=None, most=32,
            negatives=False, loss="mean", dropout="bins", widen=[0.0, 0.0], short=256,
            person_score=False, dialect="mmaction")
    | {"finetune.optimizer.base_lr": 1.25e-4 * 256 / 64}
)  # fmt: skip
SOURCES: dict[str, Numbers] = {
    "mae_in1k_vit_b": MAE_B,
    "mae_in1k_vit_b_800": MAE_B | {"pretrain.epochs": 800},  # PRETRAIN.md's command
    "mae_in1k_vit_b_dvae": {
        key: value for key, value in MAE_B.items() if not key.startswith("pretrain.target")
    } | under("pretrain.target", name="dvae-token", vocabulary=8192, stride=8),  # section 4.1
    "mae_in1k_vit_l": MAE_L,
    "mae_in1k_vit_h": MAE_H,
    "mae_scratch_vit_b": SCRATCH,
    "mae_scratch_vit_l": SCRATCH | SCRATCH_LARGE | {"model.backbone.size": "large"},
    "mae_scratch_vit_h": SCRATCH
    | SCRATCH_LARGE
    | {"model.backbone.size": "huge", "model.backbone.patch": 14},
    "mae_st_k400": MAE_ST,
    # 800 effective epochs, of which 120 are warm-up (the paper's table 5, mae_st's issue 9).
    "mae_st_k400_800": MAE_ST | {"pretrain.epochs": 800 / 4, "pretrain.warmup.epochs": 120 / 4},
    "videomae_k400": K400,
    "videomae_k400_b1600": K400 | LONG | tuned(75, 384, 5e-4),
    "videomae_k400_s": K400 | LONG | decoded(192, 4, 3) | tuned(150, 384, 5e-4)
    | {"model.backbone.size": "small", "pretrain.batch.global": 32 * 32},
    "videomae_k400_l": K400 | LONG | decoded(512, 12, 8) | tuned(35, 128, 2e-3)
    | {"model.backbone.size": "large", "pretrain.batch.global": 64 * 8},
    "videomae_k400_h": K400 | LONG | decoded(640, 12, 8) | tuned(50, 512, 1e-3, **DROPPED)
    | {"model.backbone.size": "huge", "pretrain.batch.global": 64 * 16},
    "videomae_ssv2": SSV2,
    "videomae_ssv2_b2400": SSV2 | {"pretrain.epochs": 2401} | tuned(30, 384, 5e-4),
    "videomae_ssv2_s2400": SSV2 | {"pretrain.epochs": 2401} | decoded(192, 4, 3)
    | tuned(40, 384, 1e-3, layer_decay=0.7)
    | {"model.backbone.size": "small", "pretrain.batch.global": 32 * 32},
    "videomae_ucf101": UCF,
    "videomae_hmdb51": HMDB,
    "videomae_v2_b": V2_B,
    "videomae_v2_l": V2_L,
    "videomae_v2_h": V2_H,
    "videomae_v2_g": V2_G,
    # DALL-E (arXiv 2102.12092), appendix A.2 and A.3.
    "dvae_dalle": under(
        "tokenizer", steps=3_000_000, batch__global=512, loss="logit-laplace",
        dvae__vocabulary=8192, dvae__width=256, dvae__init_width=128, dvae__groups=4,
        dvae__blocks=2, temperature__start=1.0, temperature__end=1 / 16, temperature__steps=150_000,
        kl_weight__start=0.0, kl_weight__end=6.6, kl_weight__steps=5000,
    ) | adamw("tokenizer", 1e-4 / 2, [0.9, 0.999], 1e-4, min_lr=1.25e-6)
    | {"data.size": 256},
    # VideoMAE on AVA (shared/facts/ava.md: VideoMAE-Action-Detection's scripts/ava; the paper's
    # table 12), and mmaction2's on AVA-Kinetics.
    **{
        f"videomae_ava_{size}{labels}": AVA
        | under("finetune", epochs=epochs, optimizer__base_lr=lr, layer_decay=decay)
        | {"model.backbone.size": SIZE_OF[size], "finetune.norm": norm}
        for labels, norm, rows in (
            ("", "pretrained", {
                "s": (30, 1e-3, 0.6), "b": (30, 2.5e-4, 0.75), "l": (30, 2.5e-4, 0.75),
                "h": (20, 5e-4, 0.8),
            }),
            ("_labels", "fresh", {
                "s": (30, 5e-4, 0.6), "b": (30, 5e-4, 0.75), "l": (20, 5e-4, 0.8),
                "h": (20, 5e-4, 0.8),
            }),
        )
        for size, (epochs, lr, decay) in rows.items()
    },
    "videomae_ava_kinetics_b": AVA_KINETICS,
    # DINO's nearest neighbors (arXiv 2104.14294): 20, temperature 0.07, center crops of 256 to 224.
    **dict.fromkeys(
        ("compare_probe", "compare_dino", "compare_mae", "compare_mocov3", "compare_supervised"),
        under("probe", kind="knn", knn__k=20, knn__temperature=0.07, views__enlarge=256 / 224,
              pool="auto"),
    ),
    # Its class token was not trained.
    "compare_beit": under("probe", kind="knn", knn__k=20, knn__temperature=0.07, pool="mean",
                          views__enlarge=256 / 224),
}  # fmt: skip

# Ours: they are of no paper. Sweeps are held to theirs in tests/ablate.
OWN = (
    "drawn_images", "drawn_videos", "dvae_tiny", "mae_cifar10", "quickstart", "quickstart_video",
    "tiny_actions", "tiny_images", "tiny_videos",
)  # fmt: skip

# What the recipe has, and a word of the comment in its file (or a parent's) that says so.
Departure = tuple[Any, str]
_LAST_EPOCH = "script says 801"
_MAE_ST: dict[str, Departure] = {
    "pretrain.augment.interpolation": ("bilinear", "with antialias"),
    "finetune.augment.interpolation": ("bilinear", "with antialias"),
    "finetune.views.clips": (7, "the code tests 10 x 3"),
}
DEPARTURES: dict[str, dict[str, Departure]] = {
    "mae_st_k400": _MAE_ST,
    "mae_st_k400_800": _MAE_ST,
    # One epoch of warm-up and cosine more than is used: checkpoint-799 is fine-tuned.
    **{
        name: {"pretrain.epochs": (epochs, _LAST_EPOCH)}
        for name, epochs in {
            "videomae_k400": 800, "videomae_k400_b1600": 1600, "videomae_k400_s": 1600,
            "videomae_k400_l": 1600, "videomae_k400_h": 1600, "videomae_ssv2": 800,
            "videomae_ssv2_b2400": 2400, "videomae_ssv2_s2400": 2400,
        }.items()
    },
    "videomae_ucf101": {"pretrain.epochs": (3200, "script says 3201")},
}  # fmt: skip

# What a recipe writes and no source has, with a word of the comment that says so.
_SSV2 = dict.fromkeys(
    (
        "probe.data.train.sampling",
        "probe.data.train.stride",
        "probe.data.val.sampling",
        "probe.data.val.stride",
        "probe.protocol",
        "probe.pool",
        "probe.warmup.endpoint",
        "probe.optimizer.min_lr",
        "probe.views.clips",
        "probe.views.crops",
        "probe.views.interpolation",
        "probe.views.resize",
    ),
    "It does not say which frames, test views and pooling",
) | {"probe.pixels": "so wide that SGD at this rate does not settle"}
_BATCH = {
    "finetune.batch.global": "not given: 2 for each GPU",
    "finetune.views.interpolation": "with antialias",
}
UNSOURCED: dict[str, dict[str, str]] = {
    "mae_st_k400": _BATCH,
    "mae_st_k400_800": _BATCH,
    "videomae_ssv2": _SSV2,
    "videomae_ssv2_b2400": _SSV2,
    "videomae_ssv2_s2400": _SSV2,
    "dvae_dalle": {"tokenizer.augment.name": "ours: the paper's listing 1 is a crop of its own"},
}  # fmt: skip
