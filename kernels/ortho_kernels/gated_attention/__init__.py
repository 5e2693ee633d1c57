"""Self-attention whose heads are gated."""
