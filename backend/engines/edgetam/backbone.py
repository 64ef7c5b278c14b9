"""RepViT (arXiv:2307.09283), EdgeTAM's backbone, in the form that it has after training: convolutions alone.

In training each convolution has a batch norm, and the depthwise ones have branches. `fuse_backbone` adds them up once,
when the weights are loaded.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

BACKBONE = "vision_encoder.backbone."
"""What the names of its weights begin with in the whole model."""
NORM_EPS = 1e-5
_NORM_PARTS = ("running_mean", "running_var", "weight", "bias")


class RepVitConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Its size; the defaults are `repvit_m1` of the package timm, which EdgeTAM has.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage, besides the one that makes the grid coarser.
    """

    model_type = "repvit"
    widths: tuple[int, ...] = (48, 96, 192, 384)
    depths: tuple[int, ...] = (2, 2, 14, 2)


class SqueezeExcite(nn.Module):
    """Weighs each channel by all channels' means."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = _squeezed_width(width)
        self.fc1, self.fc2 = nn.Conv2d(width, narrow, 1), nn.Conv2d(narrow, width, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The image, shape (n, width, h, w), weighed."""
        weights: Tensor = self.fc2(functional.relu(self.fc1(image.mean((2, 3), keepdim=True)))).sigmoid()
        return image * weights


class ChannelMixer(nn.Module):
    """A perceptron at each position, added to what it reads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Shape (n, width, h, w), before and after."""
        mixed: Tensor = self.conv2(functional.gelu(self.conv1(image)))
        return image + mixed


class RepVitBlock(nn.Module):
    """Mixes neighbours, then channels."""

    def __init__(self, width: int, *, squeezes: bool) -> None:
        super().__init__()
        self.token_mixer = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.se = SqueezeExcite(width) if squeezes else nn.Identity()
        self.channel_mixer = ChannelMixer(width)

    def forward(self, image: Tensor) -> Tensor:
        """Shape (n, width, h, w), before and after."""
        mixed: Tensor = self.channel_mixer(self.se(self.token_mixer(image)))
        return mixed


class RepVitDownsample(nn.Module):
    """Halves the grid and changes the number of channels."""

    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        self.pre_block = RepVitBlock(width, squeezes=False)
        self.spatial_downsample = nn.Conv2d(width, width, 3, 2, 1, groups=width)
        self.channel_downsample = nn.Conv2d(width, wider, 1)
        self.ffn = ChannelMixer(wider)

    def forward(self, image: Tensor) -> Tensor:
        """From shape (n, width, h, w) to (n, wider, h / 2, w / 2)."""
        mixed: Tensor = self.ffn(self.channel_downsample(self.spatial_downsample(self.pre_block(image))))
        return mixed


class RepVitStage(nn.Module):
    """Blocks on one grid, every other with `SqueezeExcite`."""

    def __init__(self, width: int, wider: int, depth: int, *, halves: bool) -> None:
        super().__init__()
        self.downsample = RepVitDownsample(width, wider) if halves else nn.Identity()
        self.blocks = nn.Sequential(*(RepVitBlock(wider, squeezes=number % 2 == 0) for number in range(depth)))

    def forward(self, image: Tensor) -> Tensor:
        """From shape (n, width, h, w) to (n, wider, h / 2, w / 2); the first stage leaves the grid as it is."""
        mixed: Tensor = self.blocks(self.downsample(image))
        return mixed


class RepVit(PreTrainedModel):  # type: ignore[no-untyped-call]
    """The backbone."""

    config_class = RepVitConfig

    def __init__(self, config: RepVitConfig) -> None:
        super().__init__(config)
        first = config.widths[0]
        self.stem = nn.ModuleDict(
            {"conv1": nn.Conv2d(3, first // 2, 3, 2, 1), "conv2": nn.Conv2d(first // 2, first, 3, 2, 1)}
        )
        before = (first, *config.widths)
        self.stages = nn.ModuleList(
            RepVitStage(before[number], width, depth, halves=number > 0)
            for number, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True))
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """The stages' outputs of pictures (n, 3, size, size), on grids of size / 4, / 8, / 16 and / 32."""
        image = self.stem["conv2"](functional.gelu(self.stem["conv1"](pixels)))
        outputs: list[Tensor] = []
        for stage in self.stages:
            image = stage(image)
            outputs.append(image)
        return outputs

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        """As `encode`, for the library's own model around it."""
        return BaseModelOutput(last_hidden_state=self.encode(pixel_values))  # type: ignore[arg-type]


def fuse_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model, with those of its backbone as `RepVit` has them; those that it has already stay.

    Args:
        tensors: by the names of the library, whose backbone is timm's.
    """
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(BACKBONE)}
    parts = {
        _rename_part(name): tensor
        for name, tensor in tensors.items()
        if name.startswith(BACKBONE) and not name.endswith(".num_batches_tracked")  # counts of the training
    }
    for conv in [name.removesuffix(".c.weight") for name in parts if name.endswith(".c.weight")]:
        weights = parts.pop(f"{conv}.c.weight")
        norm = {part: parts.pop(f"{conv}.bn.{part}", None) for part in _NORM_PARTS}
        if any(value is None for value in norm.values()):
            continue  # loading reports that it is missing
        mean, variance, scale, shift = norm.values()
        fused = fuse_conv_bn_weights(weights.float(), None, mean, variance, NORM_EPS, scale, shift)  # type: ignore[arg-type]
        parts[f"{conv}.weight"], parts[f"{conv}.bias"] = fused
    for mixer in [name.removesuffix(".conv1.weight") for name in parts if name.endswith("token_mixer.conv1.weight")]:
        weight, bias, small, small_bias = (
            parts.pop(f"{mixer}.{part}", None) for part in ("conv.weight", "conv.bias", "conv1.weight", "conv1.bias")
        )
        if weight is None or bias is None or small is None or small_bias is None:
            continue
        # The branches: a convolution of one pixel, and the image itself.
        centre = functional.pad(small + 1, [1, 1, 1, 1])
        parts[f"{mixer}.weight"], parts[f"{mixer}.bias"] = weight + centre, bias + small_bias
    return rest | parts


def _rename_part(name: str) -> str:
    return re.sub(r"\.stages_(\d+)\.", r".stages.\1.", name.replace(f"{BACKBONE}timm_model.", BACKBONE))


def _squeezed_width(width: int) -> int:
    """A quarter, as a multiple of 8 and at least 8, as timm rounds it."""
    return max(8, (width // 4 + 4) // 8 * 8)


AutoConfig.register(RepVitConfig.model_type, RepVitConfig)
AutoModel.register(RepVitConfig, RepVit)
