"""The terminal itself: keyboard, hang-up, clipboard."""
