"""Benchmarks: what is fast is measured here, side by side with peers, as ratios in one run."""
