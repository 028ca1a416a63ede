"""What a running hive says about itself is a valid description."""

import json
import urllib.request
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from rbee_core import __version__
from rbee_core.hive.dialects.table import TABLE
from rbee_kit.program import Home


def test_the_description_that_a_hive_serves_is_valid_and_complete(home: Home) -> None:
    hive = home.start_hive()
    with urllib.request.urlopen(f"http://127.0.0.1:{hive.port}/v1/openapi.json", timeout=30) as answer:
        description: dict[str, Any] = json.load(answer)
    assert [str(error) for error in OpenAPIV31SpecValidator(description).iter_errors()] == []
    assert description["info"]["version"] == __version__
    served = {(method.upper(), path) for path, methods in description["paths"].items() for method in methods}
    assert served == {(row.method, row.plain_path) for row in TABLE}
