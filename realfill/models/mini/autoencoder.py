"""A linear autoencoder: square patches on their leading principal components.

It needs no training but one decomposition, costs next to nothing, and loads wherever diffusers'
``AutoencoderKL`` does.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

_NO_VARIANCE = -30.0  # log variance, as low as DiagonalGaussianDistribution goes


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Encode each patch of an image by a linear map, with ``AutoencoderKL``'s interface.

    ``block_out_channels`` has no meaning but its length, log2(patch_size) + 1, from which diffusers' pipelines derive
    the size of a latent.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: int = 8,
        latent_channels: int = 20,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),
    ) -> None:
        """Build the two maps; ``from_components`` or ``from_pretrained`` fills them."""
        super().__init__()
        if 2 ** (len(block_out_channels) - 1) != patch_size:
            raise ValueError(f"block_out_channels has {len(block_out_channels)} entries; legal: log2({patch_size}) + 1")
        self.encoder = nn.Conv2d(3, latent_channels, patch_size, stride=patch_size)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, patch_size, stride=patch_size)

    @classmethod
    def from_components(cls, mean: torch.Tensor, components: torch.Tensor, scale: torch.Tensor) -> PatchAutoencoder:
        """Build from a principal component analysis of patches.

        Args:
            mean: (3,), the mean colour, in [-1, 1].
            components: (C, 3, P, P), orthonormal; P a power of two.
            scale: (C,), what each coefficient is divided by to become a latent.
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

    def encode(
        self, x: torch.Tensor, return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Map (B, 3, H, W) in [-1, 1] to a distribution without variance over (B, C, H / patch, W / patch)."""
        mean = self.encoder(x)
        distribution = DiagonalGaussianDistribution(torch.cat([mean, torch.full_like(mean, _NO_VARIANCE)], dim=1))
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Map (B, C, h, w) back to (B, 3, h * patch, w * patch); ``generator`` is taken for the pipelines' sake."""
        sample = self.decoder(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)
