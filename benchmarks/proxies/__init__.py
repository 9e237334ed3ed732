"""The processes that `benchmarks/gateway.py` measures side by side: upstream, proxies, load client."""
