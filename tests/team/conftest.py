"""Tests whose processes are forked and train run in a process of their own: `test_forked.py`."""

collect_ignore = ["test_every_method.py", "test_shared_evaluation.py"]
