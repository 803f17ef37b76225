"""``python -m simulations``.

Python then looks into the folder where it was started first; what a user keeps there must not stand in for our code.
"""

import sys
from pathlib import Path

if not sys.flags.safe_path and sys.path[:1] and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
    sys.path.append(sys.path.pop(0))

from simulations.cli import main

if __name__ == "__main__":
    main()
