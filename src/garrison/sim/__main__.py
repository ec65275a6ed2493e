"""`python -m garrison.sim`."""

import sys

from garrison.sim.command import main

sys.exit(main(sys.argv[1:]))
