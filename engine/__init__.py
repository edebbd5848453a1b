"""One frame in, one edited frame out."""

import sys

# Where this package is installed, OpenVINO reports every import and every conversion to a web service, from forked
# copies of the process. What people do with their pictures is nobody's business.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
