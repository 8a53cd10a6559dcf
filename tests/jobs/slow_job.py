"""An item without an end, in a module that other processes import quickly."""

import os
import time

from realfill.compute.progress import Progress
from realfill.jobs.workers import on_step


def steps(path):
    """Do steps until ``on_step`` ends them."""
    started = False
    while on_step(Progress(phase="fit", step=1, num_steps=2, time_s=0.0)) is not False:
        if not started:
            path.write_text(str(os.getpid()))
            started = True
        time.sleep(0.05)
    path.with_suffix(".ended").write_text("after a step")
