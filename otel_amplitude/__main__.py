"""`python -m otel_amplitude`: the command line `otel-amplitude`, where the program itself is not on the path."""

import sys

from otel_amplitude.cli import main

if __name__ == "__main__":
    sys.exit(main())
