"""The total order of events, written once: (time, priority, sequence).

At one instant completions come first, then timers, then arrivals; among equals, the one scheduled first. So a request that
arrives at the very moment a server becomes free finds it free, and a place in the queue that empties at that moment is
there to be taken. Every engine follows this order, and results agree bit for bit.
"""

COMPLETION = 0
TIMER = 1
ARRIVAL = 2

PRIORITY_SHIFT = 58
"""Priority and sequence share one int64: priority << 58 | sequence."""
