"""`python -m benchmarks NAME` runs a benchmark of this folder, `NAME --help` prints its options.

A dotted name is that of any module with a function `measure`, such as `tests.faults.fuzz`.
"""

import sys
from importlib import import_module

from benchmarks.harness import main

if __name__ == "__main__":
    name = sys.argv[1]
    main(import_module(name if "." in name else f"benchmarks.{name}"), sys.argv[2:])
