"""One door to every model: requests, transports, prices, cache plans and limits."""
