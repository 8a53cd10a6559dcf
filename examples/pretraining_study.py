"""Pre-train small base models from scratch in different ways for the same time, and compare them by fitting scenes.

    python examples/planted_scenes.py PHOTOS planted
    python examples/pretraining_study.py PHOTOS planted/* -o OUT --minutes 10 --fit-steps 120

Each arm differs in one thing from the recipe of the packaged base model. It is trained for the given minutes, with a
falling learning rate, and then fitted to the scenes with the packaged model's own recipe. Prints the loss on the same
512 crops of held-out photos (comparable between arms with the same latents and schedule), and the metrics of the
scenes. Finished parts in OUT are not repeated.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from holdout import HOLDOUT, load_held_out

from realfill import FitConfig, complete, fit
from realfill.benchmark.cases import Case
from realfill.benchmark.metrics import detail, gmsd, psnr, ssim
from realfill.config import FitSettings, GeometryConfig
from realfill.models.diffusion.card import Card
from realfill.models.diffusion.hub import MINI_DIRECTORY
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.models.mini.building import build_pipeline, principal_components
from realfill.scene.windows import choose_window
from realfill.training.crops import TrainingImage, draw_crops, draw_noising, step_rng
from realfill.training.objective import Denoiser, encode_crops
from realfill.training.pretraining import PretrainConfig, load_photos, pretrain

PACKAGED = Card.load(MINI_DIRECTORY)
SHORT = {"num_warmup_steps": 50, "num_patches": 100_000}  # the defaults take too large a part of a short run
PLAIN, CROSS = ("DownBlock2D", "UpBlock2D"), ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Changes to ``PretrainConfig``, its ``FitConfig``, the U-Net, the noise schedule and the card."""

    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    attention: tuple[bool, bool, bool] = (False, True, True)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    first_px: int | None = None
    """Resolution in the first half of the time; ``None``: the same."""


ARMS = {
    "as packaged": Arm(),
    "as packaged, another seed": Arm(config={"seed": 1}),
    "patches of 4 pixels, 10 channels": Arm(config={"patch_size": 4, "latent_channels": 10}),
    "patches of 16 pixels, 160 channels": Arm(config={"patch_size": 16, "latent_channels": 160}),
    "20 channels": Arm(config={"latent_channels": 20}),
    "64 channels": Arm(config={"latent_channels": 64}),
    "first level 64 wide": Arm(config={"widths": (64, 128, 192)}),
    "first level 128 wide": Arm(config={"widths": (128, 128, 192)}),
    "attention only in the middle": Arm(attention=(False, False, False)),
    "attention on the deepest level": Arm(attention=(False, False, True)),
    "attention on all levels": Arm(attention=(True, True, True)),
    "velocity predicted": Arm(schedule={"prediction_type": "v_prediction"}),
    "velocity predicted, another seed": Arm(schedule={"prediction_type": "v_prediction"}, config={"seed": 1}),
    "Stable Diffusion's betas": Arm(
        schedule={"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    ),
    "no noise bias": Arm(recipe={"noise_bias": 1.0}),
    "noise bias of 2.5": Arm(recipe={"noise_bias": 2.5}),
    "half the learning rate": Arm(config={"learning_rate": 2.5e-4}),
    "twice the learning rate": Arm(config={"learning_rate": 1e-3}),
    "batches of 16": Arm(config={"batch_size": 16}),
    "batches of 64": Arm(config={"batch_size": 64}),
    "no running average": Arm(recipe={"ema_decay": 0.0}),
    "visible latents count in full": Arm(recipe={"visible_weight": 1.0}),
    "visible latents do not count": Arm(recipe={"visible_weight": 0.0}),
    "one rectangle": Arm(recipe={"num_rectangles": (1, 1)}),
    "small rectangles": Arm(recipe={"rectangle_size": (0.1, 0.4)}),
    "crops as large as the photo": Arm(config={"min_crop_share": 1.0}),
    "crops of any size": Arm(config={"min_crop_share": 0.1}),
    "masked image grey": Arm(card={"masked_image": "grey"}),
    "mask channel by the first pixel": Arm(card={"masked_latent": "nearest"}),
    "64 pixels first": Arm(first_px=64),
}


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pre-training with changes to its ``FitConfig``."""

    recipe: Mapping[str, Any] = field(default_factory=dict)

    def fit_settings(self) -> FitSettings:
        return dataclasses.replace(super().fit_settings(), **self.recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos to pre-train on")
    parser.add_argument("scenes", nargs="+", type=Path, help="folders with target/gt.png")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10, help="of training, for each arm")
    parser.add_argument("--fit-steps", type=int, default=120)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()

    cases = [Case.load(path) for path in options.scenes]
    print(f"{'':<36}{'samples':>9}{'loss':>8}{'PSNR':>8}{'SSIM':>8}{'GMSD':>8}{'detail':>8}   PSNR of each scene")
    for name in options.arms:
        folder = options.output / f"{options.minutes:g}" / name.replace(" ", "_").replace("'", "").replace(",", "")
        base = pretrained(ARMS[name], folder, options)
        scores = np.array([evaluated(case, base, folder, options) for case in cases])
        trained = [Card.load(path) for path in (base.parent / "first", base) if path.exists()]
        samples = sum(card.about["pretraining"]["samples"] for card in trained)
        figures = [held_out_loss(base, folder, options), *scores.mean(axis=0)]
        scenes = " ".join(f"{x:.2f}" for x in scores[:, 0])
        print(f"{name:<36}{samples:>9}" + "".join(f"{x:>8.3f}" for x in figures) + f"   {scenes}", flush=True)


def pretrained(arm: Arm, folder: Path, options: argparse.Namespace) -> Path:
    """Pre-train a base model, in one run or in two of half the time each, unless it exists."""
    base = folder / "base"
    if (base / "card.json").exists() and Card.load(base).fit:
        return base
    share = 1.0 if arm.first_px is None else 0.5
    recipe = {**arm.recipe, "time_budget_s": 60 * share * options.minutes}
    common = {
        "photos": options.photos,
        "holdout": HOLDOUT,
        "num_steps": 10**6,
        "preview_every": 10**6,
        "recipe": recipe,
        **SHORT,
        **arm.config,
    }
    init = folder / "untrained"
    card = Card(**{"resolution": 128, "masked_image": "smooth", "masked_latent": "any", **arm.card})
    if not init.exists():
        untrained(arm, Config(**{"output": init, **common})).save(init, card)
    if arm.first_px is not None:
        init = pretrain(Config(**{"output": folder / "first", "init": init, "resolution": arm.first_px, **common}))
    pretrain(Config(**{"output": base, "init": init, **common}))
    card = Card.load(base)
    dataclasses.replace(
        card,
        fit=PACKAGED.fit,
        covered_fit=PACKAGED.covered_fit,
        sample=PACKAGED.sample,
        window=PACKAGED.window,
        rank=PACKAGED.rank,
    ).save(base)
    return base


def untrained(arm: Arm, config: PretrainConfig) -> StableDiffusionInpainter:
    """Build the arm's untrained model."""
    photos = load_photos(config.photos, config.num_holdout, config.holdout)[0]
    autoencoder = principal_components(
        photos, config.patch_size, config.latent_channels, seed=config.seed, num_patches=config.num_patches
    )
    pipeline = build_pipeline(autoencoder, resolution=128, widths=config.widths, seed=config.seed)
    blocks = [CROSS if has_attention else PLAIN for has_attention in arm.attention]
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        pipeline.unet = UNet2DConditionModel.from_config(
            {
                **pipeline.unet.config,
                "down_block_types": [down for down, _ in blocks],
                "up_block_types": [up for _, up in reversed(blocks)],
            }
        )
    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config, **arm.schedule)
    return StableDiffusionInpainter.from_pipeline(pipeline, base=str(config.output), card=Card())


@torch.no_grad()
def held_out_loss(base: Path, folder: Path, options: argparse.Namespace) -> float:
    """Compute the mean loss on held-out photos, with the masks, noise and weights of the packaged recipe."""
    path = folder / "loss.json"
    if not path.exists():
        config = Config(photos=options.photos, output=folder)
        recipe = config.fit_settings()
        images = [
            TrainingImage(image=photo, crop_sides_px=(min(128, *photo.shape[:2]), min(photo.shape[:2])), mirror=True)
            for photo in load_held_out(options.photos)
        ]
        inpainter = StableDiffusionInpainter.load(str(base))
        predict, shape = Denoiser(inpainter, recipe.prompt), inpainter.latent_shape((128, 128))
        total = counted = 0.0
        for i in range(16):
            rng, generator = step_rng(0, i)
            crops = draw_crops(images, recipe, 128, 32, rng)
            latents = encode_crops(inpainter, crops, recipe.visible_weight, 32)
            noising = draw_noising(dataclasses.replace(recipe, batch_size=32), shape, rng, generator)
            noisy, timesteps, target, loss_scale = inpainter.diffuse(
                latents.sample(noising.noise[0]), noising.noise[1], noising.quantiles
            )
            model_pred = predict(noisy, timesteps, latents.mask_latents, noising.prompted)
            total += ((model_pred - target) ** 2 * loss_scale * latents.weights).sum().item()
            counted += latents.weights.sum().item() * shape[0]
        path.write_text(json.dumps(total / counted))
    return json.loads(path.read_text())


def evaluated(case: Case, base: Path, folder: Path, options: argparse.Namespace) -> list[float]:
    """Fit and complete a scene, and return the mean metrics of the samples."""
    path = folder / f"{case.name}-{options.fit_steps}.json"
    if not path.exists():
        adapter = fit(
            case.scene, FitConfig(base=str(base), num_steps=options.fit_steps), geometry=GeometryConfig(enabled=False)
        )
        window = choose_window(case.scene.mask, resolution=128, multiple=16, context=1.7)
        inside, truth = ~window.crop_mask(~case.scene.mask), window.crop(case.truth)
        images = [completion.image for completion in complete(case.scene, adapter)]
        figures = [
            [*(metric(x, case.truth, case.scene.mask) for metric in (psnr, ssim, gmsd)),
             detail(window.crop(x), truth, inside)]
            for x in images
        ]  # fmt: skip
        path.write_text(json.dumps(np.mean(figures, axis=0).tolist()))
    return json.loads(path.read_text())


if __name__ == "__main__":
    main()
