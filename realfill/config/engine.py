"""The names of the engines, apart from their code, so that the command line can show them without loading torch."""

from typing import Final, Literal

EngineName = Literal["smooth", "telea", "shiftmap", "completion", "lama", "migan", "base"]
"""Everything that fills a hole from the photo around it, without references.

``smooth``: a smooth fill. ``telea`` and ``shiftmap``: OpenCV's methods. ``completion``: the completion network, with
packaged weights or those that ``realfill train-completion`` wrote. ``lama`` and ``migan``: published networks,
downloaded once. ``base``: a diffusion model without a fit.
"""

EraseEngineName = Literal["composite", "fit", EngineName]
"""What ``erase`` can fill with: the references, and an engine for what they do not show; a fit to them; or an engine
that needs none."""
CLASSICAL_ENGINES: Final = ("smooth", "telea", "shiftmap")
"""The engines that are no networks and need no weights."""
WEIGHTED_ENGINES: Final = ("completion", "lama", "migan", "base")
"""The engines for which weights can be named."""
PLAIN_ENGINES: Final = (*CLASSICAL_ENGINES, "completion", "lama", "migan")
"""The engines that always give the same result; ``complete`` takes them in place of a base model."""
