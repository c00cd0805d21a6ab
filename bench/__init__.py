"""The bench: what the service costs, measured against what its work must cost.

``python -m bench`` runs the cases of ``bench.cases`` against real servers, in alternation with
their baselines, and writes a table, a plot and the raw numbers.
"""
