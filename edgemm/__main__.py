"""`python -m edgemm` is the command `edgemm`."""

from edgemm.cli import main

if __name__ == "__main__":
    main()
