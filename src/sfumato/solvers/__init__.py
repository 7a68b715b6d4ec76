"""Solvers: how to average what was seen. They know levels and estimates only."""
