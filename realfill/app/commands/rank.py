"""``realfill rank``: completions that were written earlier, ranked again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from realfill.app.commands.common import (
    MachineOptions,
    OutputOptions,
    SceneOptions,
    load_scene,
)
from realfill.app.commands.jobs import find_job, hash_file, in_output, make_request, record_job
from realfill.app.commands.sampling import check_output
from realfill.config import RankConfig
from realfill.errors import SceneError

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Rank completions that were written earlier, with other references or another matcher."""

    scene: Path
    """Folder of the scene, with the references to rank by in ref."""
    completions: Path
    """Folder that realfill run or realfill complete wrote."""
    output: Path
    """Folder for the ranked completions."""
    rank: RankConfig = field(default_factory=RankConfig)
    reading: Annotated[SceneOptions, tyro.conf.arg(name="scene")] = field(default_factory=SceneOptions)
    files: Annotated[OutputOptions, tyro.conf.arg(name="output")] = field(default_factory=OutputOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def __call__(self) -> None:
        """Run the command."""
        from realfill.ranking.rank import rank
        from realfill.results.completions import Completions

        scene = load_scene(self.reading, self.machine, self.scene)
        completions = Completions.load(self.completions, scene)
        if not scene.references:
            raise SceneError(f"{str(self.scene)!r} has no references to rank by; add photos of it to its ref")
        with in_output(self.output):
            request = make_request(
                "rank", "", scene=scene, ranking=self.rank,
                inputs={
                    "files": self.files.formats, "completions": hash_file(self.completions / "scores.json"),
                },
            )  # fmt: skip
            state = find_job(self.output, request, results=("scores.json",), overwrite=self.files.overwrite)
            if state == "done":
                self.machine.say(f"{self.output} holds the finished result of this request; nothing to do")
                ranked = Completions.load(self.output, scene)
            else:
                check_output(self.output, scene, self.files, state)
                ranked = rank(completions, config=self.rank, device=self.machine.device, progress=self.machine.progress)
                self.files.write(ranked, self.output)
                record_job(self.output, request, done=True)
        from realfill.results.completion import caption

        for place, completion in enumerate(ranked, 1):
            matches, score = completion.num_matches, completion.score
            similarity = "not comparable" if score is None else f"{score:.2f} dB"
            name = caption(dataclasses.replace(completion, score=None))
            self.machine.say(f"{place:3d}. {name}: {similarity if matches is None else f'{matches} matches'}")
