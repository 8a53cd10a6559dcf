"""Would it pay to sample only the promising seeds to the end?

Fits the packaged base to scenes, samples many seeds, and scores a preview of each part-way through: the clean image
that the model expects at that step, blended and ranked like a completion. Then asks, over many random groups of 16 of
the seeds: if only the better half of each group by its previews had gone on, would the seed that ranks first at the end
be among them, what would the top-ranked completion lose in PSNR, and what time would be saved?

    python examples/pruning_study.py FOLDER                # the demo's scene, and a planted one
    python examples/pruning_study.py FOLDER SCENES/*       # cases with ground truth, in RealBench's layout

FOLDER keeps the adapters for a second run.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch

from realfill import Completions, FitConfig, SampleConfig, Scene, fit, rank
from realfill.cases import Case
from realfill.demo import demo_scene
from realfill.filling.blending import blend
from realfill.filling.windows import choose_window
from realfill.io.images import to_tensor
from realfill.metrics import psnr
from realfill.models.adapter import Adapter, attach
from realfill.models.inpainter import Inpainter
from realfill.results import Completion

GROUP, KEPT, DRAWS = 16, 8, 4000
HEADER = """\
| after step | rank correlation with final order | best survives | PSNR lost | time saved | of sampling alone |
|---|---|---|---|---|---|"""


def planted_scene():
    """A photo with a hole, and the same photo seen from a little further to the side, in other light."""
    photo = skimage.data.coffee()
    height, width = photo.shape[:2]
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    moved = np.float32([[30, 12], [width - 5, 0], [width - 25, height - 10], [8, height]])
    matrix = cv2.getPerspectiveTransform(corners, moved)
    seen = cv2.warpPerspective(photo, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    reference = (seen * 0.9 + np.array([8, 4, 0])).round().clip(0, 255).astype(np.uint8)
    mask = cv2.ellipse(np.zeros((height, width), np.uint8), (330, 190), (110, 90), 0, 0, 360, 1, -1) > 0
    return Scene([reference], np.where(mask[:, :, None], 0, photo).astype(np.uint8), mask), photo


def adapter_of(scene, folder, num_steps):
    folder = folder / f"{num_steps}-steps"
    if (folder / "adapter.json").exists():
        return Adapter.load(folder)
    adapter = fit(scene, FitConfig(base="mini", num_steps=num_steps), progress=False)
    adapter.save(folder)
    return adapter


@torch.no_grad()
def trajectories(inpainter, scene, config, seeds):
    """Sample as the library does, and keep what the model expects at each step: steps of (seeds, 3, H, W)."""
    window = choose_window(
        scene.mask, resolution=inpainter.resolution, multiple=inpainter.latent_px, context=config.context
    )
    steps = inpainter.make_scheduler(config.scheduler, config.num_inference_steps)
    hole = torch.from_numpy(window.crop_mask(scene.mask))[None, None]
    condition = inpainter.condition(to_tensor(window.crop(scene.known)), hole).expand(len(seeds), -1, -1, -1)
    shape = (1, *inpainter.latent_shape(window.size))
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    latents = torch.cat([torch.randn(shape, generator=g) for g in generators])

    def predict(who, timestep):
        embeddings = who.embed([config.prompt]).repeat_interleave(len(seeds), dim=0)
        return who.predict(latents, timestep.expand(len(seeds)), condition, embeddings)

    previews = []
    for timestep in steps.timesteps:
        guess = predict(inpainter, timestep)
        if inpainter.unfitted is not None:
            base = predict(inpainter.unfitted, timestep)
            guess = base + config.guidance_scale * (guess - base)
        made = steps.step(guess, timestep, latents, generator=generators)
        latents = made.prev_sample
        previews.append(inpainter.decode(made.pred_original_sample))
    return window, [*previews[:-1], inpainter.decode(latents)]


def scored(scene, truth, window, images, seeds):
    """Blend and rank: the place of each seed, its PSNR, and the seconds that ranking took."""
    known, items = scene.known, []
    for seed, image in zip(seeds, images, strict=True):
        patch = window.restore(image.permute(1, 2, 0).numpy() * 255)
        hole = scene.mask[window.slices]
        filled = blend(
            known[window.slices], hole, patch, method=SampleConfig().blend, scale=window.scale, dtype=np.uint8
        )[hole]
        items.append(Completion(scene=scene, filled=filled, seed=seed, provenance={"rank": {"matcher": "registered"}}))
    start = time.perf_counter()
    ranked = rank(Completions(items=tuple(items), scene=scene), progress=False)
    seconds = time.perf_counter() - start
    place = {c.seed: i for i, c in enumerate(ranked)}
    return np.array([place[s] for s in seeds]), np.array([psnr(c.image, truth, scene.mask) for c in items]), seconds


def study(name, scene, truth, adapter, num_seeds):
    inpainter = Inpainter.load("mini")
    config = SampleConfig(prompt=adapter.config.prompt, scheduler="ddpm").resolve(inpainter.card.sample)
    if config.guided_from_base:
        inpainter.keep_unfitted()
    attach(inpainter, adapter)
    seeds = range(num_seeds)
    start = time.perf_counter()
    window, images = trajectories(inpainter, scene, config, seeds)
    sampled = time.perf_counter() - start
    final, quality, ranked = scored(scene, truth, window, images[-1], seeds)
    print(f"\n{name}: {num_seeds} seeds, sampling {sampled:.1f} s (previews decoded too), ranking {ranked:.1f} s")
    print(
        f"PSNR of all {quality.mean():.2f}, of the top-ranked {quality[final.argmin()]:.2f}, best {quality.max():.2f}"
    )
    print(HEADER)
    rng = np.random.default_rng(0)
    groups = [rng.permutation(num_seeds)[:GROUP] for _ in range(DRAWS)]
    total, rows = len(images), {}
    for step in (1, total // 4, total // 3, total // 2, 2 * total // 3, total - 2):
        order, _, previewed = scored(scene, truth, window, images[step - 1], seeds)
        survives, lost = [], []
        for group in groups:
            best = group[final[group].argmin()]
            kept = group[np.argsort(order[group])[:KEPT]]
            chosen = kept[final[kept].argmin()]
            survives.append(best in kept)
            lost.append(quality[best] - quality[chosen])
        # only half of the seeds are ranked at the end; what both rankings do once for a scene isn't told apart
        whole, pruned = sampled + ranked, sampled * (1 + step / total) / 2 + previewed + ranked / 2
        alone = (1 - step / total) / 2
        correlation = np.corrcoef(order, final)[0, 1]  # both are ranks
        rows[step] = (correlation, np.mean(survives), np.mean(lost), 1 - pruned / whole, alone)
        print(row(step, rows[step]), flush=True)
    return rows


def row(step, values):
    correlation, survives, lost, saved, alone = values
    return f"| {step} | {correlation:.2f} | {survives:.0%} | {lost:+.2f} dB | {saved:+.0%} | {alone:.0%} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scenes", nargs="*", type=Path)
    parser.add_argument("--num-steps", type=int, default=350, help="of each fit")
    parser.add_argument("--num-seeds", type=int, default=64)
    options = parser.parse_args()
    cases = [Case.load(path) for path in options.scenes]
    scenes = [(case.name, case.scene, case.truth) for case in cases]
    found = [
        study(name, scene, truth, adapter_of(scene, options.folder / name, options.num_steps), options.num_seeds)
        for name, scene, truth in scenes or [("demo", *demo_scene()), ("planted", *planted_scene())]
    ]
    print(f"\nmean of {len(found)} scenes\n{HEADER}")
    for step in found[0]:
        print(row(step, np.mean([rows[step] for rows in found], axis=0)))


if __name__ == "__main__":
    main()
