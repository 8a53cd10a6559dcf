"""A job for the tests of batches, in a module that other processes import quickly."""

import os
from dataclasses import dataclass

from realfill.errors import StoppedError


@dataclass(frozen=True)
class Recorder:
    """Writes its mark and what it was called for; fails for "bad", stops for "stop", kills its process for "kill"."""

    mark: str = "x"

    def __call__(self, source, target, on_step=None):
        if "kill" in source.name:
            os._exit(9)
        if "stop" in source.name:
            raise StoppedError("enough")
        if "bad" in source.name:
            raise ValueError("this one is\nbad")
        with (target.parent / "calls.txt").open("a") as file:
            file.write(f"{source.name}\n")
        target.write_text(self.mark)
        return f"made of {source.name}"

    @property
    def request(self):
        return {"mark": self.mark}
