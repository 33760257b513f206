"""How the bundled profiles came about, and how far they are right: fits to measured data, each held against cases it has not seen."""
