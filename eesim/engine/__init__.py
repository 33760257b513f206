"""Replaying decided samples in time: counts, Lindley, k servers, calendar, and the SimPy oracle that they must equal."""
