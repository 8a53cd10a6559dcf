"""Settings of what is removed from a photo, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from realfill.config.base import require_types
from realfill.config.engine import EraseEngineName
from realfill.config.sample import GuidanceFrom, SampleConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """What goes and what stays. Without a mask, a box, a click or a colour, a detector looks for ``drop``."""

    drop: tuple[str, ...] = ("person",)
    """Classes to remove, by COCO's names, such as ``person``, ``car`` or ``dog``."""
    keep: tuple[int, ...] = ()
    """Numbers of instances that stay, as ``realfill instances`` shows them; 0 is the largest."""
    keep_largest: bool = False
    """Keep the largest instance of the classes to remove."""
    keep_at: tuple[str, ...] = ()
    """Keep the instance at a pixel: x,y such as ``512,300``."""
    only: tuple[int, ...] = ()
    """Numbers of the instances to remove, instead of all of a class."""
    box: tuple[str, ...] = ()
    """Remove what a box encloses: left,top,right,bottom. Its outline is found by GrabCut or SAM 2."""
    click: tuple[str, ...] = ()
    """Remove what lies at a pixel: x,y such as ``512,300``."""
    fill_box: tuple[str, ...] = ()
    """Fill a whole box: ``left,top,right,bottom`` in pixels."""
    polygon: tuple[str, ...] = ()
    """Fill a polygon: ``x,y,x,y,x,y`` in pixels."""
    colour: str | None = None
    """Fill the pixels of a colour, such as ``magenta`` or ``#ff00ff``."""
    transparent: bool = False
    """Fill the transparent pixels of the photo."""
    mask: Path | None = None
    """Mask: an image, white = remove; COCO or LabelMe JSON."""
    without: Path | None = None
    """Mask of what stays in any case, in the same forms."""
    grow_px: int | None = None
    """Grow the mask by this many pixels. None: outlines by 1 % of their size, or by 5 % with
    references, which show what is behind; masks and boxes not at all."""
    carried: bool = False
    """Also remove what those who go hold or wear, if the detector knows its class."""
    shadows: bool = False
    """Also cover the ground where those who go stand."""
    detector: str = "auto"
    """``offline``, ``mask2former``, ``mask2former-large``, ``mask2former-panoptic``, ``rt-detr``, ``detr``, ``sam2``
    (for a box or a click), a hub id or a folder. ``auto`` takes ``mask2former`` if its weights are on this machine,
    else ``offline``."""
    threshold: float | None = None
    """Least score of an instance, from 0 to 1. None: 0.5, lowered to at least 0.25 while nobody is found."""

    def __post_init__(self) -> None:
        require_types(self, lists=True)
        if self.grow_px is not None and self.grow_px < 0:
            raise ValueError(f"SelectionConfig.grow_px is {self.grow_px}; legal: 0 or more")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"SelectionConfig.threshold is {self.threshold}; legal: from 0 to 1")
        if self.by_hand and (self.keep or self.keep_largest or self.keep_at or self.only):
            raise ValueError(
                "instances are chosen by number or place, and a mask, a box, a click or a colour is given too; legal: "
                "one of the two. SelectionConfig.without takes a mask of what stays"
            )

    @property
    def by_hand(self) -> bool:
        """Whether the mask comes from the user, so that no detector looks for ``drop``."""
        return bool(
            self.box or self.click or self.fill_box or self.polygon or self.colour or self.transparent or self.mask
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseConfig:
    """How the hole is filled."""

    engine: EraseEngineName | None = None
    """What fills the hole; ``composite`` and ``fit`` need references. None: with references the composite, else lama or
    migan if their weights are on this machine, else telea."""
    weights: str | None = None
    """Weights for ``completion``, ``lama`` and ``migan``, or the base model or adapter for ``base``. None: those that
    the engine comes with."""
    trust_weights: bool = False
    """Load weights for ``lama`` and ``migan`` that are not the published ones. They are a program, so trust their
    source."""
    seeds: tuple[int, ...] = (0,)
    """One candidate for each seed; the one in which the detector finds least is the result. ``fit`` takes consecutive
    ones."""
    guidance_from: GuidanceFrom | None = None
    """For the engines ``base`` and ``fit``, what guidance leads away from; see ``SampleConfig``. ``foreground`` needs
    an adapter of ``adapt`` with the preset ``structure``. None: the adapter's or the base model's default."""
    guidance_scale: float | None = None
    """For the engines ``base`` and ``fit``, the strength of guidance in the first stage; 1: none in any stage. None:
    the adapter's or the base model's default."""
    hide_strangers: bool = True
    """Hide the classes to remove in the references too, so that nobody is taken from them."""
    second_pass: bool = True
    """Run the detector on the result, and fill a second time if it still finds somebody in the hole."""
    strip_location: bool = False
    """Leave GPS data out of what is written."""

    def __post_init__(self) -> None:
        require_types(self, lists=True)
        _ = self.sample  # its values are checked

    @property
    def sample(self) -> SampleConfig | None:
        """The settings of the sampler that are not left to their defaults, if there are any."""
        if self.guidance_from is None and self.guidance_scale is None:
            return None
        later = (1.0,) if self.guidance_scale == 1 else None  # an adapter may guide its later stages
        return SampleConfig(
            guidance_from=self.guidance_from, guidance_scale=self.guidance_scale, stage_guidance=later
        )  # fmt: skip
