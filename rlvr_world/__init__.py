"""Train world models by reinforcement learning on verifiable rewards, and use them."""

__version__ = "0.1.0"
