"""What the README says of broken archives and checkpoints is what is tried."""

import math
from pathlib import Path

import test_broken_archives as archives
import test_poisoned_checkpoints as checkpoints
from paperlab import records

README = (records.project_root(Path(__file__)) / "README.md").read_text()


def cases(*tests) -> int:
    marks = [[m for m in getattr(t, "pytestmark", []) if m.name == "parametrize"] for t in tests]
    return sum(math.prod(len(m.args[1]) for m in of_one) for of_one in marks)


def test_the_counts_of_the_readme():
    tried = cases(
        archives.test_a_damaged_gzip,
        archives.test_a_damaged_zip,
        archives.test_a_zip_that_claims_to_unpack_to_gigabytes_is_not_unpacked,
        archives.test_members_that_point_elsewhere_are_never_written,
    )
    assert f"{tried} archives cut, damaged or hostile" in README
    tried = cases(checkpoints.test_training_does_not_go_on_from)
    tried += cases(
        checkpoints.test_a_policy_is_weights_alone,
        checkpoints.test_a_tokenizer_s_own_code_is_not_run,
    )
    assert f"{tried} checkpoints cut or with code in them" in README
