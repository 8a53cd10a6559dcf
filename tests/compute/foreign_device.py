"""Run a fit step, a sample and LoFTR's backbone on a device that this machine does not have; nothing is computed.

Torch's fake tensors have a shape and a device but hold no numbers. An operation on tensors of two devices fails, as on
a real GPU. The device is registered for the whole process, so this script has a process of its own. It prints one line
of JSON: for each case, the devices of the results, or the error.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from helpers import TINY_FIT, build_tiny_klein, build_tiny_sd, make_photo
from kornia.feature import LoFTR
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from realfill.compute.devices import make_accelerator
from realfill.config import FitConfig, SampleConfig
from realfill.geometry.loftr import LoftrMatcher
from realfill.models.diffusion import sampling, stable_diffusion
from realfill.models.diffusion.families import load_family
from realfill.models.diffusion.family import ReferenceView
from realfill.models.diffusion.lora import trainable_lora
from realfill.models.diffusion.stable_diffusion import StableDiffusionInpainter
from realfill.training import objective, trainer
from realfill.training.crops import TrainingImage
from realfill.training.loop import compute_gradients

_setup_privateuseone_for_python_backend("foreign")
DEVICE = torch.device("foreign:0")


def move(module, mode):
    """Replace the parameters and buffers of a module by fake ones on the foreign device."""
    for part in module.modules():
        for kind, tensors in (("parameter", part._parameters), ("buffer", part._buffers)):
            for name, tensor in tensors.items():
                if tensor is not None:
                    with mode:
                        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
                    is_weight = kind == "parameter"
                    tensors[name] = (
                        torch.nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_weight else empty
                    )


def load(directory, mode):
    """Load a base model with LoRA layers onto the foreign device."""
    inpainter = load_family(directory)
    settings = FitConfig(base=directory, **{**TINY_FIT, "ema_decay": 0.9}).resolve(inpainter.card.fit)
    trainable = trainable_lora(inpainter, settings)
    models = inpainter.parts
    for part in {**models, "text_encoder": inpainter.pipeline.text_encoder, "vae": inpainter.pipeline.vae}.values():
        move(part, mode)
    inpainter.device = DEVICE
    if isinstance(inpainter, StableDiffusionInpainter):
        schedule = inpainter.pipeline.scheduler
        with mode:
            schedule.alphas_cumprod = torch.empty(schedule.alphas_cumprod.shape, device=DEVICE)
    else:
        inpainter.pipeline.text_encoder.to = lambda _: None  # a module cannot move fake tensors; it is there already
        with mode:
            views = [ReferenceView(reference=i, image=make_photo(40, 40 + 8 * i, i)) for i in (0, 1)]
            inpainter.use_references(views, 32)
    groups = {
        part: {name: dict(models[part].named_parameters())[name] for name in named}
        for part, named in trainable.groups.items()
    }
    return inpainter, dataclasses.replace(trainable, groups=groups), settings


def fit_step(directory, mode):
    """Take one optimizer step, and return the devices of loss, gradients, parameters and their moving averages."""
    inpainter, trainable, settings = load(directory, mode)
    with mode:
        fit = trainer.Trainer(inpainter, trainable, settings, make_accelerator(DEVICE, "no"))
        loss = compute_gradients(fit, [TrainingImage(image=make_photo(64, 96), crop_sides_px=(20, 60), reference=0)])
        fit.accelerator.clip_grad_norm_(fit.parameters, 1.0)
        fit.optimizer.step()
        fit.update_average()
        return [loss, *(p.grad for p in fit.parameters), *fit.parameters, *fit.average.values()]


def sample(directory, mode):
    """Sample two seeds from noise."""
    inpainter, *_ = load(directory, mode)
    family, scheduler = type(inpainter), "dpm++" if isinstance(inpainter, StableDiffusionInpainter) else "euler"
    make = family.make_scheduler

    def make_real(*args, **kwargs):  # a scheduler's own numbers stay on the CPU, and it reads them
        with unset_fake_temporarily():
            scheduler = make(*args, **kwargs)
        scheduler.set_begin_index(0)
        return scheduler

    family.make_scheduler = make_real
    try:
        with mode:
            settings = SampleConfig(scheduler=scheduler, num_inference_steps=2, guidance_scale=2.0).resolve({})
            image, hole = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
            return [sampling.sample(inpainter, image, hole, seeds=[0, 1], settings=settings)]
    finally:
        family.make_scheduler = make


def loftr_features(_directory, mode):
    """Run LoFTR's backbone; matching itself depends on the values, which a fake tensor does not have."""
    model = LoFTR(None)
    move(model, mode)
    matcher = LoftrMatcher.__new__(LoftrMatcher)
    matcher._model, matcher._device, matcher._max_size_px = model.eval(), DEVICE, 64
    with mode:
        return list(matcher.extract(np.zeros((48, 64, 3), np.uint8)).maps.values())


def left_on_the_cpu(case):
    """Run a case with the mistake that this test is for: a tensor is not sent to the device."""

    def run(directory, mode):
        modules, send = (objective, stable_diffusion, sampling, trainer), objective.send
        for module in modules:
            module.send = lambda tensor, _device: tensor
        try:
            return case(directory, mode)
        finally:
            for module in modules:
                module.send = send

    return run


CASES = {
    "fit step": fit_step,
    "sample": sample,
    "LoFTR features": loftr_features,
    "fit step with a tensor left on the CPU": left_on_the_cpu(fit_step),
    "sample with a tensor left on the CPU": left_on_the_cpu(sample),
    "klein fit step": fit_step,
    "klein sample": sample,
    "klein fit step with a tensor left on the CPU": left_on_the_cpu(fit_step),
}


def main():
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        bases = [str(build(Path(directory) / build.__name__)) for build in (build_tiny_sd, build_tiny_klein)]
        for name, case in CASES.items():
            try:
                tensors = case(bases["klein" in name], FakeTensorMode(allow_non_fake_inputs=True))
                results[name] = sorted({str(tensor.device) for tensor in tensors})
            except Exception as error:  # noqa: BLE001 - the error is the result
                results[name] = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
