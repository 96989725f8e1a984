"""Blocks that share out the columns of a table or the rows of an image."""

from ...errors import UserError


def checked_blocks(blocks: list[list[int]], size: int, what: str) -> list[tuple[int, int]]:
    """Return blocks that share out 0 to size - 1 in order.

    Raises
    ------
    UserError
        Naming the first that is in none or in two.
    """

    def refused(fault: str) -> UserError:
        return UserError(
            f"dataset.blocks={blocks}: {fault}; allowed are {what} 0 to {size - 1}, each once, in "
            "order"
        )

    expected, one = 0, what.removesuffix("s")
    for block in blocks:
        if len(block) != 2 or block[0] > block[1]:
            raise refused(f"{block} is not [first {one}, last {one}]")
        first, last = block
        if first < expected:
            raise refused(f"{one} {first} is in two blocks, or its block is out of order")
        if first > expected:
            raise refused(f"{one} {expected} is in no block")
        if last >= size:
            raise refused(f"{one} {last} is not there")
        expected = last + 1
    if expected < size:
        raise refused(f"{one} {expected} is in no block")
    return [(first, last) for first, last in blocks]
