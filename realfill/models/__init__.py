"""The only room that knows diffusers, peft, transformers and kornia: base models, adapters, matchers."""

from realfill.models._quiet import quiet

with quiet():  # on its first import it tells everyone without torchvision so, which nothing here needs
    from diffusers import StableDiffusionInpaintPipeline  # noqa: F401
