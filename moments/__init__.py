"""The roof: settings, composition root, embedded services, command line."""

import os

# The finder's matrices are small: with threads OpenBLAS spent up to ten times the CPU, spinning. Read once, when
# numpy is loaded, so it is set before anything of ours can load it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
