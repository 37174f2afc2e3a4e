"""`python -m ltrobust` is the command `ltrobust`."""

from ltrobust.cli import main

if __name__ == "__main__":
    main()
