"""Print what a wheel's extras need, at the versions that are installed here; without what a cluster brings itself.

Usage: python .ci/requirements.py sparkopt images report
"""

import sys
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CLUSTER = {"pyspark", "py4j"}
"""Spark's own: executors have it from Spark's installation, and it must be of its version."""


def needed(name: str, extras: "set[str]", found: "dict[str, str]") -> None:
    """Add what a distribution needs, and what that needs in turn."""
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        wanted = (
            [requirement.marker.evaluate({"extra": extra}) for extra in extras or {""}]
            if requirement.marker
            else [True]
        )
        other = canonicalize_name(requirement.name)
        if any(wanted) and other == canonicalize_name(name):  # an extra that is made of others
            needed(name, requirement.extras, found)
        elif any(wanted) and other not in found and other not in CLUSTER:
            found[other] = distribution(other).version.partition("+")[0]  # "+cpu" is of one index only
            needed(other, requirement.extras, found)


if __name__ == "__main__":
    everything: "dict[str, str]" = {}
    needed(sys.argv[1], {"", *sys.argv[2:]}, everything)
    print("\n".join(f"{name}=={version}" for name, version in sorted(everything.items())))
