"""The package from outside: what an import loads, what a wheel holds, one name for each module."""

import subprocess
import sys
from importlib.metadata import files

import pytest

import segmodel


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_the_package_loads_neither_torch_nor_numpy():
    assert not modules_after("import segmodel") & {"torch", "numpy", "triton", "PIL"}


def test_importing_the_operators_loads_no_model():
    loaded = modules_after("import segmodel.kernels")
    assert not {name for name in loaded if name.startswith("segmodel.") and not name.startswith("segmodel.kernels")}
    assert "triton" not in loaded


def test_public_names_load_on_first_use_and_unknown_ones_are_errors():
    for name in segmodel.__all__:
        assert getattr(segmodel, name) is not None
    assert set(segmodel.__all__) <= set(dir(segmodel))
    code = (
        "import segmodel; print(segmodel.kernels.guided_filter.__name__, segmodel.reference.CONTENTS['Eq. 12'].oracle)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "guided_filter guided_filter.dense_weights\n", done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'Segmodel'"):
        _ = segmodel.Segmodel


def test_nothing_is_imported_under_a_second_name():
    everything = (
        "import segmodel.kernels, segmodel.reference, segmodel.train, segmodel.evaluate, segmodel.predict\n"
        "import importlib, pkgutil\n"
        "for part in (segmodel.kernels, segmodel.reference):\n"
        "    for item in pkgutil.iter_modules(part.__path__, part.__name__ + '.'):\n"
        "        needs = any(word in item.name for word in ('__main__', 'triton', 'numba'))\n"
        "        needs or importlib.import_module(item.name)\n"
    )
    loaded = modules_after(everything)
    assert not {name for name in loaded if name.split(".")[0] in ("kernels", "reference")}
    assert {"segmodel.kernels.guidance_crf", "segmodel.reference.guidance_crf"} <= loaded


def test_the_wheel_holds_segmodel_alone_and_its_recipes():
    if "site-packages" not in segmodel.__file__:
        pytest.skip("this is the checkout; the wheel is looked at in its own environment")
    installed = [file for file in files("segmodel") or [] if ".dist-info" not in str(file)]
    scripts = [file for file in installed if str(file).startswith("..")]
    assert [file.stem for file in scripts] == ["segmodel"]
    installed = [file for file in installed if file not in scripts]
    tops = {str(file).split("/")[0] for file in installed}
    assert tops == {"segmodel"}
    names = {str(file) for file in installed}
    assert {"segmodel/kernels/guidance_crf.py", "segmodel/reference/guidance_crf.py"} <= names
    assert {"segmodel/training/recipes/scenes.toml", "segmodel/common/report.css", "segmodel/py.typed"} <= names
    assert {"segmodel/reference/arithmetic.js", "segmodel/reference/live.css"} <= names
    assert "segmodel/inference/explore.js" in names
