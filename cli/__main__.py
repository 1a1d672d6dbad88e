"""``python -m refnaf_cli`` is ``refnaf``."""

from refnaf_cli.main import main

main(prog_name="refnaf")
