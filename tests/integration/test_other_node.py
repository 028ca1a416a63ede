"""A hive on another address: everything that `--node` promises, to its good end."""

import json

import pytest

from rbee_kit.program import Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted


def test_m13_a_hive_on_another_address_is_used_to_a_good_end(home: Home) -> None:
    hive = home.start_hive("--host", "127.0.0.2")
    node, model = f"127.0.0.2:{hive.port}", "scripted:tokens=3;text=one two three"
    home.environment["RBEE_HOME"] = str(home.folder / "elsewhere")  # the command's own folder knows nothing of it

    result = home.rbee("infer", "--node", node, "--model", model, "hello", "--raw")
    assert (result.exit_code, result.stdout.strip()) == (0, "one two three"), result.stderr
    listed = home.rbee("workers", "list", "--node", node, "--json")
    worker = json.loads(listed.stdout)["workers"][0]["worker_id"]
    eventually(lambda: "loading scripted" in home.rbee("logs", worker, "--node", node).stdout, what="its log")
    relative = home.rbee("infer", "--node", "192.0.2.1:9", "--model", "./m.gguf", "hello")
    assert relative.exit_code != 0
    assert "./m.gguf" in relative.stderr
