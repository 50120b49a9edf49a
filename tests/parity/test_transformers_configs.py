"""Folders of transformers in every configuration that its classes allow: equal to it, or refused.

Each model is made and saved by the installed transformers, with weights under which the norms'
epsilon, a bias or a table shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import IMAGENET, assert_agree, random_hidden, randomize, uneven_pixels
from torch import Tensor, nn

import maekit
from maekit.engine.build import load_model
from maekit.errors import MaekitError, WeightsError
from maekit.evaluate.classifier import load_classifier
from maekit.weights.export import export_mae, export_maekit
from maekit.weights.export_hf import export_hf
from maekit.weights.importer import Weights, open_weights

Config = dict[str, Any]
SIZES: Config = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 100,
    "decoder_hidden_size": 32, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 72, "image_size": 32, "patch_size": 8,
}  # fmt: skip
CLIP: Config = SIZES | {"num_frames": 4, "tubelet_size": 2, "use_mean_pooling": False}
# transformers' blocks run in float32 here as ours do; with the stream at 1e-3, what counts is a
# hundred times nearer to its epsilon than in a trained model.
TOLERANCE = 5e-5


def make(name: str, **settings: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{_family(name)}Config")(**settings)
    model: Any = getattr(transformers, name)(config)
    randomize(model.eval(), std=0.15, quiet=True)
    return model


def _family(name: str) -> str:
    return next(each for each in ("VideoMAE", "ViTMAE", "ViT") if name.startswith(each))


def saved(model: Any, folder: Path, **preprocessor: Any) -> str:
    model.save_pretrained(folder)
    said = {"image_mean": IMAGENET.mean, "image_std": IMAGENET.std} | preprocessor
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return f"hf:{folder}"


def pixels_for(model: Any, video: bool) -> Tensor:
    """Draw normalized pixels ``[B, C, T, H, W]``."""
    config = model.config
    sides = config.image_size
    height, width = (sides, sides) if isinstance(sides, int) else sides
    frames = config.num_frames if video else 1
    return uneven_pixels(2, config.num_channels, frames, height, width) * 4 - 2


CHANGES: list[Config] = [
    {},  # epsilon 1e-12
    {"layer_norm_eps": 1e-6},
    {"layer_norm_eps": 1e-5, "hidden_act": "gelu_python"},
    {"layer_norm_eps": 0.0, "norm_pix_loss": False},
    {"layer_norm_eps": 0.1},
    {"num_hidden_layers": 3, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 8},
    {"hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 37},
    {"decoder_hidden_size": 20, "decoder_intermediate_size": 11, "initializer_range": 0.1},
    {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2},
]
VIDEO: list[Config] = [
    {"qv_bias": False},
    {"image_size": [16, 40]},
    {"num_frames": 6, "tubelet_size": 3, "patch_size": 4, "image_size": [8, 12]},
    {"num_frames": 3, "tubelet_size": 1},
    {"num_channels": 1},
    {"num_channels": 5},
]
IMAGE: list[Config] = [
    {"qkv_bias": False},
    {"image_size": 40, "num_channels": 1, "norm_pix_loss": True},
    {"num_channels": 4, "norm_pix_loss": False},
    {"norm_pix_loss": True},
    {"image_size": [32, 32], "mask_ratio": 0.5},
]


@pytest.mark.parametrize("change", [*CHANGES, *VIDEO], ids=str)
def test_videomae_for_pre_training(change: Config, tmp_path: Path) -> None:
    theirs = make("VideoMAEForPreTraining", **CLIP | change)
    weights = open_weights(saved(theirs, tmp_path, **_of_channels(theirs)))
    ours, _ = load_model(weights)
    assert epsilons(ours) == epsilons(theirs)
    pixels = pixels_for(theirs, video=True)
    hidden = random_hidden(2, ours.grid.tokens, ours.grid.tokens * 2 // 3)
    with torch.no_grad():
        expected = theirs(pixels.transpose(1, 2), bool_masked_pos=hidden)
        whole = theirs.videomae(pixels.transpose(1, 2)).last_hidden_state
        out = ours(pixels, hidden)
        found = {"loss": out.loss, "pred": out.pred, "features": ours.encode(pixels)}
    wanted = {"loss": expected.loss, "pred": expected.logits, "features": whole}
    assert_agree(found, wanted, TOLERANCE)


def epsilons(model: nn.Module) -> list[float]:
    """Return what each layer norm adds, in the order in which they run.

    Beside VideoMAE's fixed positions, whose variance is a half, no output shows it.
    """
    return [module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)]


def _of_channels(model: Any) -> Config:
    channels = model.config.num_channels
    return {} if channels == 3 else {"image_mean": [0.4] * channels, "image_std": [0.3] * channels}


@pytest.mark.parametrize("change", [*CHANGES, *IMAGE], ids=str)
def test_vit_mae_for_pre_training(change: Config, tmp_path: Path) -> None:
    theirs = make("ViTMAEForPreTraining", **SIZES | change)
    with torch.no_grad():  # a fresh decoder of transformers' has no positions
        theirs.decoder.decoder_pos_embed.normal_(std=1e-3)
    weights = open_weights(saved(theirs, tmp_path, **_of_channels(theirs)))
    ours, _ = load_model(weights)
    assert epsilons(ours) == epsilons(theirs)
    pixels = pixels_for(theirs, video=False)
    tokens = ours.grid.tokens
    noise = torch.rand(2, tokens, generator=torch.Generator().manual_seed(1))
    keep = int(tokens * (1 - theirs.config.mask_ratio))
    kept = noise.argsort(1)[:, :keep]
    hidden = torch.ones(2, tokens, dtype=torch.bool).scatter(1, kept, value=False)
    with torch.no_grad():
        expected = theirs(pixels.squeeze(2), noise=noise)
        out = ours(pixels, hidden)
        found = {"loss": out.loss, "pred": out.pred, "features": ours.encode(pixels)}
        wanted = {
            "loss": expected.loss,
            "pred": expected.logits[hidden].reshape(2, tokens - keep, -1),
        }
        wanted["features"] = _whole(theirs.vit, pixels)
    assert_agree(found, wanted, TOLERANCE)


def _whole(vit: Any, pixels: Tensor) -> Tensor:
    """Features in raster order with nothing hidden."""
    vit.embeddings.config.mask_ratio = 0.0
    tokens = vit.embeddings.patch_embeddings.num_patches
    noise = torch.arange(tokens, dtype=torch.float32).expand(len(pixels), -1)
    found: Tensor = vit(pixels.squeeze(2), noise=noise).last_hidden_state
    return found


@pytest.mark.parametrize(
    "change",
    [
        {}, {"patch_size": [4, 8], "image_size": [16, 32]}, {"qkv_bias": False},
        # The table that transformers makes is for 4 x 4, the grid is 2 x 8: its own, as it stands.
        {"image_size": [16, 64]},
    ],
    ids=str,
)  # fmt: skip
def test_vit_mae_alone(change: Config, tmp_path: Path) -> None:
    theirs = make("ViTMAEModel", **SIZES | change)
    ours, _ = load_model(open_weights(saved(theirs, tmp_path)))
    pixels = pixels_for(theirs, video=False)
    with torch.no_grad():
        assert_agree(
            {"features": ours.encode(pixels)}, {"features": _whole(theirs, pixels)}, TOLERANCE
        )


@pytest.mark.parametrize(
    "change", [{}, {"patch_size": [4, 8], "image_size": [12, 24]}, {"qv_bias": False}], ids=str
)
def test_videomae_alone(change: Config, tmp_path: Path) -> None:
    theirs = make("VideoMAEModel", **CLIP | change)
    ours, _ = load_model(open_weights(saved(theirs, tmp_path)))
    pixels = pixels_for(theirs, video=True)
    with torch.no_grad():
        expected = theirs(pixels.transpose(1, 2)).last_hidden_state
        assert_agree({"features": ours.encode(pixels)}, {"features": expected}, TOLERANCE)


@pytest.mark.parametrize("change", [{}, {"layer_norm_eps": 1e-6, "num_channels": 1}], ids=str)
def test_videomae_for_video_classification(change: Config, tmp_path: Path) -> None:
    """Its norm behind the mean has an epsilon of its own; the encoder alone ends in it."""
    classes = {"id2label": {0: "up", 1: "down", 2: "left"}, "use_mean_pooling": True}
    theirs = make("VideoMAEForVideoClassification", **CLIP | classes | change)
    weights = open_weights(saved(theirs, tmp_path, **_of_channels(theirs)))
    assert weights.header.classifier is not None
    assert weights.header.classifier.outputs == ("up", "down", "left")
    pixels = pixels_for(theirs, video=True)
    export_maekit(weights, tmp_path / "own.safetensors")  # the header keeps what matters
    for source in (weights, tmp_path / "own.safetensors"):
        ours, _ = load_classifier(source)
        assert ours.fc_norm is not None
        assert ours.fc_norm.eps == theirs.fc_norm.eps == 1e-5
        with torch.no_grad():
            expected = theirs(pixels.transpose(1, 2)).logits
            assert_agree({"logits": ours(pixels)}, {"logits": expected}, TOLERANCE)
    encoder = maekit.load(tmp_path / "own.safetensors")
    assert epsilons(encoder)[-1] == 1e-5
    with torch.no_grad():
        tokens = theirs.fc_norm(theirs.videomae(pixels.transpose(1, 2)).last_hidden_state)
        assert_agree({"tokens": encoder.encode(pixels)}, {"tokens": tokens}, TOLERANCE)


def test_vit_for_image_classification(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    shared = {key: value for key, value in SIZES.items() if not key.startswith("decoder")}
    theirs: Any = ViTForImageClassification(ViTConfig(**shared, num_labels=3)).eval()
    randomize(theirs, std=0.15, quiet=True)
    ours, _ = load_classifier(open_weights(saved(theirs, tmp_path)))
    pixels = uneven_pixels(2, 3, 1, 32, 32) * 4 - 2
    with torch.no_grad():
        assert_agree(
            {"logits": ours(pixels)}, {"logits": theirs(pixels.squeeze(2)).logits}, TOLERANCE
        )


REFUSED: list[tuple[str, Config, str]] = [
    *[("VideoMAEModel", {"hidden_act": act}, f"hidden_act '{act}'")
      for act in ("relu", "gelu_new", "quick_gelu", "silu", "gelu_pytorch_tanh")],
    ("ViTMAEModel", {"hidden_act": "gelu_10"}, "hidden_act 'gelu_10'"),
    ("VideoMAEModel", {"use_mean_pooling": True}, "no norm behind the last block"),
    ("VideoMAEForPreTraining", {"use_mean_pooling": True}, "no norm behind the last block"),
    ("VideoMAEForVideoClassification", {}, "by the first of the clip's tokens"),
    ("VideoMAEModel", {"image_size": 30}, "does not divide into"),
    ("VideoMAEModel", {"num_frames": 5}, "does not divide into"),
    ("ViTMAEModel", {"image_size": 36}, "does not divide into"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "reason"), REFUSED, ids=str)
def test_what_maekit_does_not_compute_is_refused(
    name: str, change: Config, reason: str, tmp_path: Path
) -> None:
    settings = (CLIP if name.startswith("Video") else SIZES) | change
    with pytest.raises(WeightsError, match=reason) as refused:
        open_weights(saved(make(name, **settings), tmp_path))
    assert refused.value.exit_code == 3


def test_the_encoder_of_a_first_token_classifier_is_taken_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    theirs = make("VideoMAEForVideoClassification", **CLIP)
    weights = open_weights(saved(theirs, tmp_path), allow_missing=["classifier.*"])
    ours, _ = load_model(weights)
    pixels = pixels_for(theirs, video=True)
    with torch.no_grad():
        expected = theirs.videomae(pixels.transpose(1, 2)).last_hidden_state
        assert_agree({"features": ours.encode(pixels)}, {"features": expected}, TOLERANCE)


WRONG: list[tuple[str, Config]] = [
    ("hidden_size", {"hidden_size": 64}),
    ("num_hidden_layers", {"num_hidden_layers": 1}),
    ("intermediate_size", {"intermediate_size": 96}),
    ("decoder_num_hidden_layers", {"decoder_num_hidden_layers": 4}),
    ("num_channels", {"num_channels": 1}),
    ("patch_size", {"patch_size": 16}),
    ("tubelet_size", {"tubelet_size": 1}),
    ("qv_bias", {"qv_bias": False}),
    ("layer_norm_eps", {"layer_norm_eps": -1e-6}),
    ("use_mean_pooling", {"use_mean_pooling": True}),
]


@pytest.mark.parametrize(("key", "change"), WRONG, ids=str)
def test_a_config_of_another_model_is_refused_by_its_key(
    key: str, change: Config, tmp_path: Path
) -> None:
    source = saved(make("VideoMAEForPreTraining", **CLIP), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsError, match=key):
        open_weights(source)


def test_without_a_config_nothing_is_guessed(tmp_path: Path) -> None:
    for name, settings in (("VideoMAEForPreTraining", CLIP), ("ViTMAEModel", SIZES)):
        saved(make(name, **settings), tmp_path / name)
        (tmp_path / name / "config.json").unlink()
        with pytest.raises(WeightsError, match=r"no config\.json") as refused:
            open_weights(tmp_path / name / "model.safetensors")
        assert "hf:FOLDER" in str(refused.value.hint)


def test_keys_that_a_config_leaves_out_are_transformers_defaults(tmp_path: Path) -> None:
    """A class's own values may be left out of a file that transformers reads."""
    theirs = make("VideoMAEForPreTraining", **CLIP | {"num_attention_heads": 12})
    source = saved(theirs, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("layer_norm_eps", "num_attention_heads", "norm_pix_loss", "hidden_act", "qv_bias"):
        config.pop(key)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = open_weights(source)
    assert weights.header.backbone.written["norm_eps"] == 1e-12
    assert weights.header.backbone.written["heads"] == 12
    assert weights.header.target is not None
    assert weights.header.target.name == "norm-pixel"


def opened(folder: Path, **preprocessor: Any) -> Weights:
    theirs = make("VideoMAEForPreTraining", **CLIP | {"norm_pix_loss": False})
    return open_weights(saved(theirs, folder, **preprocessor))


@pytest.mark.parametrize(
    ("said", "mean", "std"),
    [
        ({"do_rescale": False}, 0.485 / 255, 0.229 / 255),
        ({"rescale_factor": 1 / 127.5}, 0.485 / 2, 0.229 / 2),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"do_normalize": False, "do_rescale": False}, 0.0, 1 / 255),
        ({"rescale_factor": 1 / 255}, 0.485, 0.229),
    ],
)
def test_statistics_are_what_the_preprocessor_does(
    said: Config, mean: float, std: float, tmp_path: Path
) -> None:
    """Theirs: (255 x factor - mean) / std of pixels x in [0, 1]."""
    header = opened(tmp_path, **said).header
    assert header.mean[0] == pytest.approx(mean, rel=1e-5)
    assert header.std[0] == pytest.approx(std, rel=1e-5)


def test_a_target_that_maekit_has_not_is_left_unknown(tmp_path: Path) -> None:
    """transformers takes pixels back with ImageNet's statistics, whatever they were made with."""
    assert opened(tmp_path).header.target is not None
    other = opened(tmp_path, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    assert other.header.target is None
    assert "ImageNet's mean and std" in "".join(other.report.notes)
    with pytest.raises(WeightsError, match="offset"):
        opened(tmp_path, offset=True)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "video_preprocessor_config.json"])
def test_either_name_of_a_preprocessor_is_read(name: str, tmp_path: Path) -> None:
    opened(tmp_path, image_mean=[0.1, 0.2, 0.3])
    (tmp_path / "preprocessor_config.json").rename(tmp_path / name)
    assert open_weights(f"hf:{tmp_path}").header.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("change", [{}, {"layer_norm_eps": 1e-5, "qv_bias": False}], ids=str)
def test_there_and_back_is_the_same_model(change: Config, tmp_path: Path) -> None:
    from transformers import VideoMAEForPreTraining

    theirs = make("VideoMAEForPreTraining", **CLIP | change)
    weights = open_weights(saved(theirs, tmp_path / "theirs"))
    written = export_hf(weights, tmp_path / "back")
    assert not any("decoder.norm" in note for note in written.notes)  # it is 1e-5 already
    again: Any = VideoMAEForPreTraining.from_pretrained(tmp_path / "back").eval()
    pixels = pixels_for(theirs, video=True).transpose(1, 2)
    hidden = random_hidden(2, 32, 20)
    with torch.no_grad():
        one, other = (each(pixels, bool_masked_pos=hidden).logits for each in (theirs, again))
    assert torch.equal(one, other)


def test_other_code_with_another_epsilon_is_told(tmp_path: Path) -> None:
    weights = open_weights(saved(make("ViTMAEForPreTraining", **SIZES), tmp_path / "theirs"))
    notes = " ".join(export_mae(weights, tmp_path / "mae.pth").notes)
    assert "encoder 1e-12" in notes


def test_an_epsilon_is_the_weights_own_where_no_recipe_says_it(tmp_path: Path) -> None:
    """Fine-tuning and further training go on with it; a recipe that says another is refused."""
    from maekit.engine.build import compatible_header

    weights = open_weights(saved(make("ViTMAEForPreTraining", **SIZES), tmp_path))
    found = weights.header
    for part in ("backbone", "decoder"):
        spec = getattr(found, part)
        unset = spec.with_options(spec.options.model_copy(update={"norm_eps": None}))
        asked = found.model_copy(update={part: unset})
        completed = compatible_header(found, asked, "weights").header
        assert getattr(completed, part).written["norm_eps"] == 1e-12
        papers = spec.with_options(spec.options.model_copy(update={"norm_eps": 1e-6}))
        with pytest.raises(MaekitError, match=rf"{part}.norm_eps: 1e-12 in the weights, 1e-06"):
            compatible_header(found, found.model_copy(update={part: papers}), "weights")
