"""A linear autoencoder: square patches on their leading principal components.

Each patch is decoded from its own latent and its neighbours', which removes most of the patches' edges. It needs no
training but a decomposition and a regression, costs next to nothing, and loads wherever diffusers' ``AutoencoderKL``
does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
        decoder_reach: int = 0,
    ) -> None:
        """Build the two maps; ``from_components`` or ``from_pretrained`` fills them.

        ``decoder_reach`` is how many neighbours on each side a patch is decoded from, besides its own latent.
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

    @property
    def scale(self) -> torch.Tensor:
        """(C,): what each coefficient is divided by to become a latent."""
        return 1 / self.encoder.weight.detach().flatten(1).norm(dim=1)

    @property
    def components(self) -> torch.Tensor:
        """(C, 3, P, P), orthonormal."""
        return self.encoder.weight.detach() * self.scale.view(-1, 1, 1, 1)

    @property
    def mean(self) -> torch.Tensor:
        """(3,): the colour whose patches have the latents nearest to zero, in [-1, 1]."""
        flat = self.components.sum((2, 3))  # (C, 3): what a flat patch of each primary projects to
        assert self.encoder.bias is not None
        return torch.linalg.lstsq(flat, -self.encoder.bias.detach() * self.scale).solution

    def with_decoder(self, weight: torch.Tensor, bias: torch.Tensor) -> PatchAutoencoder:
        """Build the same encoder with another decoder.

        Args:
            weight: (C, 3, S, S): what a latent adds to the pixels around it; S the patch's side times an odd number.
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
        """Map (B, 3, H, W) in [-1, 1] to a distribution without variance over (B, C, H / patch, W / patch).

        In the precision of the weights, even under autocast: it takes no time that half precision could save.
        """
        with torch.autocast(x.device.type, enabled=False):
            mean = self.encoder(x)
        distribution = DiagonalGaussianDistribution(torch.cat([mean, torch.full_like(mean, _NO_VARIANCE)], dim=1))
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Map (B, C, h, w) back to (B, 3, h * patch, w * patch); ``generator`` is taken for the pipelines' sake."""
        reach = self.config["decoder_reach"]
        margin = 2 * reach * self.config["patch_size"]  # what the continued latents add, and half of each edge's patch
        sample = self.decoder(F.pad(z, (reach,) * 4, mode="replicate") if reach else z)
        if margin:
            sample = sample[..., margin:-margin, margin:-margin]
        return DecoderOutput(sample=sample) if return_dict else (sample,)
