"""Models on paper: add, create, list, show, cp, rm, inspect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.real


@pytest.fixture
def own_file(tmp_path: Path, demo_model: Path) -> Path:
    """A copy of the demo model under a name of its own."""
    return Path(shutil.copy(demo_model, tmp_path / f"{tmp_path.name}.gguf"))


def test_a_file_is_taken_in_where_it_lies_and_shown(cli: Cli, own_file: Path) -> None:
    out = cli.ok("add", str(own_file), "--name", "added/one:q8")
    assert "ostler run added/one:q8" in out

    shown = cli.ok("show", "added/one:q8")
    for word in ("Model", "Source", "Policy", "Instance", "llama", "1.9M", "Q8_0", "1024", str(own_file)):
        assert word in shown
    assert cli.json("show", "added/one:q8")["source"]["path"] == str(own_file)

    rows = [line.split() for line in cli.ok("list", "added/").splitlines()]
    assert rows[0] == ["NAME", "ID", "SIZE", "MODIFIED", "QUANT", "CTX", "STATE"]
    assert rows[1][0] == "added/one:q8" and rows[1][-3:] == ["Q8_0", "1024", "stopped"]
    assert cli.json("ls", "added/")["items"][0]["name"] == "added/one:q8"


def test_a_name_with_blanks_is_quoted_where_a_command_is_shown(cli: Cli, own_file: Path) -> None:
    assert "ostler run 'two words'" in cli.ok("add", str(own_file), "--name", "two words")
    assert cli.json("show", "two words")["name"] == "two words"
    assert "two words" in cli.ok("list", "two words")
    taken = cli("create", "two words", "--from", str(own_file))
    assert "ostler show 'two words'" in taken.err
    cli.ok("rm", "two words")


def test_a_relative_path_means_the_folder_of_the_one_who_types(
    cli: Cli, own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_file.parent)
    made = cli.json("add", f"./{own_file.name}")
    assert made["source"]["path"] == str(own_file)
    (own_file.parent / "below").mkdir()
    monkeypatch.chdir(own_file.parent / "below")
    above = cli.json("add", f"../{own_file.name}", "--name", "from-below")
    assert above["source"]["path"] == str(own_file)
    for written in (f"-m ../{own_file.name}", f"--model=../{own_file.name}"):
        pasted = cli.json("create", f"pasted-{len(written)}", "--command", f"llama-server {written} -c 512")
        assert pasted["source"]["path"] == str(own_file)


def test_a_path_that_is_not_there_and_a_file_that_is_no_model(cli: Cli, tmp_path: Path) -> None:
    missing = cli("add", str(tmp_path / "none.gguf"))
    assert missing.code == 4 and missing.err.splitlines()[-1].startswith("Try: ")
    (tmp_path / "text.gguf").write_text("not a model")
    broken = cli("add", str(tmp_path / "text.gguf"))
    assert broken.code in (1, 2) and broken.err.startswith("Error: ")


def test_a_model_is_created_with_checked_options(cli: Cli, own_file: Path) -> None:
    cli.ok("create", "created", "--from", str(own_file), "-o", "context_length=256", "--description", "small")
    made = cli.model("created")
    assert made["options"] == {"context_length": 256} and made["description"] == "small"

    wrong = cli("create", "created-2", "--from", str(own_file), "-o", "context_lenght=256")
    assert wrong.code == 2 and "context_length" in wrong.err
    nothing = cli("create", "created-3")
    assert nothing.code == 2 and "--from" in nothing.err
    taken = cli("create", "created", "--from", str(own_file))
    assert taken.code == 1 and "created" in taken.err


def test_a_model_is_created_from_a_command_line(cli: Cli, own_file: Path) -> None:
    cli.ok("create", "pasted", "--command", f"llama-server -m {own_file} -c 512 --port 8080")
    made = cli.model("pasted")
    assert made["options"]["context_length"] == 512 and made["source"]["path"] == str(own_file)


def test_what_show_prints_as_json_makes_the_same_model_again(
    cli: Cli, own_file: Path, tmp_path: Path
) -> None:
    cli.ok("create", "twin-a", "--from", str(own_file), "-o", "context_length=300")
    recipe = tmp_path / "twin.json"
    recipe.write_text(cli.ok("show", "twin-a", "--json"))
    cli.ok("create", "twin-b", "-f", str(recipe))
    first, second = cli.model("twin-a"), cli.model("twin-b")
    assert all(first[key] == second[key] for key in ("source", "options", "policy", "engine"))
    recipe.write_text("[]")
    assert cli("create", "twin-c", "-f", str(recipe)).code == 2


def test_an_unknown_model_is_told_with_the_near_name_and_exit_code_4(cli: Cli, own_file: Path) -> None:
    cli.ok("add", str(own_file), "--name", "nearby-model")
    answer = cli("show", "nearby-modle")
    assert answer.code == 4 and "nearby-model" in answer.err.splitlines()[-1]


def test_a_file_that_no_model_is_made_of_is_shown_by_its_header(cli: Cli, own_file: Path) -> None:
    shown = cli.ok("show", str(own_file))
    assert "architecture" in shown and str(own_file.name) in shown and "Instance" not in shown
    own_file.write_bytes(own_file.read_bytes()[:100_000])
    assert cli("show", str(own_file)).code == 2
    assert cli.json("list", own_file.stem)["items"] == [], "looking makes no model"


def test_a_copy_shares_the_files_and_rm_keeps_them(cli: Cli, own_file: Path) -> None:
    cli.ok("add", str(own_file), "--name", "original")
    cli.ok("cp", "original", "the-copy")
    assert cli.model("the-copy")["source"]["path"] == str(own_file)
    out = cli.ok("rm", "original")
    assert "kept" in out and str(own_file) in out
    assert cli("show", "original").code == 4 and cli("show", "the-copy").code == 0
    assert own_file.is_file()


def test_rm_files_asks_and_never_touches_files_that_ostler_did_not_put_there(
    cli: Cli, own_file: Path
) -> None:
    cli.ok("add", str(own_file), "--name", "precious")
    unanswered = cli("rm", "precious", "--files")
    refused = cli("rm", "precious", "--files", "--yes")
    for answer in (unanswered, refused):
        assert answer.code == 5 and "ostler rm precious" in answer.err.splitlines()[-1]
    assert own_file.is_file() and cli("show", "precious").code == 0


def test_inspect_reads_a_file_without_a_server(lone: Cli, demo_model: Path) -> None:
    out = lone.ok("inspect", str(demo_model))
    for word in ("llama", "1.9M", "Q8_0", "1024", "chat"):
        assert word in out
    told = lone.json("inspect", str(demo_model))
    assert told["facts"]["architecture"] == "llama" and told["complete"] is True
    assert not lone.data.exists()


def test_inspect_says_what_is_wrong_with_a_file(lone: Cli, tmp_path: Path, demo_model: Path) -> None:
    assert lone("inspect", str(tmp_path / "none.gguf")).code == 4
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(demo_model.read_bytes()[:100_000])
    answer = lone("inspect", str(cut))
    assert answer.code == 2 and answer.err.startswith("Error: ")


def test_the_files_on_disk_are_listed_too(cli: Cli, own_file: Path) -> None:
    folder = cli.data / "models"
    folder.mkdir(exist_ok=True)
    shutil.copy(own_file, folder / "on-disk-Q8_0.gguf")
    out = cli.ok("list", "on-disk", "--files")
    assert str(folder / "on-disk-Q8_0.gguf") in out and "2.1 MB" in out
    assert (
        json.loads(cli.ok("list", "on-disk", "--files", "--json"))["items"][0]["facts"]["quantization"]
        == "Q8_0"
    )
