"""python -m gridsweep.testing ATTEMPT_FOLDER: the stand-in worker."""

import sys

from gridsweep.testing.stand_in import main

if __name__ == "__main__":
    main(sys.argv[1:])
