"""Random numbers as a function of where they are used: no state, nothing shared by a batch.

A counter-based generator as in Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011),
with a keyed hash as its bijection: numbers are few beside the network passes that use them.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import error, pack

from ostinato.errors import InputError

SEEDS = 1 << 63  # so that a seed fits into a signed number of 64 bits, as in `uniform`


def check_seed(seed: int) -> int:
    """Return a seed as it is. Raises `InputError` where it is not in [0, 2**63)."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise InputError(
            f"A seed must be a whole number from 0 to 2**63 - 1, got {seed!r:.80}. Give another."
        )
    return seed


def uniform(seed: int, key: str, round: int, backtracks: int, position: int) -> float:
    """Return the uniform number in [0, 1) of (run seed, item key, round, backtracks, position).

    It has the 53 bits of a float, from a BLAKE2b hash. Raises `InputError` for a seed that is too
    large.
    """
    # The key has no fixed length: as it comes last, two counters never have the same bytes.
    try:
        counter = pack("<qqqq", seed, round, backtracks, position) + key.encode()
    except error:
        check_seed(seed)
        raise
    # `person` keeps these hashes apart from those of `fold_in`.
    digest = blake2b(counter, digest_size=8, person=b"ostinato.draw").digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53  # 64 - 11 = 53 bits


def fold_in(seed: int, *parts: int | str) -> int:
    """Return a seed in [0, 2**63) for one use, for a library that draws random numbers itself."""
    # The unit separator keeps (1, 23) and (12, 3) apart.
    text = "\x1f".join(map(str, (seed, *parts))).encode()
    digest = blake2b(text, digest_size=8, person=b"ostinato.seed").digest()
    return int.from_bytes(digest, "little") >> 1
