"""Nothing but our own lines on the screen: what libraries need not say is dropped, no more."""

import logging
import subprocess
import sys
import warnings

from mrtlib import notices


def test_one_notice_of_bitsandbytes_is_dropped_and_no_other(caplog):
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    with caplog.at_level("WARNING"):
        logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s", "none")
        logger.warning("something that matters")
    assert [record.message for record in caplog.records] == ["something that matters"]


def test_one_warning_of_transformers_is_dropped_and_no_other(recwarn):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        notices.hush()
        warnings.warn(f"{notices.RENAMED} and more", FutureWarning, stacklevel=1)
        warnings.warn("something that matters", FutureWarning, stacklevel=1)
    assert [str(w.message) for w in caught] == ["something that matters"]


def test_the_trainer_is_imported_in_silence():
    """Each library is asked for first by one of ours, so that its notices are already dropped."""
    for module in ("mrtlib.training.trainer", "mrtlib.training.runs", "mrtlib.models.loading"):
        command = [sys.executable, "-c", f"import {module}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", ""), module


def test_a_model_is_loaded_in_silence():
    code = ("from mrtlib.config import load_profile\n"
            "from mrtlib.models.loading import load_base\n"
            "load_base(load_profile('smoke'))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
