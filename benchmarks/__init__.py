"""What the project promises about speed and memory, measured and held against a bound.

A figure is a ratio to a peer or a floor measured in the same run, interleaved with it.
``python -m benchmarks`` lists what there is.
"""
