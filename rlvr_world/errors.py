"""The one exception that means "the input is wrong", as opposed to "the program is wrong"."""


class InputError(ValueError):
    """Something the user gave is wrong: a file, a row, a config key, a model folder, a machine.

    The message is one sentence: what, where (file, row, field), expected, got, what to do.
    The command line prints it without a traceback and exits with code 2.
    """
