"""`python -m longmamba_mlx` is the command `longmamba-mlx`."""

from longmamba_mlx.cli import main

if __name__ == "__main__":
    main()
