"""Nothing is told to anybody."""

import subprocess
import sys

PROGRAM = """
import sys, threading
import models.compiled, openvino
import openvino.tools.ovc
loaded = [name for name in sys.modules if name.startswith("openvino_telemetry") and sys.modules[name] is not None]
assert not loaded, loaded
assert threading.active_count() == 1, threading.enumerate()
print(openvino.tools.ovc.telemetry_utils.tm.__name__)
"""


def test_openvino_does_not_report_its_use():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("telemetry_stub")
