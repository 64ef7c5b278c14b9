"""Converts the original sam3.pt to the names of transformers: a table of modules, and a few changes of shape."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class ModuleMapping(NamedTuple):
    """The name of an original module in transformers, and the rules that rename its tensors, applied in order."""

    original: str
    transformers: str
    rules: Mapping[str, str]


MLP = {r"^layers\.0\.": "layer1.", r"^layers\.1\.": "layer2.", r"^layers\.2\.": "layer3."}
"""A perceptron of the detector; transformers numbers its layers from 1."""
PROJECTIONS = {r"^layers\.0\.": "proj_in.", r"^layers\.1\.": "layers.0.", r"^layers\.2\.": "proj_out."}
"""A perceptron of the tracker; transformers names the first and last layer and numbers the others."""
ATTENTION = {r"\.out_proj\.": ".o_proj."}
LAYER = {r"\.cross_attn_image\.": ".cross_attn.", r"\.linear": ".mlp.fc", r"\.norm": ".layer_norm", **ATTENTION}
NECK = {
    r"dconv_2x2(_0)?\.": "scale_layers.0.",
    r"dconv_2x2_1\.": "scale_layers.2.",  # 1 is the activation between the two
    r"conv_1x1\.": "proj1.",
    r"conv_3x3\.": "proj2.",
}

MODULES = (
    ModuleMapping(
        "detector.backbone.vision_backbone.trunk",
        "detector_model.vision_encoder.backbone",
        {
            r"^patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
            r"^pos_embed$": "embeddings.position_embeddings",
            r"^ln_pre\.": "layer_norm.",
            r"^blocks\.": "layers.",
            r"\.norm": ".layer_norm",
            r"\.attn\.proj\.": ".attention.o_proj.",
            r"\.attn\.": ".attention.",
        },
    ),
    ModuleMapping("detector.backbone.vision_backbone.convs", "detector_model.vision_encoder.neck.fpn_layers", NECK),
    ModuleMapping("detector.backbone.vision_backbone.sam2_convs", "tracker_neck.fpn_layers", NECK),
    ModuleMapping(
        "detector.backbone.language_backbone.encoder",
        "detector_model.text_encoder",
        {
            r"^token_embedding\.": "text_model.embeddings.token_embedding.",
            r"^positional_embedding$": "text_model.embeddings.position_embedding.weight",
            r"^text_projection$": "text_projection.weight",
            r"^ln_final\.": "text_model.final_layer_norm.",
            r"^transformer\.resblocks\.": "text_model.encoder.layers.",
            r"\.attn\.": ".self_attn.",
            r"\.ln_": ".layer_norm",
            r"\.c_fc\.": ".fc1.",
            r"\.c_proj\.": ".fc2.",
        },
    ),
    ModuleMapping("detector.backbone.language_backbone.resizer", "detector_model.text_projection", {}),
    ModuleMapping("detector.transformer.encoder.layers", "detector_model.detr_encoder.layers", LAYER),
    ModuleMapping(
        "detector.transformer.decoder.layers",
        "detector_model.detr_decoder.layers",
        {
            r"\.linear": ".mlp.fc",
            # The original order: image, text (without a number), queries, perceptron.
            r"\.norm1\.": ".vision_cross_attn_layer_norm.",
            r"\.catext_norm\.": ".text_cross_attn_layer_norm.",
            r"\.norm2\.": ".self_attn_layer_norm.",
            r"\.norm3\.": ".mlp_layer_norm.",
            r"\.cross_attn\.": ".vision_cross_attn.",
            r"\.ca_text\.": ".text_cross_attn.",
            **ATTENTION,
        },
    ),
    ModuleMapping("detector.transformer.decoder.bbox_embed", "detector_model.detr_decoder.box_head", MLP),
    ModuleMapping("detector.transformer.decoder.ref_point_head", "detector_model.detr_decoder.ref_point_head", MLP),
    ModuleMapping("detector.transformer.decoder.boxRPB_embed_x", "detector_model.detr_decoder.box_rpb_embed_x", MLP),
    ModuleMapping("detector.transformer.decoder.boxRPB_embed_y", "detector_model.detr_decoder.box_rpb_embed_y", MLP),
    ModuleMapping("detector.transformer.decoder.presence_token_head", "detector_model.detr_decoder.presence_head", MLP),
    ModuleMapping(
        "detector.transformer.decoder.presence_token_out_norm", "detector_model.detr_decoder.presence_layer_norm", {}
    ),
    ModuleMapping("detector.transformer.decoder.norm", "detector_model.detr_decoder.output_layer_norm", {}),
    ModuleMapping("detector.transformer.decoder", "detector_model.detr_decoder", {}),
    ModuleMapping(
        "detector.geometry_encoder",
        "detector_model.geometry_encoder",
        {
            r"^encode\.": "layers.",
            r"^img_pre_norm\.": "vision_layer_norm.",
            r"^norm\.": "prompt_layer_norm.",
            r"^encode_norm\.": "output_layer_norm.",
            **LAYER,
        },
    ),
    ModuleMapping(
        "detector.segmentation_head",
        "detector_model.mask_decoder",
        {
            r"^mask_predictor\.mask_embed\.": "mask_embedder.",
            r"^instance_seg_head\.": "instance_projection.",
            r"^semantic_seg_head\.": "semantic_projection.",
            r"^cross_attend_prompt\.": "prompt_cross_attn.",
            r"^cross_attn_norm\.": "prompt_cross_attn_norm.",
            **ATTENTION,
        },
    ),
    ModuleMapping("detector.dot_prod_scoring.hs_proj", "detector_model.dot_product_scoring.query_proj", {}),
    ModuleMapping("detector.dot_prod_scoring.prompt_proj", "detector_model.dot_product_scoring.text_proj", {}),
    ModuleMapping(
        "detector.dot_prod_scoring.prompt_mlp.out_norm", "detector_model.dot_product_scoring.text_mlp_out_norm", {}
    ),
    ModuleMapping("detector.dot_prod_scoring.prompt_mlp", "detector_model.dot_product_scoring.text_mlp", MLP),
    ModuleMapping(
        "tracker.transformer.encoder",
        "tracker_model.memory_attention",
        {r"^norm\.": "layer_norm.", r"\.norm": ".layer_norm", **ATTENTION},
    ),
    ModuleMapping(
        "tracker.maskmem_backbone",
        "tracker_model.memory_encoder",
        {
            # Convolution, norm, activation, four times; then the last convolution.
            **{rf"\.encoder\.{3 * n}\.": f".layers.{n}.conv." for n in range(4)},
            **{rf"\.encoder\.{3 * n + 1}\.": f".layers.{n}.layer_norm." for n in range(4)},
            r"\.encoder\.12\.": ".final_conv.",
            r"^fuser\.": "memory_fuser.",
            r"\.dwconv\.": ".depthwise_conv.",
            r"\.pwconv": ".pointwise_conv",
            r"\.norm\.": ".layer_norm.",
            r"\.gamma$": ".scale",
            r"^pix_feat_proj\.": "feature_projection.",
            r"^out_proj\.": "projection.",
        },
    ),
    ModuleMapping(
        "tracker.sam_mask_decoder.transformer",
        "tracker_model.mask_decoder.transformer",
        {
            r"\.lin1\.": ".proj_in.",
            r"\.lin2\.": ".proj_out.",
            r"\.norm": ".layer_norm",
            r"^norm_": "layer_norm_",
            **ATTENTION,
        },
    ),
    ModuleMapping(
        "tracker.sam_mask_decoder.iou_prediction_head", "tracker_model.mask_decoder.iou_prediction_head", PROJECTIONS
    ),
    ModuleMapping(
        "tracker.sam_mask_decoder.pred_obj_score_head", "tracker_model.mask_decoder.pred_obj_score_head", PROJECTIONS
    ),
    *(
        ModuleMapping(
            f"tracker.sam_mask_decoder.output_hypernetworks_mlps.{n}",
            f"tracker_model.mask_decoder.output_hypernetworks_mlps.{n}",
            PROJECTIONS,
        )
        for n in range(4)
    ),
    ModuleMapping(
        "tracker.sam_mask_decoder",
        "tracker_model.mask_decoder",
        {
            r"^output_upscaling\.0\.": "upscale_conv1.",
            r"^output_upscaling\.1\.": "upscale_layer_norm.",
            r"^output_upscaling\.3\.": "upscale_conv2.",
        },
    ),
    ModuleMapping(
        "tracker.sam_prompt_encoder",
        "tracker_model.prompt_encoder",
        {
            r"^mask_downscaling\.0\.": "mask_embed.conv1.",
            r"^mask_downscaling\.1\.": "mask_embed.layer_norm1.",
            r"^mask_downscaling\.3\.": "mask_embed.conv2.",
            r"^mask_downscaling\.4\.": "mask_embed.layer_norm2.",
            r"^mask_downscaling\.6\.": "mask_embed.conv3.",
            r"^pe_layer\.positional_encoding_gaussian_matrix$": "shared_embedding.positional_embedding",
            r"^point_embeddings\.": "point_embed.",
        },
    ),
    ModuleMapping("tracker.obj_ptr_proj", "tracker_model.object_pointer_proj", PROJECTIONS),
    ModuleMapping("tracker.obj_ptr_tpos_proj", "tracker_model.temporal_positional_encoding_projection_layer", {}),
    ModuleMapping("tracker.maskmem_tpos_enc", "tracker_model.memory_temporal_positional_encoding", {}),
    ModuleMapping("tracker.no_mem_embed", "tracker_model.no_memory_embedding", {}),
    ModuleMapping("tracker.no_mem_pos_enc", "tracker_model.no_memory_positional_encoding", {}),
    ModuleMapping("tracker.no_obj_ptr", "tracker_model.no_object_pointer", {}),
    ModuleMapping("tracker.no_obj_embed_spatial", "tracker_model.occlusion_spatial_embedding_parameter", {}),
    ModuleMapping("tracker.mask_downsample", "tracker_model.mask_downsample", {}),
)
"""The first match counts, so the parts of a module come before the module."""

UNUSED = re.compile(
    r"^detector\.backbone\.vision_backbone\.trunk\.blocks\.\d+\.attn\.freqs_cis$"  # computed, not learnt
    r"|^detector\.geometry_encoder\.points_(direct|pool|pos_enc)_project\."  # the detector gets no points
)
"""Tensors that transformers does not have and the model does not need."""

SAM_3_1_NAMES = {
    r"^tracker\.model\.interactiv(e|ity)_": "tracker.",
    r"\.interactive_convs\.": ".sam2_convs.",
}
"""What SAM 3.1 calls the parts that it shares with SAM 3: those that clicks use."""
MULTIPLEX = re.compile(r"^tracker\.model\.(?!interactiv)|\.propagation_convs\.")
"""SAM 3.1's tracker of several objects at once and its neck, which are other than SAM 3's."""

POSITIONS = "detector_model.vision_encoder.backbone.embeddings.position_embeddings"
TEXT_PROJECTION = "detector_model.text_encoder.text_projection.weight"
POINTS = "tracker_model.prompt_encoder.point_embed"


def is_original(names: Iterable[str]) -> bool:
    """Whether tensor names are those of the original sam3.pt."""
    return any(name.startswith(("detector.", "tracker.")) for name in names)


def is_sam_3_1(names: Iterable[str]) -> bool:
    """Whether tensor names are those of SAM 3.1, whose tracker is another."""
    return any(MULTIPLEX.search(name) for name in names)


def convert_checkpoint(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the original's tensors to the names and shapes of `transformers.Sam3VideoModel`.

    Of SAM 3.1 those that it shares with SAM 3, which are not enough to track. Reshaped tensors are views, except the
    four point embeddings, which become one table of four rows. Unknown names stay unchanged; loading the result then
    reports them as left over.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not UNUSED.match(name) and not MULTIPLEX.search(name):
            result |= _split_qkv(rename_tensor(name), tensor)
    if POSITIONS in result and result[POSITIONS].ndim == 3:
        result[POSITIONS] = result[POSITIONS][:, 1:]  # the first belongs to the class token, which SAM3 does not have
    if TEXT_PROJECTION in result and result[TEXT_PROJECTION].ndim == 2:
        result[TEXT_PROJECTION] = result[TEXT_PROJECTION].T
    rows = [result.pop(f"{POINTS}.{n}.weight", None) for n in range(4)]
    found = [row for row in rows if row is not None]
    if found:
        # With fewer than four, the table is too short, and loading reports it.
        result[f"{POINTS}.weight"] = torch.cat(found)
    return result


def rename_tensor(name: str) -> str:
    """The name that transformers uses, before tensors are split; an unknown name stays unchanged."""
    for pattern, new in SAM_3_1_NAMES.items():
        name = re.sub(pattern, new, name)
    for module in MODULES:
        if name == module.original:
            return module.transformers
        if name.startswith(f"{module.original}."):
            inside = name.removeprefix(f"{module.original}.")
            for pattern, new in module.rules.items():
                inside = re.sub(pattern, new, inside)
            return f"{module.transformers}.{inside}"
    return name


def _split_qkv(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Split queries, keys and values, which the original stacks in one tensor."""
    packed = re.search(r"\b(qkv\.|in_proj_)(weight|bias)$", name)
    if packed is None:
        return {name: tensor}
    thirds = tensor.chunk(3)
    return {f"{name[: packed.start()]}{q}_proj.{packed[2]}": third for q, third in zip("qkv", thirds, strict=False)}
