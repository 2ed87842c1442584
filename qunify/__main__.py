"""`python -m qunify`."""

import sys

from qunify.cli import main

sys.exit(main())
