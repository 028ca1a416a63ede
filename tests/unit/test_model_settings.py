"""What is settled for one model: what may be said, and what of it counts beside a request."""

import asyncio
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from rbee_core import wire
from rbee_core.backend import LocalModel, ModelRef, ModelSource
from rbee_core.domain.model_settings import FIELDS, NOTHING, ModelSettings, demanded, read, unsaid
from rbee_core.domain.sampling import Sampling
from rbee_core.domain.tuning import UNTUNED, Adapter, Tuning
from rbee_core.domain.worker import Demand, Stay
from rbee_core.errors import InvalidRequest
from rbee_core.hive.config.models import Models, complete
from rbee_core.hive.config.reload import merged, started_otherwise
from rbee_core.hive.config.sections import read_sections
from rbee_core.models.references import References
from rbee_core.settings import NAMES, Settings, load

ALL = """
reference = "hf:org/repo:Q4"
backend = "llamacpp-cpu"
device = 1
context_tokens = 4096
slots = 2
idle_timeout_s = 60
pinned = true
max_tokens = 500
system_prompt = "Be brief."
cache_type_k = "q8_0"
flash_attention = "on"
lora = [{path = "/a.gguf", scale = 0.5}]
temperature = 0
logit_bias = {28 = -100}
dry_breakers = ["."]
"""


def settings_of(home: Path, text: str) -> Settings:
    (home / "config.toml").write_text(text)
    return load({"RBEE_HOME": str(home)})


def test_all_kinds_of_fields_are_read() -> None:
    found = read(tomllib.loads(ALL))
    assert found == ModelSettings(
        reference="hf:org/repo:Q4", backend="llamacpp-cpu", device=1, context_tokens=4096, slots=2, idle_timeout_s=60,
        pinned=True, max_tokens=500, system_prompt="Be brief.",
        tuning=Tuning(cache_type_k="q8_0", flash_attention=True, lora=(Adapter("/a.gguf", 0.5),)),
        sampling=Sampling(temperature=0, logit_bias={28: -100}, dry_breakers=(".",)),
    )  # fmt: skip
    assert found.stay == Stay(60, pinned=True)


def test_every_field_of_tuning_and_sampling_may_be_said_and_no_name_means_two_things() -> None:
    assert {*Tuning.__struct_fields__, *Sampling.__struct_fields__} < set(FIELDS)
    own = [name for name, kind in FIELDS.items() if kind not in (Tuning, Sampling)]
    assert len(FIELDS) == len(own) + len(Tuning.__struct_fields__) + len(Sampling.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slots = 0", r"line 3: \[model\.ada\] slots is wrong: expected `int` >= 1"),
        ("slots = true", r"line 3: \[model\.ada\] slots is wrong"),
        ("slot = 2", r"line 3: \[model\.ada\] slot is no setting of a model; did you mean slots\?"),
        ("zzz = 2", r"line 3: \[model\.ada\] zzz is no setting of a model$"),
        ("port = 2", r"line 3: \[model\.ada\] port is no setting of a model"),
        ("slots = 2\ntemperature = 3", r"line 4: \[model\.ada\] temperature is wrong: expected `float` <= 2"),
        ("cache_type_k = 'q9'", r"line 3: \[model\.ada\] cache_type_k is wrong"),
        ("idle_timeout_s = nan", r"line 3: \[model\.ada\] idle_timeout_s"),
        ("idle_timeout_s = inf", r"line 3: \[model\.ada\] idle_timeout_s"),
        ("lora = [{path = 'x'}]", r"line 3: \[model\.ada\] lora"),
        ("mirostat = 2\ntemperature = 0", r"\[model\.ada\] mirostat is wrong: mirostat needs a temperature"),
        ("chat_template = 'none.jinja'", r"line 3: \[model\.ada\] chat_template names none\.jinja, .* cannot be read"),
        ("chat_template = '.'", r"line 3: \[model\.ada\] chat_template names \., .* a directory"),
        ("chat_template = 5", r"line 3: \[model\.ada\] chat_template must be the path"),
        ("chat_template = 'latin'", r"line 3: \[model\.ada\] chat_template names latin, which is not UTF-8"),
    ],
)
def test_a_wrong_field_is_refused_by_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xff")
    settings = settings_of(tmp_path, f"[model.ada]\nreference = '/m.gguf'\n{text}\n")
    with pytest.raises(InvalidRequest, match=message):
        read_sections(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model.ada]\nslots = 2", r"line 1: \[model\] ada has no reference, and ada is neither an alias"),
        ("[model.ada]\nreference = 'ftp'", r"line 1: \[model\] ada: Invalid model reference"),
    ],
)
def test_a_section_that_names_no_model_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read_sections(settings_of(tmp_path, text))


def test_a_template_is_read_from_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    settings = settings_of(tmp_path, "[model.smollm2]\nchat_template = 'mine.jinja'")
    assert read_sections(settings)["smollm2"].tuning.chat_template == "{{ messages }}"


OWN = ModelSettings(
    backend="mlx", device=1, context_tokens=4096, slots=2, tuning=Tuning(cache_type_k="q8_0", cache_type_v="q8_0"),
    sampling=Sampling(temperature=0.2, top_k=5), max_tokens=9, system_prompt="Be brief.",
)  # fmt: skip


def test_a_request_outranks_the_models_settings_field_by_field() -> None:
    asked = Demand("/m", device=0, slots=1, tuning=Tuning(cache_type_v="f16"))
    assert demanded(asked, "ada", {"ada": OWN}) == Demand(
        "/m", backend="mlx", device=0, context_tokens=4096, slots=1, section="ada",
        tuning=Tuning(cache_type_k="q8_0", cache_type_v="f16"),
    )  # fmt: skip
    assert demanded(asked, "bob", {"ada": OWN}) == asked


def test_what_a_request_says_of_sampling_stays() -> None:
    assert unsaid(Sampling(temperature=1.0, top_p=0.5), OWN) == {"top_k": 5}
    miro, greedy = ModelSettings(sampling=Sampling(mirostat=2)), ModelSettings(sampling=Sampling(temperature=0))
    assert unsaid(Sampling(temperature=0), miro) == {}
    assert unsaid(Sampling(mirostat=1), greedy) == {}
    assert unsaid(Sampling(), miro) == {"mirostat": 2}


def test_a_request_for_text_is_completed() -> None:
    task = wire.WorkerTask(request_id="r", prompt="x", top_k=1)
    complete(task, OWN)
    assert (task.temperature, task.top_k, task.max_tokens) == (0.2, 1, 9)
    other = wire.WorkerTask(request_id="r", prompt="x", max_tokens=3)
    complete(other, NOTHING)
    assert other == wire.WorkerTask(request_id="r", prompt="x", max_tokens=3)


def test_what_is_settled_of_sampling_needs_a_backend_that_knows_it() -> None:
    class Ours(ModelSource):
        schemes = frozenset({"ours"})

        def resolve(self, reference: ModelRef, formats: Sequence[str]) -> LocalModel:
            raise NotImplementedError

    own = ModelSettings(sampling=Sampling(xtc_probability=0.5, temperature=0.1))
    models = Models(References({"ours": Ours()}, {"ada": "ours:x"}), {"ada": own})
    for request in (wire.PoolInference(model_ref="ada", prompt="x"), wire.SpawnRequest(model_ref="ada")):
        assert asyncio.run(models.demand(request)).needs == {"xtc_probability"}


# Reloading.


def test_what_needs_a_restart_stays_as_it_was(tmp_path: Path) -> None:
    old = settings_of(tmp_path, "port = 1\nidle_timeout_s = 1\n[models]\nada = '/a'\n[model.smollm2]\nslots = 1")
    new = settings_of(tmp_path, "port = 2\nidle_timeout_s = 2\n[models]\nada = '/b'\n[model.bob]\nreference = '/c'")
    settings, changed, restart = merged(old, new)
    assert restart == ["port"]
    assert changed == ["idle_timeout_s", "models.ada", "model.smollm2", "model.bob"]
    assert (settings.port, settings.idle_timeout_s, settings.models["bob"]) == (1, 2, "/c")


def test_only_what_a_worker_is_started_with_makes_it_another_one() -> None:
    old = ({"ada": "/a", "bob": "/b"}, {"ada": ModelSettings(slots=1), "bob": ModelSettings(slots=1)})
    kept = {"ada": ModelSettings(slots=1, pinned=True, sampling=Sampling(top_k=1)), "bob": ModelSettings(slots=2)}
    assert started_otherwise(old, (old[0], kept)) == {"bob"}
    assert started_otherwise(old, ({"ada": "/z", "bob": "/b"}, old[1])) == {"ada"}
    assert started_otherwise(old, (old[0], {})) == {"ada", "bob"}


def test_whatever_counts_at_once_is_a_setting() -> None:
    from rbee_core.hive.config.reload import AT_ONCE

    assert set(NAMES) >= AT_ONCE
    assert set(NAMES) & msgspec.structs.asdict(UNTUNED).keys() <= AT_ONCE, "how a model is loaded needs no restart"


def test_of_two_reloads_the_second_reads_after_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who read an older file might have it taken last."""
    from rbee_core.hive.config import reload

    events: list[str] = []

    def read(old: Settings) -> Settings:
        events.append("read")
        time.sleep(0.01)
        return old

    class Taken(reload.Reload):
        def _take(self, sections: object) -> None:
            events.append("taken")

    async def both() -> None:
        models, journal = SimpleNamespace(sections={}), SimpleNamespace(settings_changed=lambda *_: None)
        settings = Settings(home=Path("/nowhere"))
        taking = Taken(settings, models, None, None, None, journal)  # pyright: ignore[reportArgumentType]
        await asyncio.gather(taking(), taking())

    monkeypatch.setattr(reload, "again", read)
    asyncio.run(both())
    assert events == ["read", "taken"] * 2
