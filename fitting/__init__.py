"""Fits the models of the gate from labelled sentences: `python -m fitting`."""
