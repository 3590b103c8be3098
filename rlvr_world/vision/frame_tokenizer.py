"""The per-frame tokenizer: a convolutional encoder, FSQ, and a decoder; each frame for itself.

Published as ``thuml/rt1-frame-tokenizer`` (class ``CNNFSQModel256``): 256x320 pixels to 16x20 = 320 tokens of 4375
codes. No weight depends on the picture's size, so one tokenizer runs at any size that ``downsampling`` divides.
Shape legend: B frames, H height, W width, h rows and w columns of tokens, d channels of a code.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from rlvr_world.vision.blocks import VisualTokenizer, code_norm, halves
from rlvr_world.vision.fsq import FSQ


class FrameTokenizer(VisualTokenizer):
    """Frames to token grids and back. The fields are those of the published ``config.json``, and so are the defaults.

    ``resolution`` is only a note of the size it was trained at. Not of the published ones is ``patch_width``, of halves
    that work on patches, for small pictures; their codes are normalised over the batch, or one code would take all.
    Raises InputError for fields that do not fit.
    """

    published_name = "CNNFSQModel256"

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] | None = None,
        up_block_types: Sequence[str] | None = None,
        block_out_channels: Sequence[int] = (128, 256, 256, 512, 768),
        layers_per_block: int = 2,
        act_fn: str = "silu",
        latent_channels: int = 64,
        norm_num_groups: int = 32,
        norm_type: str = "group",
        resolution: int = 256,
        fsq_levels: int | Sequence[int] = 12,
        patch_width: int | None = None,
    ) -> None:
        super().__init__()
        self.fsq = FSQ(fsq_levels)
        self.check_config()
        self.encoder, self.decoder = halves(self.config, attention=True, shifted=True)
        code = len(self.fsq.levels)
        self.quant_linear = nn.Conv2d(latent_channels, code, 1)
        self.quant_norm = code_norm(code, patch_width)
        self.post_quant_linear = nn.Conv2d(code, latent_channels, 1)

    def encode(self, frames_B3HW: Tensor) -> Tensor:
        """Frames in [0, 1] to token indices, int64 [B, h, w]."""
        return self.fsq.quantize(self._latents(frames_B3HW), dim=1)[1]

    def decode(self, indices_Bhw: Tensor) -> Tensor:
        """Token indices to frames, float32 [B, 3, H, W], not clamped to [0, 1]."""
        return self._pixels(self.fsq.codes_of(indices_Bhw, dim=1))

    def forward(self, frames_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction, as ``decode`` gives it, and the indices; gradients pass straight through the codes."""
        codes_Bdhw, indices_Bhw = self.fsq.quantize(self._latents(frames_B3HW), dim=1)
        return self._pixels(codes_Bdhw), indices_Bhw

    def _latents(self, frames_B3HW: Tensor) -> Tensor:
        self.grid(*frames_B3HW.shape[-2:])
        return self.quant_norm(self.quant_linear(self.encoder(frames_B3HW.to(self.quant_linear.weight.dtype))[0]))

    def _pixels(self, codes_Bdhw: Tensor) -> Tensor:
        latents = self.post_quant_linear(codes_Bdhw.to(self.post_quant_linear.weight.dtype))
        return self.decoder(latents)[0].float()
