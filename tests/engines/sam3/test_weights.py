"""Loading: from a folder, from sam3.pt, from the hub's cache; and what is wrong with weights, by name."""

import copy
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Sam3TrackerVideoInferenceSession, Sam3VideoConfig, Sam3VideoModel

from backend.engines.sam import weights as files
from backend.engines.sam3 import weights
from backend.engines.sam3.tokenizer import END, START
from backend.engines.sam3.weights import FAMILY, load_model
from backend.errors import SettingsError
from tests import bpe
from tests.engines.sam3 import tiny
from tests.engines.sam3.test_checkpoint import listed

pytestmark = pytest.mark.slow

WEIGHT = "detector_model.detr_decoder.query_embed.weight"


@pytest.fixture(scope="module")
def original() -> Sam3VideoModel:
    return tiny.build(seed=3)


@pytest.fixture(scope="module")
def saved(original, tmp_path_factory) -> Path:
    """The tiny model in the hub's layout, with a vocabulary of letters."""
    folder = tmp_path_factory.mktemp("tiny-sam3")
    original.config.save_pretrained(folder)
    save_file({name: tensor.clone() for name, tensor in original.state_dict().items()}, folder / "model.safetensors")
    letters = sorted(ByteLevel.alphabet())[: tiny.VOCABULARY // 2 - 1]
    words = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of `saved` to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "sam3"))


def respoiled(folder: Path, **changes: torch.Tensor | None) -> None:
    """Write the weights again with some of them changed, or left out where None."""
    tensors = load_file(folder / "model.safetensors") | changes
    save_file({k: v.contiguous() for k, v in tensors.items() if v is not None}, folder / "model.safetensors")


def seen(model: Sam3VideoModel, tokens, size: int = tiny.IMAGE) -> list[torch.Tensor]:
    """What the whole model makes of a picture, a phrase, a click and the next picture."""
    torch.manual_seed(0)
    pictures = torch.randn(2, 3, size, size)
    ids, mask = tokens.encode(["cat"])
    session = Sam3TrackerVideoInferenceSession(pictures, video_height=90, video_width=160, dtype=torch.float32)
    middle = {
        "point_coords": torch.full((1, 1, 1, 2), size / 2),
        "point_labels": torch.ones(1, 1, 1, dtype=torch.int32),
    }
    session.add_point_inputs(session.obj_id_to_idx(1), 0, middle)
    session.obj_with_new_inputs = [1]
    found = []
    with torch.no_grad():
        for frame, picture in enumerate(pictures):
            features = model.detector_model.get_vision_features(pixel_values=picture[None])
            words = model.detector_model.get_text_features(input_ids=ids, attention_mask=mask, return_dict=True)
            things = model.detector_model(vision_embeds=features, text_embeds=words, attention_mask=mask)
            flat, positions = model.get_vision_features_for_tracker(vision_embeds=features)
            session.cache.cache_vision_features(frame, {"vision_feats": flat, "vision_pos_embeds": positions})
            tracked = model.tracker_model(inference_session=session, frame_idx=frame)
            found += [things.pred_masks, things.pred_boxes, things.pred_logits, things.presence_logits]
            found += [tracked.pred_masks, tracked.object_score_logits]
    return found


def same(one: Sam3VideoModel, other: Sam3VideoModel) -> bool:
    """Whether two models hold the same numbers, loaded and computed ones."""
    tables = [dict(model.named_parameters()) | dict(model.named_buffers()) for model in (one, other)]
    return tables[0].keys() == tables[1].keys() and all(
        torch.equal(tensor, tables[1][name]) and tensor.dtype == tables[1][name].dtype
        for name, tensor in tables[0].items()
    )


def test_a_folder_gives_back_the_model_that_was_saved(original, saved):
    model, tokens = load_model(str(saved))
    assert same(model, original)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert tokens.context == 32
    # A copy, because rounding depends on how tensors are aligned, and those of a file are not as torch's own.
    for one, other in zip(seen(copy.deepcopy(model), tokens), seen(original, tokens), strict=True):
        assert torch.equal(one, other)


def test_a_loaded_model_is_as_the_library_would_have_loaded_it(saved):
    assert same(load_model(str(saved))[0], Sam3VideoModel.from_pretrained(saved))


def test_others_draw_random_weights_after_loading(saved):
    load_model(str(saved))
    torch.manual_seed(0)
    one, other = torch.nn.Linear(4, 4).weight, torch.nn.Linear(4, 4).weight
    assert not torch.equal(one, other)
    assert one.std() > 0.1


def test_shards_and_a_pickle_load_too(original, folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert same(load_model(str(folder))[0], original)
    (folder / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    places = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    for shard in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert same(load_model(str(folder))[0], original)
    (folder / shard).unlink()
    with pytest.raises(SettingsError, match=f"{shard} is missing"):
        load_model(str(folder))


def test_what_the_library_saves_loads(original, saved, folder):
    original.save_pretrained(folder)
    assert same(load_model(str(folder))[0], original)


def test_weights_of_half_precision_are_computed_with_in_float32(original, folder):
    respoiled(folder, **{name: tensor.bfloat16() for name, tensor in original.state_dict().items()})
    values = json.loads((folder / "config.json").read_text()) | {"dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(values))
    model, _ = load_model(str(folder))
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    computed, wanted = (dict(one.named_buffers()) for one in (model, original))
    for name in computed.keys() - set(FAMILY.tied_names):
        assert torch.equal(computed[name], wanted[name]), name


def test_a_table_that_is_there_once_serves_under_both_names(original, folder):
    for name in FAMILY.tied_names:
        table = original.state_dict()[name]
        respoiled(folder, **{FAMILY.tied_names[0]: table, FAMILY.tied_names[1]: table} | {name: None})
        state = load_model(str(folder))[0].state_dict()
        assert torch.equal(state[FAMILY.tied_names[0]], table)
        assert torch.equal(state[FAMILY.tied_names[1]], table)


def test_a_missing_weight_is_named(folder):
    respoiled(folder, **{WEIGHT: None})
    with pytest.raises(SettingsError, match=rf"do not fit SAM3: {WEIGHT} is missing: use"):
        load_model(str(folder))


def test_weights_of_a_wrong_shape_or_kind_are_named(folder):
    bias = "tracker_model.mask_downsample.bias"
    respoiled(folder, **{WEIGHT: torch.zeros(11, tiny.WIDTH), bias: torch.zeros(1, dtype=torch.int8)})
    with pytest.raises(SettingsError, match=rf"{WEIGHT} is 11x128, not 10x128; {bias} holds int8, not floats"):
        load_model(str(folder))


def test_many_missing_weights_are_counted(folder):
    save_file({WEIGHT: torch.zeros(10, tiny.WIDTH)}, folder / "model.safetensors")
    with pytest.raises(SettingsError, match=r"is missing; and 58\d more: use") as caught:
        load_model(str(folder))
    assert str(caught.value).count("is missing") == files.MAX_NAMES


def test_left_over_weights_are_listed(original, folder, caplog):
    respoiled(folder, **{f"extra.{n}": torch.zeros(1) for n in range(7)})
    with caplog.at_level(logging.WARNING):
        model, _ = load_model(str(folder))
    assert same(model, original)
    assert [record.getMessage() for record in caplog.records if record.name == files.log.name] == [
        "7 of the weights are not part of SAM3 and are ignored: extra.0, extra.1, extra.2, extra.3, extra.4, and 2 more"
    ]


def test_nothing_is_said_where_all_is_well(saved, caplog):
    load_model(str(saved))
    assert not [record for record in caplog.records if record.name == files.log.name]


@pytest.mark.parametrize(
    ("file", "content", "mend"),
    [
        ("config.json", None, r"folder sam3 contains no config\.json"),
        ("config.json", "{", r"config\.json cannot be read as JSON"),
        ("config.json", "[]", r"config\.json cannot be read as JSON"),
        ("config.json", '{"model_type": "sam2_video"}', "has model_type sam2_video.*sam3_video"),
        ("config.json", '{"model_type": "sam3_video", "detector_config": 3}', r"config\.json is not a config of SAM3"),
        ("model.safetensors", None, r"contains no model\.safetensors"),
        ("model.safetensors", "nonsense", r"model\.safetensors is broken"),
        ("vocab.json", None, r"contains no tokenizer\.json"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(folder, file, content, mend):
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(SettingsError, match=mend) as caught:
        load_model(str(folder))
    assert str(folder.parent) not in str(caught.value)


def test_a_pickle_that_would_run_code_is_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"model": os.getcwd}, folder / "pytorch_model.bin")
    with pytest.raises(SettingsError, match=r"pytorch_model\.bin is broken or contains more than weights"):
        load_model(str(folder))


def test_another_tokenizer_may_be_given_and_must_fit(saved):
    with pytest.raises(SettingsError, match="has 49408 tokens, but the model knows 512"):
        load_model(str(saved), bpe_path=str(bpe.path()))


@pytest.mark.parametrize("size", [84, 126, 168])
def test_the_whole_model_runs_at_another_size(saved, size):
    model, tokens = load_model(str(saved), image_size=size)
    found = seen(model, tokens, size)
    assert all(torch.isfinite(tensor).all() for tensor in found)
    grid = size // tiny.PATCH
    assert found[0].shape[-2:] == found[4].shape[-2:] == (4 * grid, 4 * grid)
    assert model.low_res_mask_size == 4 * grid
    assert model.tracker_model.image_size == model.config.image_size == size
    fresh = tiny.config()
    assert model.config.tracker_config.memory_attention_rope_feat_sizes == [grid, grid]
    assert fresh.tracker_config.memory_attention_rope_feat_sizes != [grid, grid]


def test_its_own_size_changes_nothing(original, saved):
    assert same(load_model(str(saved), image_size=tiny.IMAGE)[0], original)


@pytest.mark.parametrize(("size", "near"), [(100, 98), (14, 28), (-14, 28), (1000, 994)])
def test_a_size_that_does_not_fit_is_refused(saved, size, near):
    with pytest.raises(SettingsError, match=f"image_size is {size}: set a multiple of 14, such as {near}, or 0"):
        load_model(str(saved), image_size=size)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/model.safetensors", "a/model.safetensors"])
def test_an_index_names_no_file_outside_its_folder(folder, shard):
    tensors = folder / "model.safetensors"
    tensors.rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {WEIGHT: shard}}))
    with pytest.raises(SettingsError, match=r"index\.json names .*, which is not in its folder: copy the folder again"):
        load_model(str(folder))


# The original, whose shapes are those of the full model: without memory, on the meta device.


@pytest.fixture
def on_meta(monkeypatch):
    """Makes the full model without memory, and reads any file as the original's weights."""
    read: dict[str, torch.Tensor] = {}

    def make(config: Sam3VideoConfig) -> Sam3VideoModel:
        with torch.device("meta"):
            return Sam3VideoModel(config)

    monkeypatch.setattr(weights, "Sam3VideoModel", make)
    monkeypatch.setattr(weights, "read_tensors", lambda path: dict(read))
    return read


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "sam3.pt"
    path.touch()
    return path


def test_the_original_loads_whole_and_in_silence(on_meta, file, caplog):
    on_meta.update(listed())
    model, tokens = load_model(str(file), bpe_path=str(bpe.path()))
    assert isinstance(model, Sam3VideoModel)
    assert tokens.size == 49408
    assert not caplog.records


def test_what_the_original_lacks_or_has_beyond_is_named(on_meta, file, caplog):
    on_meta.update(listed())
    on_meta["detector.dreams.weight"] = torch.empty(1, device="meta")
    load_model(str(file), bpe_path=str(bpe.path()))
    assert "1 of the weights are not part of SAM3 and are ignored: detector.dreams.weight" in caplog.text
    del on_meta["tracker.sam_prompt_encoder.point_embeddings.2.weight"]
    del on_meta["detector.backbone.vision_backbone.trunk.blocks.9.attn.qkv.bias"]
    with pytest.raises(SettingsError) as caught:
        load_model(str(file), bpe_path=str(bpe.path()))
    assert "layers.9.attention.q_proj.bias is missing" in str(caught.value)
    assert "prompt_encoder.point_embed.weight is 3x256, not 4x256" in str(caught.value)


def test_the_original_needs_its_vocabulary(file):
    with pytest.raises(SettingsError, match=r"sam3\.pt contains no tokenizer: set bpe_path to bpe_simple_vocab"):
        load_model(str(file))


@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_the_originals_tensors_are_found_where_they_are(tmp_path, key):
    tensors = {"detector.a": torch.ones(2), "tracker.b": torch.zeros(3)}
    torch.save({key: tensors, "epoch": 3} if key else tensors, tmp_path / "sam3.pt")
    assert files.read_tensors(tmp_path / "sam3.pt").keys() == tensors.keys()
    legacy = tmp_path / "old.pt"
    torch.save({key: tensors, "epoch": 3} if key else tensors, legacy, _use_new_zipfile_serialization=False)
    assert torch.equal(files.read_tensors(legacy)["detector.a"], torch.ones(2))


def test_a_file_that_is_not_the_original_is_refused(saved, tmp_path):
    with pytest.raises(SettingsError, match=r"model\.safetensors is not the original sam3\.pt"):
        load_model(str(saved / "model.safetensors"), bpe_path=str(bpe.path()))
    (tmp_path / "sam3.pt").write_bytes(b"nonsense")
    with pytest.raises(SettingsError, match=r"sam3\.pt is broken"):
        load_model(str(tmp_path / "sam3.pt"), bpe_path=str(bpe.path()))
    torch.save([1, 2], tmp_path / "sam3.pt")
    with pytest.raises(SettingsError, match=r"sam3\.pt contains no weights"):
        load_model(str(tmp_path / "sam3.pt"), bpe_path=str(bpe.path()))


def as_sam_3_1(tensors: dict[str, torch.Tensor], tracks: bool) -> dict[str, torch.Tensor]:
    """The original's names as SAM 3.1 has them: click heads beside another tracker, which stands for SAM 3's or not."""
    heads = ("sam_prompt_encoder", "sam_mask_decoder", "obj_ptr_proj", "mask_downsample")
    renamed = {}
    for name, tensor in tensors.items():
        part = name.removeprefix("tracker.")
        if name.startswith("tracker.") and part.startswith(heads):
            name = f"tracker.model.interactive_{part}"
        elif name == "tracker.no_mem_embed":
            name = "tracker.model.interactivity_no_mem_embed"
        elif name.startswith("tracker.") and not tracks:
            name = f"tracker.model.{part}"
        renamed[name.replace(".sam2_convs.", ".interactive_convs.")] = tensor
    renamed["tracker.model.transformer.encoder.layers.0.self_attn_q_proj.weight"] = torch.empty(1, device="meta")
    renamed["detector.backbone.vision_backbone.propagation_convs.0.conv_1x1.weight"] = torch.empty(1, device="meta")
    return renamed


def test_sam_3_1_has_no_tracker_that_runs_here_and_says_so(on_meta, file):
    on_meta.update(as_sam_3_1(listed(), tracks=False))
    with pytest.raises(SettingsError, match=r"sam3\.pt is SAM 3\.1, whose tracker .* is not supported: use sam3\.pt"):
        load_model(str(file), bpe_path=str(bpe.path()))


def test_what_sam_3_1_shares_with_sam_3_finds_its_place(on_meta, file, caplog):
    on_meta.update(as_sam_3_1(listed(), tracks=True))
    assert load_model(str(file), bpe_path=str(bpe.path()))
    assert [record.getMessage() for record in caplog.records] == [
        "SAM 3.1's tracker of many objects at once is left out: SAM 3's tracks them"
    ]


@pytest.mark.parametrize("path", ["/nowhere/sam3.pt", "sam3", "~/weights/sam3/", "./facebook/sam3", "a/b/c"])
def test_a_path_to_nothing_is_refused(path):
    with pytest.raises(SettingsError, match=r"there is no file or folder (sam3|c)\b") as caught:
        load_model(path)
    assert "set model_path to facebook/sam3" in str(caught.value)
    assert "nowhere" not in str(caught.value)


# The hub.


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_what_the_hub_once_gave_works_offline(original, saved, tmp_path, offline):
    commit = "0" * 40
    cache = tmp_path / "models--facebook--sam3"
    shutil.copytree(saved, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    assert same(load_model("facebook/sam3", model_dir=str(tmp_path))[0], original)


def test_without_hub_and_cache_the_ways_out_are_named(tmp_path, offline):
    with pytest.raises(SettingsError, match="could not be fetched") as caught:
        load_model("facebook/sam3", model_dir=str(tmp_path))
    assert "folder that holds its files, or to sam3.pt with bpe_path" in str(caught.value)


def test_a_revision_is_the_one_that_is_fetched(original, saved, tmp_path, monkeypatch, offline):
    commit = "1" * 40
    shutil.copytree(saved, tmp_path / "models--facebook--sam3" / "snapshots" / commit)
    assert same(load_model("facebook/sam3", model_dir=str(tmp_path), revision=commit)[0], original)
    with pytest.raises(SettingsError, match="could not be fetched"):
        load_model("facebook/sam3", model_dir=str(tmp_path), revision="2" * 40)
