"""Choosing by measurement: the sampler of a run, and the settings to train the next one with."""
