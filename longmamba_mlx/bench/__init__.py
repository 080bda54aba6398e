"""Benchmarks: this package beside its peers, on the machine at hand.

Every measurement runs in a process of its own (`worker`), pinned to its cores; peers take turns round by round, so that
a busy moment hits all of them; what is reported are medians and the ratios within a round.
"""
