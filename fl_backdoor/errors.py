"""The one error that a user of the suite is meant to see."""


class UserError(Exception):
    """Bad input: the message is one line naming the key, the value and what is allowed."""
