"""Reading with several processes or machines: how they start, agree, share the work, and end."""
