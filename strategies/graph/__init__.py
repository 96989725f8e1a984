"""The graph of clients whose models are close, and its largest clique."""
