"""The wheel holds the package whole, and works when it is installed alone."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_works_when_it_is_installed_alone(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("ostinato-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies are those of this environment; the package is the wheel's.
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    script = str(tmp_path / "venv" / "bin" / "ostinato")
    models = subprocess.run(
        [script, "models", "--json"], capture_output=True, text=True, check=True
    )
    assert "smollm2" in models.stdout and "support" in models.stdout
    job = tmp_path / "job.toml"
    made = subprocess.run([script, "refine", "--new", job], capture_output=True, text=True)
    assert made.returncode == 0 and job.exists()
    picture = tmp_path / "seven.png"
    sample = [script, "sample", "image", "--label", "7", "--steps", "2", "--out", str(picture)]
    sample.append("--until-passes")  # with the denoiser and the classifier that ship
    told = subprocess.run(sample, check=True, capture_output=True, text=True).stdout
    assert "1 of 1: " in told
    assert picture.stat().st_size > 0
    music = [script, "sample", "music", "--out", str(tmp_path / "bach.wav")]
    subprocess.run(music, check=True, capture_output=True)
    assert (tmp_path / "bach.wav").stat().st_size > 100_000
    code = "import ostinato; print(ostinato.__file__)"
    where = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert str(tmp_path) in where.stdout
