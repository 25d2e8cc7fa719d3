"""What a strategy asks of a training."""

from distill.strategies.limits import Facts

PLAIN = Facts(
    gpu=False,
    devices=2,
    precision="fp32",
    trained=1000,
    leaves_out=False,
    looks_at_weights=False,
    edits_weights=False,
)
"""Of two processes, with nothing that a strategy could not do."""
