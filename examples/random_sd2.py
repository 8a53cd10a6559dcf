"""Write a base with Stable Diffusion 2 inpainting's exact architecture and random weights.

It completes nothing, but costs what the real one costs: for measuring whole runs where the weights can't be had.
``realfill bench-speed --base random-sd2`` measures fit, sampling and ranking on the same without leaving it behind.

    python examples/random_sd2.py sd2-random
    realfill fit SCENE -o ADAPTER --base sd2-random --num-steps 20
"""

import sys
from pathlib import Path

from realfill.models.untrained import write_sd

if __name__ == "__main__":
    write_sd("random-sd2", Path(sys.argv[1]))
