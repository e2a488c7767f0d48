"""`python -m gridsweep`, where the command is not on the path."""

from gridsweep.cli import main

if __name__ == "__main__":
    main()
