"""The formats that maekit reads and writes, as key maps; each is recognized by its keys.

Sources of the names: facebookresearch/mae models_mae.py; MCG-NJU/VideoMAE modeling_pretrain.py and
modeling_finetune.py (VideoMAEv2 has the same); facebookresearch/mae_st models_mae.py;
huggingface/transformers convert_vit_mae_to_pytorch.py and convert_videomae_to_pytorch.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from maekit.weights.header import ClassifierHeader, Norm, Pool
from maekit.weights.keymap import KeyMap, Rule, block, same

Family = Literal["mae", "videomae", "mae_st", "slowfast"]
# Learned positions apart in space and time, and a class token: mae_st's own code, and PySlowFast,
# in which its published models were trained (FINETUNE.md).
SEPARABLE: tuple[Family, ...] = ("mae_st", "slowfast")
ENCODER, DECODER = "backbone.transformer.{i}", "decoder.blocks.{i}"
# Wrappers of modules leave their names before the keys: torch.compile, DistributedDataParallel.
COMPILED, PARALLEL = "_orig_mod.", "module."
# Whole models in which an encoder may stand (VideoMAE, run_class_finetuning.py, strips the first
# two).
OUTER = ("", "backbone.", "encoder.", "model.")
_QV = ("q_bias", "v_bias")
BIASES = ("attn.qkv.bias", "attn.q_bias", "attn.v_bias")
MOCO, MOCO_REST = "base_encoder.", ("momentum_encoder.", "predictor.")


class Layout(NamedTuple):
    """The order of a classifier's parts, as in ``ClassifierHeader``; a format has its own keys."""

    pool: Pool
    norm: Norm
    batch_norm: bool = False
    boxes: bool = False  # a detector: tokens are normalized, averaged over time, pooled in boxes

    @classmethod
    def of(cls, described: ClassifierHeader) -> Layout:
        """Return the layout of a classifier of ours."""
        boxes = described.roi is not None
        return cls(described.pool, described.norm, described.batch_norm, boxes)


@dataclass(frozen=True)
class Format:
    """A format under one spelling of its keys.

    Attributes:
        name: what the command line calls it.
        title: for people.
        family: whose conventions the numbers follow.
        keys: the map between its names and ours.
        layout: of a classifier; None: no head is in such files.
    """

    name: str
    title: str
    family: Family
    keys: KeyMap
    layout: Layout | None = None

    @property
    def biased(self) -> bool:
        """Whether its attention has biases."""
        return any(rule.ours.endswith(BIASES) for rule in self.keys.encoder)


class FormatMatch(NamedTuple):
    """A file's keys seen as one format's.

    Attributes:
        rules: what a whole file of this format and depth holds.
        names: the format's key to the file's own.
        missing: keys that the file lacks, as it would spell them.
        unexpected: the file's keys without a place.
        aside: what is not taken, and why.
    """

    format: Format
    rules: list[Rule]
    names: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    aside: tuple[str, ...]


def _plain(ours: str, theirs: str, *, bias: Literal["all", "qv"]) -> tuple[Rule, ...]:
    """Return the rules of a block of timm 0.3.2, on which MAE and VideoMAE are built."""
    kinds = ("qkv.weight", "qkv.bias") if bias == "all" else ("qkv.weight", *_QV)
    attention = [Rule(f"{ours}.attn.{kind}", (f"{theirs}.attn.{kind}",)) for kind in kinds]
    return block(ours, _timm_names(theirs), attention)


def _split(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of a block of mae_st (util/video_vit.py).

    They are as timm's, with query, key and value apart.
    """
    attention = [
        Rule(f"{ours}.attn.qkv.{kind}", tuple(f"{theirs}.attn.{part}.{kind}" for part in "qkv"))
        for kind in ("weight", "bias")
    ]
    return block(ours, _timm_names(theirs), attention)


def _timm_names(theirs: str) -> dict[Literal["norm1", "proj", "norm2", "fc1", "fc2"], str]:
    return {
        "norm1": f"{theirs}.norm1",
        "proj": f"{theirs}.attn.proj",
        "norm2": f"{theirs}.norm2",
        "fc1": f"{theirs}.mlp.fc1",
        "fc2": f"{theirs}.mlp.fc2",
    }


def _transformers(ours: str, theirs: str, *, bias: Literal["all", "qv"]) -> tuple[Rule, ...]:
    """Return the rules of a block as transformers' converters and versions before 5 wrote it."""
    inner = f"{theirs}.attention.attention"
    parts = ("query", "key", "value")
    attention = [Rule(f"{ours}.attn.qkv.weight", tuple(f"{inner}.{part}.weight" for part in parts))]
    if bias == "all":
        names = tuple(f"{inner}.{part}.bias" for part in parts)
        attention.append(Rule(f"{ours}.attn.qkv.bias", names))
    else:
        attention += [Rule(f"{ours}.attn.{kind}", (f"{inner}.{kind}",)) for kind in _QV]
    names_of = {
        "norm1": f"{theirs}.layernorm_before",
        "proj": f"{theirs}.attention.output.dense",
        "norm2": f"{theirs}.layernorm_after",
        "fc1": f"{theirs}.intermediate.dense",
        "fc2": f"{theirs}.output.dense",
    }
    return block(ours, names_of, attention)  # type: ignore[arg-type]


_CLASS_TOKEN, _TABLE = "backbone.class_token", "backbone.positions.table"
_PATCH = "backbone.patch_embed"

MAE = KeyMap(
    encoder=(
        Rule(_CLASS_TOKEN, ("cls_token",)),
        Rule(_TABLE, ("pos_embed",)),
        Rule(f"{_PATCH}.weight", ("patch_embed.proj.weight",), frame=True),
        Rule(f"{_PATCH}.bias", ("patch_embed.proj.bias",)),
        *_plain(ENCODER, "blocks.{i}", bias="all"),
        *same("backbone.norm", "norm"),
    ),
    decoder=(
        Rule("decoder.mask_token", ("mask_token",)),
        Rule("decoder.positions.table", ("decoder_pos_embed",)),
        *same("decoder.embed", "decoder_embed"),
        *_plain(DECODER, "decoder_blocks.{i}", bias="all"),
        *same("decoder.norm", "decoder_norm"),
        *same("decoder.head", "decoder_pred"),
    ),
)


def _videomae_encoder(prefix: str) -> tuple[Rule, ...]:
    return (
        *same(_PATCH, f"{prefix}patch_embed.proj"),
        *_plain(ENCODER, f"{prefix}blocks.{{i}}", bias="qv"),
        *same("backbone.norm", f"{prefix}norm"),
    )


VIDEOMAE_ENCODER = KeyMap(_videomae_encoder(""))
VIDEOMAE = KeyMap(
    encoder=_videomae_encoder("encoder."),
    decoder=(
        Rule("decoder.mask_token", ("mask_token",)),
        Rule("decoder.embed.weight", ("encoder_to_decoder.weight",)),
        *_plain(DECODER, "decoder.blocks.{i}", bias="qv"),
        *same("decoder.norm", "decoder.norm"),
        *same("decoder.head", "decoder.head"),
    ),
)

MAE_ST = KeyMap(
    encoder=(
        Rule(_CLASS_TOKEN, ("cls_token",)),
        Rule("backbone.positions.spatial", ("pos_embed_spatial",)),
        Rule("backbone.positions.temporal", ("pos_embed_temporal",)),
        Rule("backbone.positions.prefix", ("pos_embed_class",)),
        *same(_PATCH, "patch_embed.proj"),
        *_split(ENCODER, "blocks.{i}"),
        *same("backbone.norm", "norm"),
    ),
    decoder=(
        Rule("decoder.class_token", ("decoder_cls_token",)),
        Rule("decoder.mask_token", ("mask_token",)),
        Rule("decoder.positions.spatial", ("decoder_pos_embed_spatial",)),
        Rule("decoder.positions.temporal", ("decoder_pos_embed_temporal",)),
        Rule("decoder.positions.prefix", ("decoder_pos_embed_class",)),
        *same("decoder.embed", "decoder_embed"),
        *_split(DECODER, "decoder_blocks.{i}"),
        *same("decoder.norm", "decoder_norm"),
        *same("decoder.head", "decoder_pred"),
    ),
)

# slowfast/models/masked.py and head_helper.py, MSSeparateHead; facebookresearch/mae_st#17 lists the
# keys. The decoder gets the encoder's class token.
_SLOWFAST = "pred_head.transforms.0"
SLOWFAST = KeyMap(
    encoder=MAE_ST.encoder,
    decoder=(
        Rule("decoder.mask_token", ("mask_token",)),
        Rule("decoder.positions.spatial", ("dec_pos_embed_spatial",)),
        Rule("decoder.positions.temporal", ("dec_pos_embed_temporal",)),
        Rule("decoder.positions.prefix", ("dec_pos_embed_class",)),
        *same("decoder.embed", "decoder_embed"),
        *_split(DECODER, f"{_SLOWFAST}.{{i}}"),
        *same("decoder.norm", f"{_SLOWFAST}.{{n}}"),
        *same("decoder.head", "pred_head.projections.0"),
    ),
)

HF_MAE = KeyMap(
    encoder=(
        Rule(_CLASS_TOKEN, ("vit.embeddings.cls_token",)),
        Rule(_TABLE, ("vit.embeddings.position_embeddings",)),
        Rule(
            f"{_PATCH}.weight", ("vit.embeddings.patch_embeddings.projection.weight",), frame=True
        ),
        Rule(f"{_PATCH}.bias", ("vit.embeddings.patch_embeddings.projection.bias",)),
        *_transformers(ENCODER, "vit.encoder.layer.{i}", bias="all"),
        *same("backbone.norm", "vit.layernorm"),
    ),
    decoder=(
        Rule("decoder.mask_token", ("decoder.mask_token",)),
        Rule("decoder.positions.table", ("decoder.decoder_pos_embed",)),
        *same("decoder.embed", "decoder.decoder_embed"),
        *_transformers(DECODER, "decoder.decoder_layers.{i}", bias="all"),
        *same("decoder.norm", "decoder.decoder_norm"),
        *same("decoder.head", "decoder.decoder_pred"),
    ),
)

HF_VIDEOMAE = KeyMap(
    encoder=(
        *same(_PATCH, "videomae.embeddings.patch_embeddings.projection"),
        *_transformers(ENCODER, "videomae.encoder.layer.{i}", bias="qv"),
        *same("backbone.norm", "videomae.layernorm"),
    ),
    decoder=(
        Rule("decoder.mask_token", ("mask_token",)),
        Rule("decoder.embed.weight", ("encoder_to_decoder.weight",)),
        *_transformers(DECODER, "decoder.decoder_layers.{i}", bias="qv"),
        *same("decoder.norm", "decoder.norm"),
        *same("decoder.head", "decoder.head"),
    ),
)


def _renamed(key: str, words: Mapping[str, str]) -> str:
    for old, new in words.items():
        key = key.replace(old, new)
    return key


# transformers 5 renamed the modules of ViTMAE, and gave VideoMAE's attention ordinary biases; its
# files keep the old names, but for the decoder's layers of ViTMAE.
_MODULES_5 = {
    "vit.encoder.layer.": "vit.layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_SAVED_BY_5 = {"decoder.decoder_layers.": "decoder.decoder_encoder.layer."}
_BIASES_5 = {"attention.q_bias": "attention.query.bias", "attention.v_bias": "attention.value.bias"}


_NORM = "backbone.norm."
_COUNTS = ("running_mean", "running_var", "num_batches_tracked")
_MEAN, _MEAN_OWN, _CLS = (
    Layout("mean", "fresh"),
    Layout("mean", "pretrained"),
    Layout("cls", "pretrained"),
)
# A family's classifiers. MAE: models_vit.py, with --global_pool or --cls_token; its linear probes
# put a batch norm without scale and shift before the linear layer (main_linprobe.py). VideoMAE:
# modeling_finetune.py, always pooled there; VideoMAE-Action-Detection's keeps the encoder's norm.
# mae_st: models_vit.py, whose norm is behind the mean.
LAYOUTS: Mapping[Family, tuple[Layout, ...]] = {
    "mae": (_MEAN, _CLS, _MEAN._replace(batch_norm=True), _CLS._replace(batch_norm=True)),
    "videomae": (_MEAN, _MEAN_OWN._replace(boxes=True)),
    "mae_st": (_MEAN_OWN,),
    "slowfast": (),
}


def classifier_keys(encoder: KeyMap, layout: Layout, head: str = "head") -> KeyMap:
    """Return the map of a classifier: without the encoder's norm where the head's is another.

    Args:
        encoder: the map of its encoder.
        layout: of the head.
        head: what the last layer is called.
    """
    rules: list[Rule] = []
    kept = encoder.encoder
    if layout.norm == "fresh":
        kept = tuple(rule for rule in kept if not rule.ours.startswith(_NORM))
        rules += same("classifier.fc_norm", "fc_norm")
    if layout.batch_norm:
        rules += same("classifier.head.batch_norm", f"{head}.0", _COUNTS)
        head = f"{head}.1"
    return KeyMap(kept, head=(*rules, *same("classifier.head.linear", head)))


def _formats() -> Iterator[Format]:
    mae, videomae, mae_st = "facebookresearch/mae", "MCG-NJU/VideoMAE", "facebookresearch/mae_st"
    yield Format("mae", f"{mae} (or timm's plain ViT)", "mae", MAE)
    yield Format("videomae", videomae, "videomae", VIDEOMAE)
    yield Format("videomae", f"{videomae} encoder", "videomae", VIDEOMAE_ENCODER)
    yield Format("mae_st", mae_st, "mae_st", MAE_ST)
    yield Format("mae_st", f"{mae_st}'s published models (PySlowFast)", "slowfast", SLOWFAST)
    tuned: tuple[tuple[str, Family, str, KeyMap], ...] = (
        ("mae", "mae", f"{mae} (or timm's plain ViT)", MAE),
        ("videomae", "videomae", videomae, VIDEOMAE_ENCODER),
        ("mae_st", "mae_st", mae_st, MAE_ST),
    )
    for name, family, title, keys in tuned:
        for layout in LAYOUTS[family]:
            what = "linear probe" if layout.batch_norm else "classifier"
            what = "detector (VideoMAE-Action-Detection)" if layout.boxes else what
            heads = classifier_keys(keys, layout)
            yield Format(name, f"{title}, {what}", family, heads, layout)
    theirs: tuple[tuple[str, Family, str, KeyMap, tuple[dict[str, str], ...]], ...] = (
        ("ViTMAE", "mae", "vit.", HF_MAE, ({}, _SAVED_BY_5, _MODULES_5)),
        ("VideoMAE", "videomae", "videomae.", HF_VIDEOMAE, ({}, _BIASES_5)),
    )
    for model, family, prefix, keys, spellings in theirs:
        spelled_so = [
            keys.respelled(lambda key, words=words: _renamed(key, words))  # type: ignore[misc]
            for words in spellings
        ]
        for spelled in [*spelled_so, *map(without_biases, spelled_so)]:
            title = f"Hugging Face {model}"
            yield Format("hf", title, family, spelled)
            bare = spelled.respelled(lambda key, prefix=prefix: key.removeprefix(prefix))  # type: ignore[misc]
            yield Format("hf", f"{title} encoder", family, KeyMap(bare.encoder))
            layout = _CLS if family == "mae" else _MEAN
            heads = classifier_keys(spelled, layout, "classifier")
            yield Format("hf", f"{title}'s classifier", family, heads, layout)


def without_biases(keys: KeyMap) -> KeyMap:
    """Return the map of a model whose attention has none (transformers' qkv_bias: false)."""
    encoder, decoder = (
        tuple(rule for rule in rules if not rule.ours.endswith(BIASES))
        for rules in (keys.encoder, keys.decoder)
    )
    return KeyMap(encoder, decoder)


FORMATS = tuple(_formats())


def recognize(keys: Collection[str]) -> FormatMatch | None:
    """Find the format that explains a file's keys best; None where none explains half."""
    plain = {_unwrapped(key): key for key in keys}
    if len(plain) < len(keys):  # a model and its wrapped copy: only the names differ
        plain = {key: key for key in keys}
    taken, aside = _without_moco(plain)
    best: tuple[tuple[int, int], FormatMatch] | None = None
    for outer in OUTER:
        inner = {key.removeprefix(outer): name for key, name in taken.items()}
        if len(inner) < len(taken) or (outer and inner.keys() == taken.keys()):
            continue
        for each in FORMATS:
            seen = _as(each, inner, aside)
            matched = len(seen.names)
            # Of two that explain it alike, the one with more of its keys: half a head is a head.
            score = matched - len(seen.missing), matched
            if 2 * matched > len(inner) and (best is None or score > best[0]):
                best = (score, seen)
    return None if best is None else best[1]


def _unwrapped(key: str) -> str:
    return key.replace(COMPILED, "").removeprefix(PARALLEL)


def _without_moco(keys: dict[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Keep one of the two copies of its encoder that MoCo v3 trains, without its heads."""
    base = {key for key in keys if key.startswith(MOCO)}
    rest = {key for key in keys if key.startswith(MOCO_REST)}
    heads = {key for key in base if key.startswith(f"{MOCO}head.")}
    if not base or not rest:
        return keys, ()
    reasons = {
        "the projection head of MoCo v3, for its training only": heads,
        "the other copy of MoCo v3's encoder and its predictor, for its training only": rest,
    }
    aside = tuple(f"{len(names)} tensors, {why}" for why, names in reasons.items() if names)
    aside = ("MoCo v3: the base encoder is taken", *aside)
    taken = {key.removeprefix(MOCO): keys[key] for key in keys if key not in heads | rest}
    return taken, aside


def _as(each: Format, keys: dict[str, str], aside: tuple[str, ...]) -> FormatMatch:
    """Match keys with a format's; ``keys`` maps a plain name to the file's own."""
    rules = each.keys.rules(keys)
    expected = [name for rule in rules for name in rule.theirs]
    names = {name: keys[name] for name in expected if name in keys}
    # A file may spell every key with a prefix: what is missing is named as it would be there.
    before = {own.removesuffix(name) for name, own in names.items() if own.endswith(name)}
    prefix = before.pop() if len(before) == 1 else ""
    missing = tuple(f"{prefix}{name}" for name in expected if name not in keys)
    unexpected = tuple(own for name, own in keys.items() if name not in names)
    return FormatMatch(each, rules, names, missing, unexpected, aside)
