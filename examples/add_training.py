"""Add what several runs have taught copies of one base model.

    python examples/add_training.py START ONE ANOTHER -o BASE --shares 1 0.5

Each run changed the weights of START. The result has START's weights plus the given shares of all changes (task
arithmetic, Ilharco et al. 2023). Whether that keeps what each run learnt has to be measured.
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
    shares: tuple[float, ...] = (),
) -> None:
    """Write START plus the changes of the runs.

    Args:
        start: folder of the base model that the runs began with.
        trained: folders of their results.
        output: folder for the sum.
        shares: how much of each run's change is added. Empty: all of it.
    """
    shares = shares or (1.0,) * len(trained)
    if not trained or len(shares) != len(trained):
        raise ValueError(f"there are {len(trained)} runs and {len(shares)} shares; legal: one share for each run")
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
            before = parameter.clone()
            for other, share in zip(others, shares, strict=True):
                parameter.add_(other.unet.get_parameter(name) - before, alpha=share)
    runs = [inpainter.card.about.get("pretraining") for inpainter in (base, *others)]
    card = dataclasses.replace(
        base.card, reads_hints=any(other.card.reads_hints for other in others),
        about={**base.card.about, "pretraining": runs, "shares": shares},
    )  # fmt: skip
    base.save(output, card)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
