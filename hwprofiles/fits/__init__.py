"""What `fit_profiles.py` needs to know of each device and of its measurements."""
