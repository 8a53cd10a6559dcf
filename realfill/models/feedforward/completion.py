"""The completion network (Iizuka, Simo-Serra, Ishikawa: Globally and Locally Consistent Image Completion, 2017).

Layers, kernels, strides and dilations are those of the paper's table 1; ``width`` makes a slimmer network. A pixel of
its output depends on input pixels up to 153 pixels away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from realfill.errors import BaseModelError
from realfill.io.files import whole_file
from realfill.io.json_files import parse_json
from realfill.models.feedforward.network import padded_call

WEIGHTS_NAME = "completion.safetensors"
PACKAGED_WEIGHTS = Path(__file__).parent / "weights" / WEIGHTS_NAME
MULTIPLE = 4  # two layers of stride 2
_FORMAT = "realfill completion network 1"
_FIRST = "layers.0.0.weight"
_MAX_RESOLUTION = 8192


class CompletionNetwork(nn.Module):
    """The completion network: 17 layers, from an image with a hole to a whole image.

    Attributes:
        width: channels of the first layer; the paper's is 64. The others are half of it to four times as many.
        resolution: side in pixels of its training crops.
        mean: (1, 3, 1, 1), the mean colour of its training photos, which the hole shows at the input.
    """

    name = "completion"
    mean: torch.Tensor

    def __init__(
        self, *, width: int = 64, resolution: int = 256, mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    ) -> None:
        """Make an untrained network.

        Raises:
            ValueError: ``width`` is odd or below 2.
        """
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"width is {width}; legal: even numbers from 2")
        self.width, self.resolution = width, resolution
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        w = width
        self.layers = nn.Sequential(
            _convolution(4, w, kernel=5),
            _convolution(w, 2 * w, stride=2),
            _convolution(2 * w, 2 * w),
            _convolution(2 * w, 4 * w, stride=2),
            _convolution(4 * w, 4 * w),
            _convolution(4 * w, 4 * w),
            *(_convolution(4 * w, 4 * w, dilation=dilation) for dilation in (2, 4, 8, 16)),
            _convolution(4 * w, 4 * w),
            _convolution(4 * w, 4 * w),
            _deconvolution(4 * w, 2 * w),
            _convolution(2 * w, 2 * w),
            _deconvolution(2 * w, w),
            _convolution(w, w // 2),
            nn.Sequential(nn.Conv2d(w // 2, 3, 3, padding=1), nn.Sigmoid()),
        )

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.mean.device

    def forward(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Predict an image whose sides are multiples of 4.

        Args:
            image: (B, 3, H, W) in [0, 1]. The pixels in the hole have no influence.
            hole: (B, 1, H, W) bool, True = fill.

        Returns:
            (B, 3, H, W) in [0, 1].
        """
        return self.layers(torch.cat([torch.where(hole, self.mean, image), hole.to(image.dtype)], dim=1))

    @torch.inference_mode()
    def predict(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Predict an image of any size; see ``Network.predict``. The network should be in evaluation mode."""
        return padded_call(self, image.to(self.device), hole.to(self.device), multiple=MULTIPLE).float().cpu()

    def save(self, folder: str | PathLike[str], about: Mapping[str, Any] | None = None) -> Path:
        """Write the weights into an existing folder, as one file in half precision.

        Args:
            folder: the folder.
            about: information for people, as plain JSON values.

        Raises:
            OutputError: the file cannot be written.
        """
        path = Path(folder) / WEIGHTS_NAME
        tensors = {name: _stored(tensor) for name, tensor in self.state_dict().items() if name != "mean"}
        card = {
            "width": self.width, "resolution": self.resolution, "mean": self.mean.flatten().tolist(),
            "about": dict(about or {}),
        }  # fmt: skip
        with whole_file(path) as partial:
            save_file(tensors, partial, metadata={"format": _FORMAT, "card": json.dumps(card)})
        return path

    @classmethod
    def load(cls, source: str | PathLike[str] | None = None, device: torch.device | None = None) -> Self:
        """Load weights that ``save`` wrote, in evaluation mode and single precision.

        Args:
            source: the file, or the folder that holds it. ``None``: the packaged weights.
            device: where to compute. ``None``: the CPU.

        Raises:
            BaseModelError: there is no such file, or it holds other weights.
        """
        path = PACKAGED_WEIGHTS if source is None else Path(source)
        path = path / WEIGHTS_NAME if path.is_dir() else path
        if not path.is_file():
            raise BaseModelError(
                f"there are no weights of a completion network at {str(path)!r}; legal: {WEIGHTS_NAME}, or the folder "
                "in which realfill train-completion wrote it"
            )
        try:
            card = _read_card(path)
            red, green, blue = map(float, card["mean"])
            network = cls(width=card["width"], resolution=card["resolution"], mean=(red, green, blue))
            network.load_state_dict({**load_file(path), "mean": network.mean})
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, ArithmeticError) as error:
            raise BaseModelError(
                f"{str(path)!r} is damaged or holds no completion network ({error}); legal: a file that realfill "
                "train-completion wrote"
            ) from error
        return network.requires_grad_(requires_grad=False).eval().to(device or torch.device("cpu"))


def _read_card(path: Path) -> dict[str, Any]:
    """Read the card, and check it against the weights before a network of its size is made."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}")
        width = file.get_slice(_FIRST).get_shape()[0] if _FIRST in file.keys() else None  # noqa: SIM118
    card = parse_json(metadata["card"])
    if type(card["width"]) is not int or card["width"] != width:
        raise ValueError(f"its width is {card['width']!r}, and its weights have {width}")
    resolution, mean = card["resolution"], card["mean"]
    if type(resolution) is not int or not 0 < resolution <= _MAX_RESOLUTION:
        raise ValueError(f"its resolution is {resolution!r}; legal: from 1 to {_MAX_RESOLUTION}")
    if len(mean) != 3 or not all(0 <= level <= 1 for level in mean):
        raise ValueError(f"its mean colour is {mean!r}; legal: three numbers in [0, 1]")
    return card


def _convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Module:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _deconvolution(inputs: int, outputs: int) -> nn.Module:
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """Convert a tensor for a file: half precision, but for the statistics of a batch normalization."""
    tensor = tensor.detach().cpu()
    return (tensor.half() if tensor.ndim == 4 else tensor).contiguous()
