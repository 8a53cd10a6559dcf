"""The methods that the benchmark compares, each behind the ``Method`` protocol.

Pipelines of other libraries may be wrapped here.
"""
