"""Program that becomes a test's worker in the pod's start: the command in `GRIDSWEEP_COMMAND`, on the folder."""

import json
import os
import sys

if __name__ == "__main__":
    command = json.loads(os.environ["GRIDSWEEP_COMMAND"])
    os.execvp(command[0], [*command, sys.argv[1]])
