"""What TensorRT and TensorRT-RTX refuse, found in the graph alone."""
