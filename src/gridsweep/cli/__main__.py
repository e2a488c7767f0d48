from gridsweep.cli import main

main()
