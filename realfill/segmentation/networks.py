"""Detectors of transformers behind one class: Mask2Former, EoMT, RF-DETR, DETR, RT-DETR, and SAM 2 for a click."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from realfill.compute.devices import resolve_device
from realfill.errors import BaseModelError, MissingDependencyError
from realfill.io.images import ImageArray
from realfill.io.json_files import read_json
from realfill.io.model_configs import check_config, check_folder
from realfill.scene.masks import Box
from realfill.segmentation.decoding import Queries, decode, enlarge
from realfill.segmentation.instances import Instance
from realfill.segmentation.preprocessing import Preprocessing, read_values

NETWORKS = {
    "mask2former": "facebook/mask2former-swin-small-coco-instance",
    "mask2former-large": "facebook/mask2former-swin-large-coco-instance",
    "mask2former-panoptic": "facebook/mask2former-swin-large-coco-panoptic",
    "rt-detr": "PekingU/rtdetr_r50vd",
    "detr": "facebook/detr-resnet-50",
    "sam2": "facebook/sam2.1-hiera-small",
}
"""Short names of networks, and where they are on the hub."""

_KINDS = ("ForUniversalSegmentation", "ForInstanceSegmentation", "ForObjectDetection")
_TASK_DRIVEN = ("oneformer", "videomt", "grounding-dino", "mm-grounding-dino", "omdet-turbo")  # need a text or a video
_LEGAL = (
    f"legal: {', '.join(NETWORKS)}, or the hub id or folder of a network of transformers for instance or universal "
    "segmentation or for object detection"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkDetector:
    """A network that finds instances of its classes.

    Attributes:
        name: the name or hub id under which it was loaded.
        network: the network of transformers.
        preprocessing: what it expects as input.
        device: where it computes.
    """

    name: str
    network: Any
    preprocessing: Preprocessing
    device: torch.device

    @classmethod
    def load(cls, name: str, *, device: str | torch.device | None = None, local_files_only: bool = False) -> Self:
        """Load a network.

        Args:
            name: a key of ``NETWORKS``, a hub id, or a folder in the layout of transformers.
            device: where to compute. ``None``: the best available.
            local_files_only: do not use the network.

        Raises:
            BaseModelError: the network cannot be loaded, or is no detector.
            MissingDependencyError: it needs a package that is not installed.
        """
        source = NETWORKS.get(name, name)
        with _as_base_model_error(name):
            config, network, values = _load(source, local_files_only=local_files_only)
        side = getattr(config, "image_size", None)
        preprocessing = Preprocessing.of_files(
            values, str(config.model_type), side if isinstance(side, int) else None
        )  # fmt: skip
        chosen = resolve_device(device)
        return cls(name=name, network=network.to(chosen).eval(), preprocessing=preprocessing, device=chosen)

    @property
    def segments(self) -> bool:
        """Whether a click or a box, and not a photo alone, is what the network answers."""
        return str(self.network.config.model_type).startswith("sam2")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that it finds; none if it only outlines what is marked."""
        return () if self.segments else tuple(str(name) for name in self.network.config.id2label.values())

    @property
    def side_px(self) -> int:
        """The longer side of its input; larger photos are also searched in tiles."""
        return self.preprocessing.longer_px

    def find(self, image: ImageArray, *, lowest: float) -> list[Instance]:
        """Find the instances with at least a score, without numbers, in a photo (H, W, 3) uint8 sRGB."""
        if self.segments:
            raise BaseModelError(
                f"{self.name!r} finds nothing by itself, because it outlines what a click or a box marks; give a click "
                "or a box, or use another detector"
            )
        pixels, shares = self.preprocessing.prepare(image)
        with torch.inference_mode():
            outputs = self.network(pixel_values=pixels.to(self.device))
            queries = Queries.of_outputs(outputs, len(self.network.config.id2label))
        names = {int(label): str(name) for label, name in self.network.config.id2label.items()}
        return decode(queries, image, names=names, lowest=lowest, shares=shares, detector=self.name)

    def outline(
        self, image: ImageArray, *, box: Box | None = None, click: tuple[float, float] | None = None
    ) -> Instance | None:
        """Outline what a box or a click (x, y) marks; only SAM 2 can. ``None`` if it answers with an empty outline."""
        height, width = image.shape[:2]
        pixels, _ = self.preprocessing.prepare(image)
        scale = (self.preprocessing.shorter_px / width, self.preprocessing.shorter_px / height)
        prompt: dict[str, torch.Tensor] = {}
        if click is not None:
            prompt["input_points"] = torch.tensor([[[[click[0] * scale[0], click[1] * scale[1]]]]])
            prompt["input_labels"] = torch.ones(1, 1, 1, dtype=torch.int32)
        elif box is not None:
            corners = [box[1] * scale[0], box[0] * scale[1], box[3] * scale[0], box[2] * scale[1]]
            prompt["input_boxes"] = torch.tensor([[corners]])
        with torch.inference_mode():
            outputs = self.network(
                pixel_values=pixels.to(self.device), **{k: v.to(self.device) for k, v in prompt.items()}
            )
        scores = outputs.iou_scores[0, 0].float()
        best = int(scores.argmax())
        mask = enlarge(outputs.pred_masks[0, 0, best], (height, width))
        if not mask.any():
            return None
        return Instance.of_mask(mask, name="object", score=float(scores[best].clamp(0, 1)), detector=self.name)


def is_on_this_machine(name: str) -> bool:
    """Tell whether the weights of a network are in the hub's cache, so that nothing needs to be downloaded."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - takes a while to import

    source = NETWORKS.get(name, name)
    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(source, file), str) for file in files)


def _load(source: str, *, local_files_only: bool) -> tuple[Any, Any, dict[str, Any]]:
    """Load config, network and the values of the preprocessor's file."""
    import transformers  # noqa: PLC0415 - takes seconds to import
    from transformers.utils import cached_file  # noqa: PLC0415

    options: dict[str, Any] = {"local_files_only": local_files_only, "trust_remote_code": False}
    if Path(source).is_dir():
        check_folder(Path(source))
    elif (path := cached_file(source, "config.json", local_files_only=local_files_only)) is not None:
        check_config(read_json(Path(path)))
    config = transformers.AutoConfig.from_pretrained(source, **options)
    cls = _network_class(transformers, config, source)
    if source not in NETWORKS.values():  # some of those have no safetensors; transformers reads tensors only from both
        options["use_safetensors"] = True
    with _silenced():
        network = cls.from_pretrained(source, **options)
    paths = (
        cached_file(
            source, file, local_files_only=local_files_only, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        for file in ("preprocessor_config.json", "processor_config.json")
    )  # fmt: skip
    path = next((p for p in paths if p is not None), None)
    return config, network, read_values(None if path is None else Path(path).read_text(encoding="utf-8"))


def _network_class(transformers: Any, config: Any, source: str) -> Any:
    """Choose the class of a network by its config.

    Raises:
        BaseModelError: it is no detector, or needs more than a photo.
    """
    if str(config.model_type).startswith("sam2"):
        return transformers.Sam2Model
    architectures: Sequence[str] = config.architectures or ()
    name = next((a for a in architectures if a.endswith(_KINDS)), None)
    if name is None or str(config.model_type) in _TASK_DRIVEN or not hasattr(transformers, name):
        what = ", ".join(architectures) or f"a {config.model_type}"
        raise BaseModelError(f"{source!r} is no detector that needs only a photo, but {what}; {_LEGAL}")
    return getattr(transformers, name)


@contextmanager
def _as_base_model_error(name: str) -> Iterator[None]:
    try:
        yield
    except BaseModelError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"the detector {name!r} needs a package that is missing ({error}); install it, or use another detector"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BaseModelError(
            f"the detector {name!r} cannot be loaded ({reason}); {_LEGAL}. Without a network, detector='offline' needs "
            "no weights"
        ) from error


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep transformers from listing weights and drawing bars on standard error while it loads."""
    from transformers.utils import logging  # noqa: PLC0415 - takes seconds to import

    level, with_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if with_bars:
            logging.enable_progress_bar()
