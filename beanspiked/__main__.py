"""`python -m beanspiked` is the `beanspiked` command."""

import sys

from beanspiked.cli import main

sys.exit(main())
