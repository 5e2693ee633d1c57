"""The Conformer-CTC encoder whose components can be gated."""
