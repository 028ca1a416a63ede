"""A hive on another address: everything that `--node` promises, to its good end."""

import json

import pytest

from rbee_core import __version__
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


def test_m13_preflight_of_another_node_asks_its_hive(home: Home) -> None:
    home.environment["RBEE_API_KEY"] = "k" * 40
    hive = home.start_hive("--host", "127.0.0.2")
    node = f"127.0.0.2:{hive.port}"

    checked = home.rbee("preflight", "--node", node, "--json")
    found = {check["name"]: check for check in json.loads(checked.stdout)["checks"]}
    assert (found["Hive"]["status"], found["Hive"]["detail"]) == ("ok", f"{node} answers")
    assert (found["Version"]["status"], found["Version"]["detail"]) == ("ok", __version__)
    assert (found["API key"]["detail"], found["Catalog"]["detail"]) == ("accepted", "0 models")
    assert found["Backend scripted"]["status"] == "ok"

    home.environment["RBEE_API_KEY"] = "x" * 40
    stranger = home.rbee("preflight", "--node", node)
    assert stranger.exit_code == 1
    assert "✓ Hive: " in stranger.stdout
    assert "✗ API key: " in stranger.stdout
    assert "Backend" not in stranger.stdout
    hive.stop()
    alone = home.rbee("preflight", "--node", node)
    assert alone.exit_code == 1
    assert "✗ Hive: " in alone.stdout
    assert home.rbee("preflight", "--node", "a:b:c").exit_code == 2
