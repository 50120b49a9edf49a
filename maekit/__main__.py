"""``python -m maekit``."""

from maekit.cli.app import main

if __name__ == "__main__":
    main()
