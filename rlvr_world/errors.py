"""The exceptions that are answers: "the input is wrong" and "the run stopped itself"; any other is a bug."""


class InputError(ValueError):
    """Something the user gave is wrong: a file, a row, a config key, a model folder, a machine.

    The message is one sentence: what, where (file, row, field), expected, got, what to do.
    The command line prints it without a traceback and exits with code 2.
    """


class Halted(Exception):
    """A run stopped itself before harm was done: a guard tripped, or the disk is full.

    The message is one sentence with the reason and what to do. The command line prints it without a traceback and
    exits with code 3.
    """


class RankLost(Exception):
    """Another process of the same run has ended, and says why: this one can only end too."""


class NonFinite(ArithmeticError):
    """A score, log-probability, loss, gradient or weight that is not finite, found before it spread.

    A training stage that meets one keeps what reproduces it and stops.
    """
