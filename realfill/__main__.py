"""``python -m realfill``: the command line, such as ``torchrun --nproc-per-node 2 -m realfill fit ...``."""

import sys

from realfill.app.cli import main

sys.exit(main())
