"""Jobs: the request that an output folder belongs to, and its state.

``job.json`` in the output folder records the request: the resolved settings, the base model and hashes of the inputs.
The same command again then finds its work done or resumes it, and a different one is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from realfill.config import FitConfig, GeometryConfig, RankConfig, SampleConfig, WindowConfig
from realfill.errors import BaseModelError, OutputError, warn
from realfill.io.containment import is_plain_name, require_inside
from realfill.io.json_files import read_json

if TYPE_CHECKING:
    from realfill.models.diffusion.adapter import Adapter
    from realfill.scene.scene import Scene

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415

JOB_NAME = "job.json"
CHECKPOINTS = "checkpoint"
"""Folder within the output folder that holds what an unfinished job resumes from."""
_CLAIM_NAME = "request.json"  # in it: the request whose results are being written
_SUBFOLDERS = ("adapter", "checkpoint", "cases", "composite")  # written to, and a stranger could make them links
State: TypeAlias = Literal["new", "unfinished", "done"]
Request: TypeAlias = Mapping[str, Any]

# Fields that do not change the result: those about speed, and presets, once they are resolved; the base is separate.
_WITHOUT_EFFECT = {
    "fit": ("base", "preset", "checkpoint_every", "gradient_accumulation_steps", "gradient_checkpointing", "compile"),
    "sample": ("preset", "batch_size"),
}


@contextmanager
def in_output(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder while a command reads and writes it; every command that writes needs it.

    Raises:
        OutputError: another process holds the folder, or it cannot be written to.
    """
    from realfill.io.lock import locked

    with locked(folder):
        for name in _SUBFOLDERS:
            if (folder / name).is_symlink():
                require_inside(folder / name, folder)
        yield


def make_request(
    command: str,
    base: str,
    *,
    scene: Scene | None = None,
    adapter: Adapter | None = None,
    fit: FitConfig | None = None,
    sample: SampleConfig | None = None,
    window: WindowConfig | None = None,
    geometry: GeometryConfig | None = None,
    ranking: RankConfig | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe everything that decides the result of a command, as plain JSON values.

    Args:
        command: name of the command.
        base: name or directory of the base model.
        scene: the scene; the request holds its hashes.
        adapter: the adapter that completes the scene.
        fit: settings of the fit, which are resolved if the base model is on this machine.
        sample: settings of the sampler, resolved in the same way.
        window: settings of the windows, resolved in the same way.
        geometry: settings of the composite, resolved in the same way.
        ranking: settings of the ranking, resolved in the same way.
        inputs: further plain JSON values.
    """
    from realfill.models.diffusion.card import Card
    from realfill.models.diffusion.hub import locate

    try:
        card = Card.load(locate(base, local_files_only=True))
    except BaseModelError:
        card = Card()
    place = str(Path(base).resolve()) if Path(base).is_dir() else base  # however the directory is written
    request: dict[str, Any] = {"command": command, "base": place, **(inputs or {})}
    fitted = adapter.config if adapter is not None else fit.resolve(card.fit) if fit is not None else None
    if adapter is not None:
        request["adapter"] = {"fit": adapter.config.to_dict(), "manifest": dict(adapter.manifest)}
    elif fit is not None and fitted is not None:
        request["fit"], request["covered_fit"] = fitted.to_dict(), card.describe_covered_fit(fit)
    preset = fitted.preset if fitted is not None else None
    if sample is not None:
        defaults = {**card.sample, **(adapter.sample if adapter is not None else {})}
        settings = (sample.following(fitted) if fitted is not None else sample).resolve(defaults)
        request["sample"], preset = settings.to_dict(), settings.preset
    if geometry is not None:
        defaults = adapter.geometry.to_dict() if adapter is not None else {}
        request["geometry"] = geometry.resolve(defaults, preset=preset).to_dict()
    if window is not None:
        defaults = adapter.window.to_dict() if adapter is not None else card.window
        request["window"] = window.resolve(defaults).to_dict()
    if ranking is not None:
        request["ranking"] = ranking.resolve(card.rank).to_dict()
    if scene is not None:
        request["scene"] = _hash_inputs(scene)
    for part, names in _WITHOUT_EFFECT.items():
        request[part] = {k: v for k, v in request.get(part, {}).items() if k not in names}
    return json.loads(json.dumps({k: v for k, v in request.items() if v != {}}))


def find_job(
    folder: Path, request: Request, *, results: tuple[str, ...], overwrite: bool = False, ignoring: tuple[str, ...] = ()
) -> State:
    """Compare the request that a folder belongs to with this one.

    Args:
        folder: the output folder.
        request: the result of ``make_request``.
        results: names of the files without which the folder holds no result.
        overwrite: the results in the folder may be replaced.
        ignoring: settings that may differ, such as ``sample seed``.

    Returns:
        ``new`` if the folder belongs to no request, ``unfinished`` or ``done`` if it belongs to this one.

    Raises:
        OutputError: the folder belongs to a different request.
    """
    recorded = _read_json(folder / JOB_NAME)
    if overwrite or recorded is None or not all((folder / name).is_file() for name in results):
        claim = read_claim(folder)
        is_claimed = claim is not None and not any(_different(claim["request"], request, ignoring))
        return "unfinished" if is_claimed else "new"
    previous, state = recorded["request"], recorded.get("state")
    different = list(_different(previous, request, ignoring))
    if different:
        raise OutputError(
            f"{str(folder)!r} holds the result of a different request ({'; '.join(different[:3])}). Choose another "
            "folder, or replace the result with --overwrite"
        )
    if state != "done":
        return "unfinished"
    if missing := _missing_files(folder / results[0]):
        warn(
            f"{', '.join(missing)} is missing in {str(folder)!r}, though {results[0]} lists it; --overwrite computes "
            "everything again"
        )
    return "done"


def _missing_files(result: Path) -> list[str]:
    """List the completions that ``scores.json`` names and that somebody removed; other results name no files."""
    try:
        names = [record["file"] for record in read_json(result).get("completions", ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [result.name]
    return [str(name) for name in names if not (is_plain_name(name) and (result.parent / name).is_file())]


def record_job(folder: Path, request: Request, *, done: bool) -> None:
    """Write ``job.json``."""
    from realfill.io.files import write_text

    values = {"state": "done" if done else "unfinished", "request": request}
    write_text(folder / JOB_NAME, json.dumps(values, indent=1) + "\n")


def read_request(folder: Path) -> Request | None:
    """Read the request that a folder belongs to; ``None`` if there is none."""
    recorded = _read_json(folder / JOB_NAME)
    return None if recorded is None else recorded["request"]


def claim_results(folder: Path, request: Request, seeds: Sequence[int], *, extends: bool) -> None:
    """Record that the results of a request are being written, so that an interrupted command may replace them.

    Args:
        folder: the output folder.
        request: the result of ``make_request``.
        seeds: the seeds that the command samples.
        extends: whether they are added to completions of other seeds.
    """
    from realfill.io.files import write_text

    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    claim = {"request": request, "seeds": list(seeds), "extends": extends}
    write_text(folder / CHECKPOINTS / _CLAIM_NAME, json.dumps(claim, indent=1) + "\n")


def read_claim(folder: Path) -> Mapping[str, Any] | None:
    """Read what ``claim_results`` recorded; ``None`` if the results in the folder are complete."""
    return _read_json(folder / CHECKPOINTS / _CLAIM_NAME)


def remove_checkpoint(folder: Path) -> None:
    """Remove what a finished job would have resumed from; other files in its place stay."""
    from realfill.filling.finished import remove_finished_seeds
    from realfill.training.checkpoint import CHECKPOINT_NAME

    remove_finished_seeds(folder / CHECKPOINTS)
    for name in (CHECKPOINT_NAME, _CLAIM_NAME):
        (folder / CHECKPOINTS / name).unlink(missing_ok=True)
    with suppress(OSError):  # it does not exist, or holds other files
        (folder / CHECKPOINTS).rmdir()


def forget_job(folder: Path) -> None:
    """Remove ``job.json``, before the result that it describes is replaced."""
    (folder / JOB_NAME).unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """Hash the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _hash_inputs(scene: Scene) -> dict[str, Any]:
    """Hash the known pixels, the mask and the references, and the target's known pixels in the file's own depth."""
    from realfill.results.provenance import hash_array, hash_scene

    original = scene.original.blanked(scene.mask)
    profile = hashlib.sha256(original.icc_profile or b"").hexdigest()[:32]
    return {**hash_scene(scene), "file": hash_array(original.pixels), "profile": profile}


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a record of a request; ``None`` if it does not exist or is damaged."""
    try:
        values = read_json(path)
        return {**values, "request": dict(values["request"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _different(previous: Request, request: Request, ignoring: Sequence[str]) -> Iterator[str]:
    """Name the values in which two requests differ, except those that may."""
    return (line for line in _differences(previous, request) if line.split(":")[0] not in ignoring)


def _differences(previous: Request, request: Request, prefix: str = "") -> Iterator[str]:
    """Name the values in which two requests differ, such as ``num_steps: 2000 instead of 500``."""
    for name in sorted({*previous, *request}):
        old, new = previous.get(name), request.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{prefix}{name} ")
        elif old != new:
            short = prefix != "scene " and all(len(str(value)) <= 30 for value in (old, new))
            yield f"{prefix}{name}: {old!r} instead of {new!r}" if short else f"{prefix}{name}: changed"
