"""A linear autoencoder: it projects square patches onto their leading principal components.

Each patch is decoded from its own latent and its neighbours, which hides most edges between patches. It is built by a
decomposition and a regression instead of training, is very fast, and replaces diffusers' ``AutoencoderKL``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

_NO_VARIANCE = -30.0  # log variance, the minimum of DiagonalGaussianDistribution


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Encodes each patch of an image by a linear map; has the interface of ``AutoencoderKL``.

    Only the length of ``block_out_channels`` matters: it is log2(patch_size) + 1, and diffusers' pipelines derive the
    size of a latent from it.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: int = 8,
        latent_channels: int = 20,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),
        decoder_reach: int = 0,
    ) -> None:
        """Build the two maps; ``from_components`` or ``from_pretrained`` sets their weights.

        ``decoder_reach`` is the number of neighbours on each side that a patch is decoded from.
        """
        super().__init__()
        if 2 ** (len(block_out_channels) - 1) != patch_size:
            raise ValueError(f"block_out_channels has {len(block_out_channels)} entries; legal: log2({patch_size}) + 1")
        self.encoder = nn.Conv2d(3, latent_channels, patch_size, stride=patch_size)
        side = patch_size * (2 * decoder_reach + 1)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, side, stride=patch_size)

    @classmethod
    def from_components(cls, mean: torch.Tensor, components: torch.Tensor, scale: torch.Tensor) -> PatchAutoencoder:
        """Build from a principal component analysis of patches.

        Args:
            mean: (3,), the mean colour, in [-1, 1].
            components: (C, 3, P, P), orthonormal; P is a power of two.
            scale: (C,), divisor that turns each coefficient into a latent.
        """
        channels, _, patch_size, _ = components.shape
        blocks = (1,) * patch_size.bit_length()
        model = cls(patch_size=patch_size, latent_channels=channels, block_out_channels=blocks)
        encoder, decoder, scale = model.encoder, model.decoder, scale.view(-1, 1, 1, 1)
        assert encoder.bias is not None
        assert decoder.bias is not None
        with torch.no_grad():
            encoder.weight.copy_(components / scale)
            encoder.bias.copy_(-(components * mean.view(1, 3, 1, 1) / scale).sum((1, 2, 3)))
            decoder.weight.copy_(components * scale)
            decoder.bias.copy_(mean)
        return model

    @property
    def scale(self) -> torch.Tensor:
        """Divisor (C,) that turns each coefficient into a latent."""
        return 1 / self.encoder.weight.detach().flatten(1).norm(dim=1)

    @property
    def components(self) -> torch.Tensor:
        """Orthonormal components (C, 3, P, P)."""
        return self.encoder.weight.detach() * self.scale.view(-1, 1, 1, 1)

    @property
    def mean(self) -> torch.Tensor:
        """The colour (3,) in [-1, 1] whose patches have latents nearest to zero."""
        flat = self.components.sum((2, 3))  # (C, 3): projection of a flat patch of each primary colour
        assert self.encoder.bias is not None
        return torch.linalg.lstsq(flat, -self.encoder.bias.detach() * self.scale).solution

    def with_decoder(self, weight: torch.Tensor, bias: torch.Tensor) -> PatchAutoencoder:
        """Return an autoencoder with the same encoder and another decoder.

        Args:
            weight: (C, 3, S, S), contribution of a latent to the pixels around it; S is an odd multiple of the
                patch's side.
            bias: (3,).
        """
        patch_size = self.config["patch_size"]
        reach = (weight.shape[-1] // patch_size - 1) // 2
        model = type(self)(
            patch_size=patch_size, latent_channels=len(weight), decoder_reach=reach,
            block_out_channels=self.config["block_out_channels"],
        )  # fmt: skip
        model.encoder.load_state_dict(self.encoder.state_dict())
        model.decoder.load_state_dict({"weight": weight, "bias": bias})
        return model

    def encode(
        self, x: torch.Tensor, return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Encode images (B, 3, H, W) in [-1, 1] to a distribution without variance over (B, C, H / patch, W / patch).

        The precision is that of the weights, even under autocast, because half precision would save no time.
        """
        with torch.autocast(x.device.type, enabled=False):
            mean = self.encoder(x)
        distribution = DiagonalGaussianDistribution(torch.cat([mean, torch.full_like(mean, _NO_VARIANCE)], dim=1))
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Decode latents (B, C, h, w) to images (B, 3, h * patch, w * patch); ``generator`` has no effect."""
        reach = self.config["decoder_reach"]
        margin = (
            2 * reach * self.config["patch_size"]
        )  # pixels of the padded latents, and overhang of those at the edge
        sample = self.decoder(F.pad(z, (reach,) * 4, mode="replicate") if reach else z)
        if margin:
            sample = sample[..., margin:-margin, margin:-margin]
        return DecoderOutput(sample=sample) if return_dict else (sample,)
