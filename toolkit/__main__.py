"""``python -m toolkit``, which launchers of several processes start."""

from toolkit.cli import main

main()
