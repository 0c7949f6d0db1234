"""What one message may cost: the CPU time of a running proxy for awkward input, against that for ordinary input."""
