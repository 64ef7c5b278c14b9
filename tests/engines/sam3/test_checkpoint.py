"""The map of names, against the reference's own list at full size, and against its own numbers on a small model."""

import re
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import Sam3VideoConfig, Sam3VideoModel

from backend.engines.sam3.checkpoint import MODULES, UNUSED, convert_checkpoint, is_original, rename_tensor
from backend.engines.sam3.detector import Sam3Detector, TextFeatures
from backend.engines.sam3.geometry import encode_geometry
from tests.engines.sam3 import original as original_numbers
from tests.engines.sam3 import tiny
from tests.engines.sam3.exemplars import ORIGINAL
from tests.engines.sam3.original import TWIN, normal

HERE = Path(__file__).parent


def listed() -> dict[str, Tensor]:
    """The tensors of the original sam3.pt, without memory."""
    found = {}
    for line in (HERE / "sam3_pt_shapes.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, shape, *dtype = line.split()
        for one in unfolded(name):
            sizes = [int(size) for size in shape.split("x")]
            found[one] = torch.empty(sizes, dtype=getattr(torch, dtype[0]) if dtype else None, device="meta")
    return found


def unfolded(name: str) -> list[str]:
    """The names that one with {0-3,5} stands for."""
    folded = re.search(r"{(.*)}", name)
    if not folded:
        return [name]
    ends = [[int(end) for end in part.split("-")] for part in folded[1].split(",")]
    return [name.replace(folded[0], str(n)) for n in chain.from_iterable(range(part[0], part[-1] + 1) for part in ends)]


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    return listed()


@pytest.fixture(scope="module")
def ours() -> dict[str, Tensor]:
    with torch.device("meta"):
        return Sam3VideoModel(Sam3VideoConfig()).state_dict()


def test_every_name_finds_its_place_and_every_place_its_name(original, ours):
    found = convert_checkpoint(original)
    assert found.keys() == ours.keys() - {TWIN}
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        name: tuple(ours[name].shape) for name in found
    }


def test_only_what_the_model_has_no_use_for_is_dropped(original):
    dropped = [name for name in original if UNUSED.match(name)]
    assert len(original) == 1465
    assert len(dropped) == 32 + 6
    assert {name.split(".")[-1] for name in dropped} == {"freqs_cis", "weight", "bias"}


def test_every_row_of_the_table_is_needed(original):
    for module in MODULES:
        assert any(f"{name}.".startswith(f"{module.original}.") for name in original), module.original


def test_queries_keys_and_values_are_the_thirds_in_order():
    packed = torch.arange(6.0)[:, None].repeat(1, 2)
    block = "detector.backbone.vision_backbone.trunk.blocks.7.attn.qkv.weight"
    layer = "detector.transformer.decoder.layers.1.ca_text.in_proj_bias"
    found = convert_checkpoint({block: packed, layer: packed[:, 0]})
    vision, words = "detector_model.vision_encoder.backbone.layers.7.attention", "text_cross_attn"
    for place, letter in enumerate("qkv"):
        assert torch.equal(found[f"{vision}.{letter}_proj.weight"], packed[2 * place : 2 * place + 2])
        name = f"detector_model.detr_decoder.layers.1.{words}.{letter}_proj.bias"
        assert torch.equal(found[name], packed[2 * place : 2 * place + 2, 0])


def test_the_class_token_goes_the_points_join_and_the_projection_turns():
    points = "tracker.sam_prompt_encoder.point_embeddings"
    found = convert_checkpoint(
        {
            "detector.backbone.vision_backbone.trunk.pos_embed": torch.arange(5.0).view(1, 5, 1),
            "detector.backbone.language_backbone.encoder.text_projection": torch.arange(6.0).view(2, 3),
            **{f"{points}.{n}.weight": torch.full((1, 2), float(n)) for n in (3, 1, 0, 2)},
        }
    )
    positions, projection, table = found.values()
    assert positions.flatten().tolist() == [1, 2, 3, 4]
    assert projection.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert table.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_a_name_that_nobody_knows_stays():
    tensors = {"detector.dreams.weight": torch.zeros(1), "epoch": torch.zeros(())}
    assert convert_checkpoint(tensors) == tensors
    assert rename_tensor("tracker.transformer.encoders.0.weight") == "tracker.transformer.encoders.0.weight"


def test_the_original_is_known_by_its_names(original, ours):
    assert is_original(original)
    assert not is_original(ours)


# What follows compares with numbers that the reference itself computed.


@pytest.fixture(scope="module")
def reference() -> dict[str, dict]:
    return original_numbers.read()


@pytest.fixture(scope="module")
def model(reference) -> Sam3VideoModel:
    return original_numbers.build_model(reference["shapes"])


@pytest.fixture(scope="module")
def same(reference):
    """Checks an output of ours against the sample of the reference's."""

    def check(name: str, ours: Tensor, tolerance: float = 1e-4) -> None:
        difference = original_numbers.relative_difference(ours, reference["outputs"][name])
        assert difference < tolerance, f"{name}: {difference:.2g} of the largest"

    return check


@pytest.fixture(scope="module")
def words(model) -> tuple[Tensor, Tensor]:
    """Features (2, 32, width) of two phrases, and their attention mask."""
    ids = torch.full((2, 32), 511)
    ids[0, :4], ids[1, :2] = torch.tensor([510, 5, 77, 400]), torch.tensor([510, 9])
    mask = torch.zeros(2, 32, dtype=torch.int64)
    mask[0, :5], mask[1, :3] = 1, 1
    found = model.detector_model.get_text_features(input_ids=ids, attention_mask=mask, return_dict=True)
    return found.pooler_output, mask


@pytest.fixture(scope="module")
def vision(model):
    return model.detector_model.get_vision_features(normal("pixels", (1, 3, 112, 112)).clamp(-1, 1))


@pytest.fixture(scope="module")
def views(model, vision) -> list[Tensor]:
    """The tracker's three levels of features (1, channels, side, side), finest first."""
    flat, _ = model.get_vision_features_for_tracker(vision_embeds=vision)
    return [level.permute(1, 2, 0).unflatten(2, 2 * [int(level.shape[0] ** 0.5)]) for level in flat]


def test_the_text_encoder_gives_the_numbers_of_the_reference(words, same):
    features, mask = words
    same("text", features[mask.bool()])


def test_the_vision_encoder_gives_the_numbers_of_the_reference(vision, views, same):
    for level in range(3):
        same(f"level {level}", vision.fpn_hidden_states[level])
        same(f"tracker level {level}", views[level])


def test_exemplars_give_the_numbers_of_the_reference(model, vision, same):
    same("exemplars", encode_geometry(model.detector_model.geometry_encoder, vision, ORIGINAL))


@pytest.mark.parametrize("kind", ["words", "words and summary"])
def test_the_detector_gives_the_numbers_of_the_reference(model, vision, words, same, kind):
    read = TextFeatures(words[0][:1], words[1][:1])
    if kind == "words and summary":  # the token that the geometry encoder makes where there is no geometry
        detector = Sam3Detector(model, None)
        detector.geometry_token = True
        same("summary", encode_geometry(model.detector_model.geometry_encoder, vision))
        read = detector._add_geometry(vision, read, [()])
    found = model.detector_model(
        vision_embeds=vision,
        text_embeds=SimpleNamespace(pooler_output=read.features),
        attention_mask=read.attention_mask,
    )
    same(f"{kind}: boxes", found.pred_boxes)
    same(f"{kind}: presence", found.presence_logits)
    same(f"{kind}: masks", found.pred_masks)
    same(f"{kind}: semantic", found.semantic_seg)
    same(f"{kind}: scores", found.pred_logits.sigmoid() * found.presence_logits.sigmoid())


def test_the_mask_decoder_gives_the_numbers_of_the_reference(model, views, same):
    points, labels = torch.tensor([[[[30.0, 40.0], [70.0, 65.0]]]]), torch.tensor([[[1, 0]]], dtype=torch.int32)
    clicked = model.tracker_model._single_frame_forward(
        input_points=points, input_labels=labels, image_embeddings=views, multimask_output=True
    )
    same("click mask", clicked.pred_masks)
    same("click iou", clicked.iou_scores)
    same("click pointer", clicked.object_pointer)
    same("click score", clicked.object_score_logits)
    masked = model.tracker_model._single_frame_forward(
        input_masks=normal("mask", (1, 1, 32, 32)) * 5, image_embeddings=views, multimask_output=False
    )
    same("mask mask", masked.pred_masks)
    same("mask pointer", masked.object_pointer)


def test_the_memory_gives_the_numbers_of_the_reference(model, views, same):
    tracker = model.tracker_model
    at_112, at_128 = (
        torch.nn.functional.interpolate(normal("mask", (1, 1, 32, 32)) * 5, size=(side, side), mode="bilinear")
        for side in (112, 128)
    )
    same("downsampled", tracker.mask_downsample(at_112))
    feature = views[2].flatten(2).permute(2, 0, 1)
    # At the memory's own size; from another, transformers resizes before the sigmoid and the reference after it.
    memory, positions = tracker._encode_new_memory(feature, at_128, torch.tensor([[-5.0]]), False)
    # transformers keeps memories in bfloat16, the reference in float32.
    same("memory", memory.permute(1, 2, 0), 2**-8)
    same("memory positions", positions.permute(1, 2, 0))
    now, memories = (64, 1, tiny.WIDTH), (2 * 64 + 8, 1, 64)
    attended = tracker.memory_attention(
        normal("now", now),
        normal("memories", memories),
        normal("now positions", now),
        normal("memories positions", memories),
        8,
    )
    same("attended", attended)
