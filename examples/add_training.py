"""Add what several runs have taught copies of one base model.

    python examples/add_training.py START ONE ANOTHER -o BASE

Each run changed the weights of START. The result has START's weights plus the sum of all changes (task arithmetic,
Ilharco et al. 2023). Whether that keeps what each run learnt has to be measured.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import torch
import tyro

from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter


def main(
    start: tyro.conf.Positional[Path],
    trained: tyro.conf.Positional[tuple[Path, ...]],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))],
) -> None:
    base = StableDiffusionInpainter.load(str(start))
    others = [StableDiffusionInpainter.load(str(folder)) for folder in trained]
    encoder = base.pipeline.vae.state_dict()
    for folder, other in zip(trained, others, strict=True):
        found = other.pipeline.vae.state_dict()
        if found.keys() != encoder.keys() or not all(torch.equal(found[name], encoder[name]) for name in encoder):
            raise ValueError(
                f"{str(folder)!r} has another autoencoder than {str(start)!r}; legal: runs that began there"
            )
    with torch.no_grad():
        for name, parameter in base.unet.named_parameters():
            changes = [other.unet.get_parameter(name) - parameter for other in others]
            parameter.add_(torch.stack(changes).sum(dim=0))
    runs = [base.card.about.get("pretraining"), *(i.card.about.get("pretraining") for i in others)]
    base.save(output, dataclasses.replace(others[-1].card, about={**base.card.about, "pretraining": runs}))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
