"""``realfill doctor``: what a bug report needs, and a self-test."""

from __future__ import annotations

from dataclasses import dataclass

from realfill.app.commands.common import UsageError

# Modules that need torch, OpenCV or matplotlib are imported where they are used, so that --help answers at once.
# ruff: noqa: PLC0415


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """Print versions, device, free memory, base models and extras, and run a self-test of a few seconds.

    The exit status is 0 if everything that a job needs works. Paths that give away a user's name are left out.
    """

    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1`` or ``mps``. None: the best available."""
    self_test: bool = True
    """Fit the packaged base model for two steps and complete a small scene."""

    def __call__(self) -> None:
        """Run the command."""
        from realfill.app import doctor

        try:
            device = doctor.describe_device(self.device)
        except ValueError as error:
            raise UsageError(str(error)) from error
        for line in (*doctor.describe_versions(), device, *doctor.describe_bases(), *doctor.describe_extras()):
            print(doctor.without_names(line), flush=True)
        if not self.self_test:
            return
        try:
            print(doctor.try_job(self.device), flush=True)
        except Exception as error:
            raise RuntimeError(doctor.without_names(f"the self-test failed: {error}")) from error
