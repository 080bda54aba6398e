"""Small helpers that every package may use: sizes for people, names of the Hub, long work in steps."""
