"""What several test files share; pytest finds it through the folder of conftest.py."""
