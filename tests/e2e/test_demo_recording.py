"""The demo's own recording: compacted beside its raw files, replayed, and served to a client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.processes import command, environment, ingestor

pytestmark = pytest.mark.slow


def test_files_of_compact_disturb_neither_replay_nor_serve(tmp_path: Path) -> None:
    folder = str(tmp_path / "recordings")
    env = environment(tmp_path, INGESTOR__RECORDER__PATH=folder)
    with command("demo", "--symbols", "3", "--seconds", "4", "--json", env=env) as demo:
        assert demo.end().result["frames_received"] > 0
    env = environment(tmp_path)

    def replayed() -> dict[str, object]:
        ended = ingestor("replay", folder, "--audit", "--json", env=env)
        assert (ended.returncode, ended.stderr) == (0, "")
        result: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
        return {name: result[name] for name in ("frames", "rows", "digest")}

    before = replayed()
    assert ingestor("compact", folder, env=env).returncode == 0
    assert list(Path(folder).glob("ticks/**/*.parquet"))
    assert replayed() == before
    with command("serve", folder, "--port", "0", env=env) as serving:
        serving.until(lambda: "rest_url" in serving.out)
        about = json.loads(serving.out.splitlines()[0])
        config = tmp_path / "served.toml"
        config.write_text(
            '[[feeds]]\nvenue = "simulated"\nsymbols = ["*"]\n'
            f'url = "{about["url"]}"\nrest_url = "{about["rest_url"]}"\n'
        )
        again = str(tmp_path / "again")
        served = ingestor(
            "record", str(config), "--path", again, "--seconds", "4", "--json", env=env
        )
        assert served.returncode == 0, served.stderr
        result = json.loads(served.stdout.splitlines()[-1])
        assert result["rows_appended"] > 0
        assert result["frames_rejected"] == 0
        assert "parquet" not in serving.err
