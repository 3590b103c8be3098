"""What both visual tokenizers are made of: an encoder half, a decoder half, attention to a context frame.

The residual, attention and resampling blocks are those of diffusers, so that the names of all weights are the
published ones.

Shape legend: B contexts, M frames (one or more of each context, context-major), C channels, H W pixels or positions,
N = H * W positions, K heads, D channels of a head.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_blocks import DownEncoderBlock2D, UNetMidBlock2D, UpDecoderBlock2D
from torch import Tensor, nn

from rlvr_world.errors import InputError

EPS = 1e-6
KeysValues = tuple[Tensor, Tensor]
"""A context feature as a cross-attention reads it: keys and values, each [B, K, N, D]."""


class VisualTokenizer(ModelMixin, ConfigMixin):
    """A tokenizer on disk as the published ones: ``config.json`` and ``diffusion_pytorch_model.safetensors``."""

    config_name: Any = "config.json"
    to: Any = nn.Module.to  # that of ModelMixin warns of layers to be kept in float32 even where there are none
    published_name: ClassVar[str]
    """The ``_class_name`` in ``config.json``, by which the published code knows the folder too."""

    def to_json_string(self) -> str:
        """The text of ``config.json``, without where it was loaded from and without fields that are unset."""
        fields = {name: value for name, value in json.loads(super().to_json_string()).items() if value is not None}
        fields.pop("_name_or_path", None)
        return json.dumps({**fields, "_class_name": self.published_name}, indent=2, sort_keys=True) + "\n"

    @property
    def downsampling(self) -> int:
        """Pixels a side that one position of the latent grid stands for."""
        return 2 ** (len(self.config["block_out_channels"]) - 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the latent grid of a picture; InputError where the size does not divide evenly."""
        step = self.downsampling
        if height < step or width < step or height % step or width % step:
            raise InputError(
                f"{type(self).__name__}: expected frames whose height and width are multiples of {step} pixels, "
                f"got {height}x{width}; resize them"
            )
        return height // step, width // step


def check_shape(widths: Sequence[int], groups: int, norm_type: str, down: Sequence[str], up: Sequence[str]) -> None:
    """Raises InputError that names the config field these halves cannot be built from."""
    if not widths:
        raise InputError("tokenizer config block_out_channels: expected at least one width, got none")
    for field, types, known in (
        ("down_block_types", down, "DownEncoderBlock2D"),
        ("up_block_types", up, "UpDecoderBlock2D"),
    ):
        if list(types) != [known] * len(widths):
            raise InputError(f"tokenizer config {field}: expected {len(widths)} times '{known}', got {list(types)}")
    if norm_type != "group":
        raise InputError(f"tokenizer config norm_type: expected 'group', got '{norm_type}'")
    for width in widths:
        if width % groups:
            raise InputError(
                f"tokenizer config block_out_channels: expected multiples of norm_num_groups ({groups}), got {width}"
            )


class PositionNorm(nn.LayerNorm):
    """Normalises the channels of each position of [M, C, H, W] for itself; a group norm mixes all positions."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class CrossAttention(nn.Module):
    """Features of a later frame look at the context's features of the same size: SiLU(z + attention(z, context)).

    Both sides are normalised and get a learned position table of their own, zero at first.
    """

    def __init__(
        self, channels: int, positions: int, groups: int = 32, dropout: float = 0.1, local: bool = False
    ) -> None:
        super().__init__()
        if channels % groups:
            raise InputError(
                f"tokenizer config block_out_channels: expected multiples of {groups} where frames look at their "
                f"context (max_att_resolution), got {channels}"
            )
        self.kv_pos_emb = nn.Parameter(torch.zeros(positions, channels))
        self.q_pos_emb = nn.Parameter(torch.zeros(positions, channels))
        self.att = nn.MultiheadAttention(channels, num_heads=4, dropout=dropout, batch_first=True)
        self.kv_norm = PositionNorm(channels) if local else nn.GroupNorm(groups, channels)
        self.q_norm = PositionNorm(channels) if local else nn.GroupNorm(groups, channels)
        self.dropout = nn.Dropout(dropout)

    def keys_values(self, context_BCHW: Tensor) -> KeysValues:
        """The context's side, computed once however many frames look at it."""
        tokens = self.kv_norm(context_BCHW).flatten(2).transpose(1, 2) + self.kv_pos_emb
        channels = tokens.shape[-1]
        keys_values = F.linear(tokens, self.att.in_proj_weight[channels:], self.att.in_proj_bias[channels:])
        keys, values = keys_values.chunk(2, dim=-1)
        return self._heads(keys), self._heads(values)

    def forward(self, z_MCHW: Tensor, context: KeysValues) -> Tensor:
        """``z`` after looking at the context; M is a multiple of B, each context's frames together."""
        keys, values = context
        tokens = self.q_norm(z_MCHW).flatten(2).transpose(1, 2) + self.q_pos_emb
        channels = tokens.shape[-1]
        queries = F.linear(tokens, self.att.in_proj_weight[:channels], self.att.in_proj_bias[:channels])
        # All frames of a context are one long list of queries: keys and values are never repeated.
        found = F.scaled_dot_product_attention(
            self._heads(queries.reshape(len(keys), -1, channels)),
            keys,
            values,
            dropout_p=self.att.dropout if self.training else 0.0,
        )
        found = self.dropout(self.att.out_proj(found.transpose(1, 2).reshape(tokens.shape)))
        return F.silu(z_MCHW + found.transpose(1, 2).reshape(z_MCHW.shape))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.att.num_heads, -1)).transpose(1, 2)


class Half(nn.Module, ABC):
    """conv_in, stages (some followed by cross-attention), GroupNorm, SiLU, conv_out: an encoder or a decoder."""

    conv_in: nn.Conv2d
    conv_norm_out: nn.Module
    conv_out: nn.Conv2d | nn.ConvTranspose2d
    local = False
    """Whether norms are of each position for itself; a group norm is of all positions together."""
    widths: tuple[int, ...]
    """Channels that each stage gives."""
    scales: tuple[int, ...]
    """Size a side that each stage gives, in sizes of the latent grid."""

    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """What stands between conv_in and conv_norm_out, in order."""

    def add_cross_attention(self, grid: tuple[int, int], at: Sequence[int]) -> None:
        """Give the stages ``at`` a cross-attention each, for a latent grid of these rows and columns."""
        self.cross_at = tuple(at)
        self.cross_att_blocks = nn.ModuleList(
            CrossAttention(self.widths[i], grid[0] * grid[1] * self.scales[i] ** 2, local=self.local) for i in at
        )

    def forward(
        self, x_MCHW: Tensor, context: Sequence[KeysValues] = (), keep: Collection[int] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """What conv_out gives, and the features after the stages ``keep``.

        ``context`` has an entry a cross-attention, from ``keys_values``; the order of ``keep`` is that of the stages.
        """
        x_MCHW = self.conv_in(x_MCHW)
        kept = []
        for i, stage in enumerate(self.stages()):
            x_MCHW = stage(x_MCHW)
            if context and i in self.cross_at:
                block = self.cross_at.index(i)
                x_MCHW = self.cross_att_blocks[block](x_MCHW, context[block])
            if i in keep:
                kept.append(x_MCHW)
        return self.conv_out(F.silu(self.conv_norm_out(x_MCHW))), kept

    def keys_values(self, features: Sequence[Tensor]) -> list[KeysValues]:
        """The context's features, one a cross-attention, as ``forward`` takes them."""
        blocks = cast(list[CrossAttention], list(self.cross_att_blocks))
        return [block.keys_values(feature) for block, feature in zip(blocks, features, strict=True)]


class Encoder(Half):
    """Pixels to latents: a stage of ``layers`` residual blocks a width, halving the size after all but the last."""

    def __init__(
        self, channels: int, latent: int, widths: Sequence[int], layers: int, groups: int, act: str, attention: bool
    ) -> None:
        super().__init__()
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownEncoderBlock2D(
                in_channels=widths[max(i - 1, 0)],
                out_channels=width,
                num_layers=layers,
                resnet_eps=EPS,
                resnet_act_fn=act,
                resnet_groups=groups,
                add_downsample=i < last,
                downsample_padding=0,
            )
            for i, width in enumerate(widths)
        )
        self.mid_block = _mid_block(widths[-1], groups, act, attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], latent, 3, padding=1)
        self.widths = (*widths, widths[-1])
        self.scales = (*(2 ** max(last - 1 - i, 0) for i in range(len(widths))), 1)

    def stages(self) -> list[nn.Module]:
        return [*self.down_blocks, self.mid_block]


class PatchEncoder(Half):
    """Pixels to latents, each patch of ``size`` pixels a side for itself: the latent of a place where nothing moves
    does not change when something moves elsewhere, so that what a world model has to predict is what happens."""

    local = True

    def __init__(self, channels: int, latent: int, width: int, size: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, size, stride=size)
        self.blocks = nn.ModuleList(PatchBlock(width) for _ in range(3))
        self.conv_norm_out = PositionNorm(width)
        self.conv_out = nn.Conv2d(width, latent, 1)
        self.widths, self.scales = (width,) * 3, (1,) * 3

    def stages(self) -> list[nn.Module]:
        return list(self.blocks)


class PatchDecoder(Half):
    """Latents to pixels, a patch at a time after a look at its neighbours; a third of the work of a ``Decoder``."""

    local = True

    def __init__(self, channels: int, latent: int, width: int, size: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latent, width, 1)
        blocks = [NeighbourBlock(width), NeighbourBlock(width), PatchBlock(width), PatchBlock(width)]
        self.blocks = nn.ModuleList(blocks)
        self.conv_norm_out = PositionNorm(width)
        self.conv_out = nn.ConvTranspose2d(width, channels, size, stride=size)
        nn.init.constant_(self.conv_out.bias, 0.5)  # type: ignore[arg-type]
        self.widths, self.scales = (width,) * len(blocks), (1,) * len(blocks)

    def stages(self) -> list[nn.Module]:
        return list(self.blocks)


class PatchBlock(nn.Module):
    """x + MLP(norm(x)) at each position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = PositionNorm(width)
        self.up, self.down = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        return x_MCHW + self.down(F.silu(self.up(self.norm(x_MCHW))))


class NeighbourBlock(nn.Module):
    """x + convolution of the 3 x 3 positions around each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = PositionNorm(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        return x_MCHW + self.conv(F.silu(self.norm(x_MCHW)))


class Decoder(Half):
    """Latents to pixels: a middle of ``start`` channels, then a stage a width, doubling the size where ``doubles``."""

    def __init__(
        self,
        channels: int,
        latent: int,
        start: int,
        widths: Sequence[int],
        doubles: Sequence[bool],
        layers: int,
        groups: int,
        act: str,
        attention: bool,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latent, start, 3, padding=1)
        self.mid_block = _mid_block(start, groups, act, attention)
        self.up_blocks = nn.ModuleList(
            UpDecoderBlock2D(
                in_channels=before,
                out_channels=width,
                num_layers=layers,
                resnet_eps=EPS,
                resnet_act_fn=act,
                resnet_groups=groups,
                add_upsample=double,
            )
            for before, width, double in zip((start, *widths), widths, doubles, strict=False)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.widths = (start, *widths)
        self.scales = tuple(2 ** sum(doubles[:i]) for i in range(len(widths) + 1))

    def stages(self) -> list[nn.Module]:
        return [self.mid_block, *self.up_blocks]


class CodeNorm(nn.BatchNorm1d):
    """Zero mean and unit variance of each code channel over the batch and all positions of [M, d, ...]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(2)).view_as(input) if input.dim() > 2 else super().forward(input)


def code_norm(channels: int, patch_width: int | None) -> nn.Module:
    """What stands before FSQ: with patch halves a batch norm, which keeps codes in use; published, nothing.

    Takes [M, channels, ...]; in evaluation mode it is a fixed scale and shift of each channel.
    """
    return nn.Identity() if patch_width is None else CodeNorm(channels)


def _mid_block(width: int, groups: int, act: str, attention: bool) -> UNetMidBlock2D:
    no_time_embedding: Any = None
    return UNetMidBlock2D(
        in_channels=width,
        temb_channels=no_time_embedding,
        resnet_eps=EPS,
        resnet_act_fn=act,
        resnet_groups=groups,
        attention_head_dim=width,
        add_attention=attention,
    )
