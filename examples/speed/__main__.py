"""Measure speed and memory of fit, sampling and ranking, beside a port of what public scripts do.

python examples/speed --against port               # a scaled-down Stable Diffusion 2 with random weights
python examples/speed --base random-sd2 --profile  # Stable Diffusion 2 at its real size, for a GPU
"""

import tyro
from study import SpeedStudy

if __name__ == "__main__":
    tyro.cli(SpeedStudy, description=__doc__)()
