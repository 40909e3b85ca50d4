"""Labels of a state that may not be the one that was meant (F10): told from what the labeler found out about it.

<S^2> above S (S + 1) says that states of more unpaired electrons are mixed in. A restricted field that unpairing would lower
says that the state is no closed shell.
"""

from collections.abc import Mapping
from typing import Any

# Up to a tenth of S (S + 1) is commonly taken as sound (Young, Computational Chemistry, 2001, chapter 27). For doublets that
# would be 0.075, which leaves little room; the least limit is a choice of ours.
LARGEST_SHARE = 0.1
LEAST_LIMIT = 0.1
SPEC = f"state 1, share {LARGEST_SHARE!r}, limit {LEAST_LIMIT!r}"


def wrong_state(provenance: Mapping[str, Any]) -> str | None:
    """Why the state of a label should be looked at by a person, or None; nothing is said of states that nothing is known of."""
    squared, ideal = provenance.get("spin_squared"), provenance.get("spin_squared_ideal")
    if squared is not None and ideal is not None and squared > ideal + limit(ideal):
        return (
            f"the state is no pure multiplet: <S^2> is {squared:.3f}, S (S + 1) is {ideal:g}; up to {limit(ideal):.3g} more is"
            " taken as sound"
        )
    if provenance.get("stability", {}).get("spin_stable") is False:
        return "the closed shell is unstable: with unpaired electrons the energy would be lower; look at the multiplicity"
    return None


def limit(ideal: float) -> float:
    """How far above `ideal` = S (S + 1) the <S^2> of a sound label may be.

    >>> limit(0.75), limit(6.0)
    (0.1, 0.6000000000000001)
    """
    return max(LEAST_LIMIT, LARGEST_SHARE * ideal)
