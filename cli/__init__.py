"""The ``refnaf`` command. Each subcommand is one module, imported when it is called."""
