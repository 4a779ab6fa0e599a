"""`python -m utnet` is `utnet`."""

from utnet.cli import main

main()
