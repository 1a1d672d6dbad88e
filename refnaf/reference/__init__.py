"""What the mathematics says, one short file an object, every function beside its equation.

The functions take plain arrays and broadcast: **axis 0 counts the units** of a transformer, and the axes behind it are
whatever the caller has (dimensions, samples). They are written in the log domain, so that they hold over the whole
float range, and autograd differentiates them as they stand.
"""
