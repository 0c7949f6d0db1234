"""The cache: what may be stored and reused (`policy`), who waits for what (`coordinator`), where it is (`stores`)."""
