"""Read `pytorch_model.bin` without torch and without running anything in it."""
