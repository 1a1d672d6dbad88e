"""The reference in plain NumPy, each forward with its analytic vector-Jacobian product.

Arrays are feature-major: x ``(D, N)``, pseudo-parameters ``(D, P, N)``, so that sums over units run along contiguous
samples and the inner products are plain matrix products. A forward returns its result and what its VJP needs; both draw
their arrays from a :class:`~refnaf.kernels.array.workspace.Workspace`. Where a value leaves the range in which the fast
form is exact, the columns concerned are evaluated by the reference in float64 (:mod:`.rare`).
"""
