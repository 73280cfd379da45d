"""``python -m pymc_streaming``: the command line."""

import sys

from pymc_streaming.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
