"""The mathematics of :mod:`refnaf.reference`, made fast: one package a kind of machine, one file an object."""
