"""`ingestor compact`: raw segments in, Parquet out; only the hours that changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ingestor.model.errors import ConfigError
from ingestor.recording.files import regular_files
from ingestor.recording.layout import parse_segment_path
from ingestor.recording.parquet import Manifest, Unit, UnitWriter, load_manifest, save_manifest
from ingestor.recording.reader import Problems
from ingestor.sources.registry import adapter_of
from ingestor.sources.replay.found_feeds import AdapterOf
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay

RAW: Final = "raw"


@dataclass(slots=True)
class CompactReport:
    """units: written, as "venue hour-since-the-epoch"; unchanged: left alone. rows: written."""

    units: list[str] = field(default_factory=list)
    unchanged: int = 0
    rows: int = 0
    files: list[Path] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)


def compact(
    path: Path,
    *,
    adapters: AdapterOf = adapter_of,
    progress: Callable[[str], None] | None = None,
) -> CompactReport:
    """Derive `path`/ticks from the finished segments in `path`/raw.

    Hours whose segments are those of the last time are left alone; those before them are replayed
    where books must be warm. Calling it twice writes nothing the second time.

    Args:
        path: Folder of the recording.
        adapters: Finds the adapter of a venue.
        progress: Called with a line of text for people.

    Raises:
        OSError: A file can't be read or written.
        ConfigError: There is no `raw` folder.
    """
    if not (path / RAW).is_dir():
        raise ConfigError("there is no folder of raw segments", where=str(path / RAW))
    report = CompactReport()
    manifest = load_manifest(path)
    segments = _segments(path, report.problems)
    for venue in sorted({unit.venue for unit in segments}):
        _venue(path, venue, segments, manifest, report, adapters, progress)
    return report


def _segments(path: Path, problems: Problems) -> dict[Unit, dict[str, int]]:
    """Return the size of each segment by its path below `raw`, by unit."""
    found: dict[Unit, dict[str, int]] = {}
    for file in regular_files(path / RAW, lambda path, what: problems.add(path, 0, what)):
        name = parse_segment_path(file)
        if name is not None and name.finished and name.venue and name.hour >= 0:
            sizes = found.setdefault(Unit(name.venue, name.hour), {})
            sizes[str(file.relative_to(path / RAW))] = file.stat().st_size
    return found


def _key(unit: Unit) -> str:
    return f"{unit.venue} {unit.hour}"


def _changed(unit: Unit, now: dict[str, int], before: dict[str, int], problems: Problems) -> bool:
    """Say whether a unit must be written (again)."""
    if now.items() <= before.items():
        return False  # nothing new; what retention took away stays in the Parquet files
    gone = sorted(before.keys() - now.keys())
    if gone:
        what = f"{_key(unit)}: segments it was made from are gone, it is left as it is"
        problems.add(Path(gone[0]), 0, what)
        return False
    return True


def _venue(
    root: Path,
    venue: str,
    segments: dict[Unit, dict[str, int]],
    manifest: Manifest,
    report: CompactReport,
    adapters: AdapterOf,
    progress: Callable[[str], None] | None,
) -> None:
    """Replay a venue's segments in order; write the hours that changed."""
    units = sorted((unit for unit in segments if unit.venue == venue), key=lambda one: one.hour)
    changed = [
        unit
        for unit in units
        if _changed(unit, segments[unit], manifest.get(_key(unit), {}), report.problems)
    ]
    report.unchanged += len(units) - len(changed)
    if not changed:
        return
    paths = tuple(
        root / RAW / name
        for unit in units
        if unit.hour <= changed[-1].hour
        for name in segments[unit]
    )
    try:
        replay = Replay(ReplayOptions(paths), adapters=adapters, problems=report.problems)
    except ConfigError:
        return  # its problems say why
    writers: dict[Unit, UnitWriter] = {}

    def finish(hour: int) -> None:
        """Put the units before an hour in place: a segment may begin while another ends."""
        for unit in [writer for writer in writers if writer.hour < hour]:
            writer = writers.pop(unit)
            report.files += writer.close()
            report.rows += writer.rows
            report.units.append(_key(unit))
            manifest[_key(unit)] = segments[unit]
            save_manifest(root, manifest)
            if progress is not None:
                progress(_key(unit))

    for unit, result in replay.results_by(_unit_of):
        if unit in changed and unit not in writers:
            finish(unit.hour - 1)
            writers[unit] = UnitWriter(root, unit, replay.table)
        if unit in writers:
            for batch in result.batches:
                writers[unit].add(batch.row_class, batch.rows)
    finish(changed[-1].hour + 1)


def _unit_of(path: Path) -> Unit:
    name = parse_segment_path(path)
    assert name is not None
    return Unit(name.venue, name.hour)
