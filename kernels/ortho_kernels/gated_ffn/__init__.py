"""Feed-forward module whose hidden chunks are gated."""
