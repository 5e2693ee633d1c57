"""The report of a checkpoint: figures, tables and the page that holds them."""
