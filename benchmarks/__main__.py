"""`python -m benchmarks`: sets how threads wait before torch is loaded, then reads the command line."""

import os
import sys

# Threads that spin while they wait would count as work on the CPU clock.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["GOMP_SPINCOUNT"] = "0"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")


def main() -> int:
    """Run a benchmark and return its exit code; a user's error is one message and 2."""
    from benchmarks.cli import run
    from configs.errors import UserError

    try:
        return run(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
