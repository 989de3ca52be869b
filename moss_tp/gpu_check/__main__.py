"""`python -m moss_tp.gpu_check`."""

import sys

from moss_tp.gpu_check.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
