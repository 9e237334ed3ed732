"""Settings: where each value comes from, and what a wrong one is answered with."""

from pathlib import Path

import pytest

from ostler.core.settings import BadSetting, Settings, environment_names
from ostler.core.settings_sources import Origin, load_settings

DOCS = Path(__file__).parents[2] / "docs"


def test_each_source_beats_the_weaker_ones(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("port = 1\nmax_running = 1\nmax_queue = 1\ndownload_jobs = 1\n")
    loaded = load_settings(
        flags={"port": 4, "host": None},
        environ={"OSTLER_PORT": "3", "OSTLER_MAX_RUNNING": "3"},
        config=config,
        run_time={"port": 2, "max_running": 2, "max_queue": 2},
    )
    values = loaded.values
    assert (values.port, values.max_running, values.max_queue, values.download_jobs) == (4, 3, 2, 1)
    assert loaded.origins["port"] is Origin.COMMAND_LINE
    assert loaded.origins["max_running"] is Origin.ENVIRONMENT
    assert loaded.origins["max_queue"] is Origin.RUN_TIME
    assert loaded.origins["download_jobs"] is Origin.FILE
    assert loaded.origins["host"] is Origin.DEFAULT


def test_the_hub_token_is_read_from_the_three_known_variables_in_order() -> None:
    names = environment_names("hf_token")
    assert names[1:] == ["HF_TOKEN", "HUGGINGFACE_API_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
    for number, name in enumerate(names):
        token = load_settings(environ={n: n for n in names[number:]}).values.hf_token
        assert token is not None and token.get_secret_value() == name


def test_a_token_is_not_shown_when_settings_are_printed() -> None:
    loaded = load_settings(environ={"HF_TOKEN": "hf_very_secret"})
    assert "hf_very_secret" not in repr(loaded) + str(loaded.values.model_dump())


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"OSTLER_PORT": "eleven"}, "setting port (environment)"),
        ({"OSTLER_PORT": "70000"}, "setting port (environment)"),
        ({"OSTLER_LOG_FORMAT": "xml"}, "setting log_format (environment)"),
        ({"HF_ENDPOINT": "hub.example"}, "must begin with http"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_source(environ: dict[str, str], told: str) -> None:
    with pytest.raises(BadSetting) as caught:
        load_settings(environ=environ)
    assert told in caught.value.message


def test_a_misspelt_setting_in_the_file_is_refused_with_the_near_name(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("max_runing = 2\n")
    with pytest.raises(BadSetting, match="unknown setting 'max_runing'") as caught:
        load_settings(environ={}, config=config)
    assert caught.value.hint == "Did you mean max_running?"


@pytest.mark.parametrize("text", ["port = ", "\x00", "port = 1\nport = 2"])
def test_a_broken_configuration_file_is_named(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    with pytest.raises(BadSetting, match=r"config\.toml is not valid TOML"):
        load_settings(environ={}, config=config)


def test_a_named_configuration_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="does not exist"):
        load_settings(environ={}, config=tmp_path / "none.toml")


def test_lists_in_the_environment_are_split_at_commas() -> None:
    loaded = load_settings(environ={"OSTLER_ALLOWED_HOSTS": "one.lan, two.lan,"})
    assert loaded.values.allowed_hosts == ("one.lan", "two.lan")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    page = (DOCS / "settings.md").read_text()
    assert f"### `{name}`" in page
    for variable in environment_names(name):
        assert f"`{variable}`" in page
