"""Benchmarks of this package and its peers, on this machine.

Every measurement runs in its own process (`worker`), pinned to its cores. Peers take turns round by round, so that a
busy moment affects all of them; reports give medians and the ratios within a round.
"""
