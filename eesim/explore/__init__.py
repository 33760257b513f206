"""Exploring the design space: sweeps that resume, comparisons at equal accuracy, plans under constraints."""
