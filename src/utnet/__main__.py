"""`python -m utnet` is `utnet`."""

from utnet.cli.main import main

main()
