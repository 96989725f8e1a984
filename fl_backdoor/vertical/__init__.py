"""Split learning experiments: Liu, Yi, Chen 2020 on features that several parties hold."""
