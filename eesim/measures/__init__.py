"""Measures on plain arrays: how well confidences are calibrated, how two runs over the same samples differ."""
