"""Checkpoint in, verified package out. May import the lower layers of edgemm; edgemm never imports this."""
