"""How much the tests of faults try: little in `.ci/run`, all of it in `make test-faults`."""

import os

MOMENTS = int(os.environ.get("DLP_FAULT_MOMENTS", "3"))  # of each signal, and sizes of a full disk
EXAMPLES = int(os.environ.get("DLP_FUZZ_EXAMPLES", "100"))  # inputs of each kind
