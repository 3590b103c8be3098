"""The compressive tokenizer: a context frame in full, each later frame as what is new in it, in few tokens.

Published as ``thuml/rt1-compressive-tokenizer`` (class ``CompressiveVQModelFSQ``): 256x320 pixels, 32x40 = 1280
context tokens once, then 8x10 = 80 tokens a frame. A pair of halves handles the context frame alone; a second pair
handles each later frame and looks at the context's features by cross-attention: unquantised ones where it encodes,
ones decoded from the context's tokens where it decodes, so that tokens are all that decoding needs.
Shape legend: B contexts, F later frames, R rows of dynamics tokens (one or more a context, context-major), H height,
W width, hc wc latent grid, N = hc * wc context tokens, n tokens of a later frame, d channels of a code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from rlvr_world.errors import InputError
from rlvr_world.vision.blocks import KeysValues, VisualTokenizer, code_norm, halves
from rlvr_world.vision.fsq import FSQ

ContextFeatures = list[KeysValues]
"""What decoding later frames needs of B contexts; computed once for any number of later frames."""


class CompressiveTokenizer(VisualTokenizer):
    """Clips to tokens and back. The fields are those of the published ``config.json``, and so are the defaults.

    Besides them, ``context_grid`` gives rows and columns of the latent grid that the position tables are made for; None
    is the published rule, ``resolution`` pixels high and 5/4 of that wide. Halves look at the context wherever their
    feature is at most ``max_att_resolution`` high; ``context_length`` is always 1. ``lookup_from_codebook``,
    ``force_upcast``, ``sample_size`` and ``scaling_factor`` mean nothing, but published folders have them.
    ``patch_width`` is that of FrameTokenizer, for all halves. Raises InputError for fields that do not fit together.
    """

    published_name = "CompressiveVQModelFSQ"

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] | None = None,
        up_block_types: Sequence[str] | None = None,
        block_out_channels: Sequence[int] = (128, 256, 256, 512),
        layers_per_block: int = 2,
        act_fn: str = "silu",
        latent_channels: int = 64,
        norm_num_groups: int = 32,
        norm_type: str = "group",
        mid_block_add_attention: bool = False,
        resolution: int = 256,
        max_att_resolution: int = 32,
        patch_size: int = 4,
        context_length: int = 1,
        vq_fsq_levels: int | Sequence[int] = 12,
        dyn_fsq_levels: int | Sequence[int] = 12,
        lookup_from_codebook: bool = True,
        force_upcast: bool = True,
        sample_size: int = 32,
        scaling_factor: float = 0.18215,
        context_grid: Sequence[int] | None = None,
        patch_width: int | None = None,
    ) -> None:
        super().__init__()
        self.check_config()
        high = resolution // self.downsampling
        rows, columns = (high, high // 4 * 5) if context_grid is None else context_grid
        self.context_grid = (rows, columns)
        if context_length != 1:
            raise InputError(f"tokenizer config context_length: expected 1 context frame, got {context_length}")
        if rows % patch_size or columns % patch_size:
            wanted = f"a divisor of the latent grid's sides ({rows}x{columns})"
            raise InputError(f"tokenizer config patch_size: expected {wanted}, got {patch_size}")
        self.encoder, self.decoder = halves(self.config, mid_block_add_attention)
        self.cond_encoder, self.cond_decoder = halves(self.config, attention=True)
        small = max_att_resolution / rows
        # The middle of the encoder is of the size of the stage before it, and does not look again.
        encode_at = [i for i, scale in enumerate(self.cond_encoder.scales[:-1]) if scale <= small]
        decode_at = [i for i, scale in enumerate(self.cond_decoder.scales) if scale <= small]
        if not encode_at or not decode_at:
            wanted = f"at least the {rows} rows of the latent grid, for later frames to see their context"
            raise InputError(f"tokenizer config max_att_resolution: expected {wanted}, got {max_att_resolution}")
        self.cond_encoder.add_cross_attention(self.context_grid, encode_at)
        self.cond_decoder.add_cross_attention(self.context_grid, decode_at)

        self.context_fsq, self.fsq = FSQ(vq_fsq_levels), FSQ(dyn_fsq_levels)
        context_code, code = len(self.context_fsq.levels), len(self.fsq.levels)
        patch = patch_size**2 * latent_channels
        self.quant_conv = nn.Conv2d(latent_channels, context_code, 1)
        self.post_quant_conv = nn.Conv2d(context_code, latent_channels, 1)
        self.quant_linear = nn.Linear(patch, code)
        self.quant_norm, self.dynamics_norm = code_norm(context_code, patch_width), code_norm(code, patch_width)
        self.post_quant_linear = nn.Linear(code, patch)

    @property
    def frame_grid(self) -> tuple[int, int]:
        """Rows and columns of a later frame's tokens."""
        patch = self.config["patch_size"]
        return self.context_grid[0] // patch, self.context_grid[1] // patch

    @property
    def context_tokens(self) -> int:
        """Tokens of the context frame."""
        return self.context_grid[0] * self.context_grid[1]

    def encode(self, clip_BT3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Clips in [0, 1], the context frame first, to int64 context tokens [B, N] and dynamics tokens [B, F, n]."""
        _, context_Bhw, _, dynamics_BFn = self._quantize(clip_BT3HW)
        return context_Bhw.flatten(1), dynamics_BFn

    def decode(self, context_BN: Tensor, dynamics_BFn: Tensor) -> Tensor:
        """Tokens to clips, the context frame first: float32 [B, 1 + F, 3, H, W], not clamped to [0, 1]."""
        frame_B3HW, features = self.context_features(context_BN)
        return torch.cat([frame_B3HW[:, None], self.decode_frames(features, dynamics_BFn)], dim=1)

    def context_features(self, context_BN: Tensor) -> tuple[Tensor, ContextFeatures]:
        """The context frame, float32 [B, 3, H, W], and what ``decode_frames`` needs of it."""
        return self._decode_context(self.context_fsq.codes_of(context_BN.unflatten(1, self.context_grid), dim=1))

    def decode_frames(self, features: ContextFeatures, dynamics_RFn: Tensor) -> Tensor:
        """Later frames, float32 [R, F, 3, H, W]; R is a multiple of the contexts, the rows of a context together."""
        return self._decode_dynamics(features, self.fsq.codes_of(dynamics_RFn))

    def forward(self, clip_BT3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The reconstructed clip as ``decode`` gives it, context tokens [B, N], dynamics tokens [B, F, n]."""
        context_codes, context_Bhw, codes_BFnd, dynamics_BFn = self._quantize(clip_BT3HW)
        frame_B3HW, features = self._decode_context(context_codes)
        clip = torch.cat([frame_B3HW[:, None], self._decode_dynamics(features, codes_BFnd)], dim=1)
        return clip, context_Bhw.flatten(1), dynamics_BFn

    def _quantize(self, clip_BT3HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes and indices of the context [B, d, hc, wc], [B, hc, wc]; of later frames [B, F, n, d], [B, F, n]."""
        _, frames, _, height, width = clip_BT3HW.shape
        if self.grid(height, width) != self.context_grid or frames < 2:
            rows, columns = (side * self.downsampling for side in self.context_grid)
            wanted, got = f"clips of 2 or more frames of {rows}x{columns} pixels", f"{frames} of {height}x{width}"
            raise InputError(f"CompressiveTokenizer: expected {wanted}, got {got}; resize them, or train another one")
        clip_BT3HW = clip_BT3HW.to(self.quant_conv.weight.dtype)
        latents_Bchw, features = self.encoder(clip_BT3HW[:, 0], keep=self.cond_encoder.cross_at)
        context_codes, context_Bhw = self.context_fsq.quantize(self.quant_norm(self.quant_conv(latents_Bchw)), dim=1)
        later = clip_BT3HW[:, 1:]
        latents_Mchw, _ = self.cond_encoder(later.flatten(0, 1), self.cond_encoder.keys_values(features))
        changes_Mnd = self.quant_linear(self._patches(latents_Mchw))
        codes, indices = self.fsq.quantize(self.dynamics_norm(changes_Mnd.flatten(0, 1)).view_as(changes_Mnd))
        return context_codes, context_Bhw, codes.unflatten(0, later.shape[:2]), indices.unflatten(0, later.shape[:2])

    def _decode_context(self, codes_Bdhw: Tensor) -> tuple[Tensor, ContextFeatures]:
        latents = self.post_quant_conv(codes_Bdhw.to(self.post_quant_conv.weight.dtype))
        frame, features = self.decoder(latents, keep=self.cond_decoder.cross_at)
        return frame.float(), self.cond_decoder.keys_values(features)

    def _decode_dynamics(self, features: ContextFeatures, codes_RFnd: Tensor) -> Tensor:
        patches = self.post_quant_linear(codes_RFnd.to(self.post_quant_linear.weight.dtype))
        frames, _ = self.cond_decoder(self._unpatched(patches.flatten(0, 1)), features)
        return frames.float().unflatten(0, codes_RFnd.shape[:2])

    def _patches(self, latents_Mchw: Tensor) -> Tensor:
        """Latents to patches row by row [M, n, row * column * channel], the channel running fastest."""
        patch = self.config["patch_size"]
        blocks = latents_Mchw.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # M c i row j column
        return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def _unpatched(self, patches_Mnp: Tensor) -> Tensor:
        """What ``_patches`` took apart, put together again."""
        patch = self.config["patch_size"]
        blocks = patches_Mnp.unflatten(2, (patch, patch, -1)).unflatten(1, self.frame_grid)  # M i j row column c
        return blocks.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
