"""What both visual tokenizers are made of: a folder with a config, an encoder half, a decoder half.

The residual, attention and resampling blocks are those of diffusers, so that the names of all weights are the
published ones. Shape legend: B contexts, M frames (one or more of each context, context-major), C channels, H W pixels
or positions, N = H * W, K heads, D channels of a head.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_blocks import DownEncoderBlock2D, UNetMidBlock2D, UpDecoderBlock2D
from torch import Tensor, nn

from rlvr_world.errors import InputError
from rlvr_world.system import ranks
from rlvr_world.vision.fsq import FSQ

EPS = 1e-6
Fields = Mapping[str, Any]
"""Of a visual tokenizer's config; ``block_out_channels`` are the widths from pixels to latents."""
GROUPS = 32
KeysValues = tuple[Tensor, Tensor]
"""A context feature as a cross-attention reads it: keys and values, each [B, K, N, D]."""


class VisualTokenizer(ModelMixin, ConfigMixin):
    """A tokenizer on disk as the published ones: ``config.json`` and ``diffusion_pytorch_model.safetensors``.

    The constructors of its kinds have so many parameters because these are the fields of the published config.json, and
    diffusers' ConfigMixin takes the fields from the signature; what the kinds have in common is read from ``config``.
    """

    config_name: Any = "config.json"
    to: Any = nn.Module.to  # that of ModelMixin warns of layers to be kept in float32 even where there are none
    published_name: ClassVar[str]
    """The ``_class_name`` in ``config.json``, by which the published code knows the folder too."""
    fsq: FSQ
    """The codes of the frames that are predicted."""

    def to_json_string(self) -> str:
        """The text of ``config.json``, without where it was loaded from and without fields that are unset."""
        given = {name: value for name, value in json.loads(super().to_json_string()).items() if value is not None}
        given.pop("_name_or_path", None)
        return json.dumps({**given, "_class_name": self.published_name}, indent=2, sort_keys=True) + "\n"

    @property
    def codebook_size(self) -> int:
        return self.fsq.size

    @property
    def downsampling(self) -> int:
        """Pixels a side that one position of the latent grid stands for."""
        return 2 ** (len(self.config["block_out_channels"]) - 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the latent grid of a picture; InputError where the size does not divide evenly."""
        step = self.downsampling
        if height < step or width < step or height % step or width % step:
            wanted = f"frames whose height and width are multiples of {step} pixels"
            raise InputError(f"{type(self).__name__}: expected {wanted}, got {height}x{width}; resize them")
        return height // step, width // step

    def check_config(self) -> None:
        """Raises InputError that names the config field from which no halves can be built."""
        config = self.config
        widths, groups, where = tuple(config["block_out_channels"]), config["norm_num_groups"], "tokenizer config"
        if not widths:
            raise InputError(f"{where} block_out_channels: expected at least one width, got none")
        for field, known in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            types = tuple(config[field] or [known] * len(widths))
            if types != (known,) * len(widths):
                raise InputError(f"{where} {field}: expected {len(widths)} times '{known}', got {list(types)}")
            self.register_to_config(**{field: types})
        if config["norm_type"] != "group":
            raise InputError(f"{where} norm_type: expected 'group', got '{config['norm_type']}'")
        if odd := [width for width in widths if width % groups]:
            wanted = f"multiples of norm_num_groups ({groups})"
            raise InputError(f"{where} block_out_channels: expected {wanted}, got {odd[0]}")


class PositionNorm(nn.LayerNorm):
    """Normalises the channels of each position of [M, C, H, W] for itself; a group norm mixes all positions."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class CrossAttention(nn.Module):
    """Features of a later frame look at the context's features of the same size: SiLU(z + attention(z, context)).
    Both sides are normalised and get a learned position table of their own, zero at first."""

    def __init__(self, channels: int, positions: int, local: bool) -> None:
        """``local`` normalises each position for itself; a group norm is of all positions together."""
        super().__init__()
        if channels % GROUPS:
            wanted = f"multiples of {GROUPS} where frames look at their context (max_att_resolution)"
            raise InputError(f"tokenizer config block_out_channels: expected {wanted}, got {channels}")
        self.kv_pos_emb = nn.Parameter(torch.zeros(positions, channels))
        self.q_pos_emb = nn.Parameter(torch.zeros(positions, channels))
        self.att = nn.MultiheadAttention(channels, num_heads=4, dropout=0.1, batch_first=True)
        self.kv_norm = PositionNorm(channels) if local else nn.GroupNorm(GROUPS, channels)
        self.q_norm = PositionNorm(channels) if local else nn.GroupNorm(GROUPS, channels)
        self.dropout = nn.Dropout(0.1)

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
        queries = self._heads(queries.reshape(len(keys), -1, channels))
        dropout = self.att.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        found = self.dropout(self.att.out_proj(found.transpose(1, 2).reshape(tokens.shape)))
        return F.silu(z_MCHW + found.transpose(1, 2).reshape(z_MCHW.shape))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.att.num_heads, -1)).transpose(1, 2)


class Half(nn.Module):
    """conv_in, stages (some followed by cross-attention), norm, SiLU, conv_out: an encoder or a decoder."""

    conv_in: nn.Conv2d
    conv_norm_out: nn.Module
    conv_out: nn.Module
    stages: list[nn.Module]
    """What stands between conv_in and conv_norm_out: a plain list, for each has a name of its own among the weights."""
    widths: tuple[int, ...]
    """Channels that each stage gives."""
    scales: tuple[int, ...]
    """Size a side that each stage gives, in sizes of the latent grid."""

    def add_cross_attention(self, grid: tuple[int, int], at: Sequence[int]) -> None:
        """Give the stages ``at`` a cross-attention each, for a latent grid of these rows and columns."""
        self.cross_at, local = tuple(at), isinstance(self.conv_norm_out, PositionNorm)
        self.cross_att_blocks = nn.ModuleList(
            CrossAttention(self.widths[i], grid[0] * grid[1] * self.scales[i] ** 2, local) for i in at
        )

    def forward(
        self, x_MCHW: Tensor, context: Sequence[KeysValues] = (), keep: Collection[int] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """What conv_out gives, and the features after the stages ``keep``, in the order of the stages. ``context`` has
        an entry a cross-attention, from ``keys_values``."""
        x_MCHW = self.conv_in(x_MCHW)
        kept = []
        for i, stage in enumerate(self.stages):
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
    """Pixels to latents: a stage of residual blocks a width, halving the size after all but the last; then a middle."""

    def __init__(self, config: Fields, attention: bool) -> None:
        super().__init__()
        widths = tuple(config["block_out_channels"])
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownEncoderBlock2D(
                widths[max(i - 1, 0)],
                width,
                num_layers=config["layers_per_block"],
                add_downsample=i < last,
                downsample_padding=0,
                **_resnet(config),
            )
            for i, width in enumerate(widths)
        )
        self.mid_block = _middle(config, attention)
        self.conv_norm_out = nn.GroupNorm(config["norm_num_groups"], widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], config["latent_channels"], 3, padding=1)
        self.stages = [*self.down_blocks, self.mid_block]
        self.widths = (*widths, widths[-1])
        self.scales = (*(2 ** max(last - 1 - i, 0) for i in range(len(widths))), 1)


class Decoder(Half):
    """Latents to pixels: a middle, then a stage a width from the last one on, doubling the size after all but the last.

    ``shifted``, unlike diffusers': widths are a stage ahead, the size doubles after all stages but the first, and a
    stage has as many residual blocks as the encoder's, not one more.
    """

    def __init__(self, config: Fields, attention: bool, shifted: bool) -> None:
        super().__init__()
        start, *later = config["block_out_channels"][::-1]
        widths = (*later, config["block_out_channels"][0]) if shifted else (start, *later)
        doubles = [i != (0 if shifted else len(later)) for i in range(len(widths))]
        layers = config["layers_per_block"] + (not shifted)
        self.conv_in = nn.Conv2d(config["latent_channels"], start, 3, padding=1)
        self.mid_block = _middle(config, attention)
        self.up_blocks = nn.ModuleList(
            UpDecoderBlock2D(before, width, num_layers=layers, add_upsample=double, **_resnet(config))
            for before, width, double in zip((start, *widths), widths, doubles, strict=False)
        )
        self.conv_norm_out = nn.GroupNorm(config["norm_num_groups"], widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], config["out_channels"], 3, padding=1)
        self.stages = [self.mid_block, *self.up_blocks]
        self.widths, self.scales = (start, *widths), tuple(2 ** sum(doubles[:i]) for i in range(len(widths) + 1))


def _resnet(config: Fields) -> dict[str, Any]:
    """What every block of diffusers is told."""
    return {"resnet_eps": EPS, "resnet_act_fn": config["act_fn"], "resnet_groups": config["norm_num_groups"]}


def _middle(config: Fields, attention: bool) -> UNetMidBlock2D:
    width, no_time = config["block_out_channels"][-1], cast(int, None)
    return UNetMidBlock2D(width, no_time, attention_head_dim=width, add_attention=attention, **_resnet(config))


class PatchHalf(Half):
    """A half all of whose stages have one width and the size of the latent grid."""

    def __init__(self, conv_in: nn.Conv2d, blocks: Sequence[nn.Module], conv_out: nn.Module) -> None:
        super().__init__()
        width = conv_in.out_channels
        self.conv_in, self.blocks = conv_in, nn.ModuleList(blocks)
        self.conv_norm_out, self.conv_out = PositionNorm(width), conv_out
        self.stages = list(blocks)
        self.widths, self.scales = (width,) * len(blocks), (1,) * len(blocks)


def halves(config: Fields, attention: bool, shifted: bool = False) -> tuple[Half, Half]:
    """An encoder and a decoder: the published ones (``attention`` says whether their middles have self-attention,
    ``shifted`` as in ``Decoder``), or those of ``patch_width``.

    The latter encode each patch for itself: the latent of a place where nothing moves does not change when something
    moves elsewhere, so that what a world model has to predict is what happens. They decode a patch at a time after a
    look at its neighbours, with a third of the work.
    """
    if config["patch_width"] is None:
        return Encoder(config, attention), Decoder(config, attention, shifted)
    width, latent = config["patch_width"], config["latent_channels"]
    patch = 2 ** (len(config["block_out_channels"]) - 1)
    conv_in = nn.Conv2d(config["in_channels"], width, patch, stride=patch)
    encoder = PatchHalf(conv_in, [PatchBlock(width) for _ in range(3)], nn.Conv2d(width, latent, 1))
    conv_in, both = nn.Conv2d(latent, width, 1), (NeighbourBlock, NeighbourBlock, PatchBlock, PatchBlock)
    conv_out = nn.ConvTranspose2d(width, config["out_channels"], patch, stride=patch)
    nn.init.constant_(cast(Tensor, conv_out.bias), 0.5)
    return encoder, PatchHalf(conv_in, [block(width) for block in both], conv_out)


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


class CodeNorm(nn.BatchNorm1d):
    """Zero mean and unit variance of each code channel over the batch, that of all ranks, and all positions of
    [M, d, ...]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, input: Tensor) -> Tensor:
        values_MdN = input.flatten(2) if input.dim() > 2 else input[..., None]
        if not self.training or ranks.size() == 1:
            return super().forward(values_MdN).view_as(input)
        count = ranks.total(torch.tensor(float(values_MdN[:, 0].numel()), device=input.device))
        mean_d = ranks.total(values_MdN.sum((0, 2), dtype=torch.float32)) / count  # as one process does in bfloat16 too
        centred_MdN = values_MdN - mean_d[:, None]
        var_d = ranks.total(centred_MdN.square().sum((0, 2))) / count
        with torch.no_grad():
            for kept, new in ((self.running_mean, mean_d), (self.running_var, var_d * count / (count - 1))):
                cast(Tensor, kept).lerp_(new, cast(float, self.momentum))
            cast(Tensor, self.num_batches_tracked).add_(1)
        return (centred_MdN * (var_d + self.eps).rsqrt()[:, None]).to(input.dtype).view_as(input)


def code_norm(channels: int, patch_width: int | None) -> nn.Module:
    """What stands before FSQ, for [M, channels, ...]: with patch halves a batch norm, which keeps codes in use (in
    evaluation mode a fixed scale and shift of each channel); published, nothing."""
    return nn.Identity() if patch_width is None else CodeNorm(channels)
