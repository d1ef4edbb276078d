"""Python processes for tests to run code in."""

import os
import subprocess
import sys

import pytest

NOWHERE = f"{os.devnull}/x"  # no directory can be made there, not even by root
posix = pytest.mark.skipif(os.name != "posix", reason="needs fork or a home that is set by HOME")


def start(code, cwd, *options, **variables):
    """Start a Python process that runs `code`; a variable that is None is unset."""
    env = {name: value for name, value in (os.environ | {"FASTRSX_CACHE": None} | variables).items() if value is not None}
    return subprocess.Popen(
        [sys.executable, *options, "-c", code], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    """The output of a process, after it has succeeded."""
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out.strip()


def run(*args, **variables):
    return finish(start(*args, **variables))
