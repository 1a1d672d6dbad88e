"""Pictures of a fitted flow: the density or a pair grid of data against samples, the training curve, the calibration.

matplotlib is imported when a picture is drawn, not before; neither a display nor pyplot is needed, and no setting of
matplotlib's is changed or obeyed. Orange are data and blue is the model, wherever rows or densities are drawn.
"""

from refnaf.plotting.picture import plot_flow
from refnaf.plotting.scene import robust_limits

__all__ = ["plot_flow", "robust_limits"]
