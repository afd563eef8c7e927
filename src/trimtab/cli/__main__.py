"""`python -m trimtab.cli`."""

from trimtab.cli import main

main()
