"""Check that the required packages can be imported, with one clear error otherwise.

The onedl forks and the original OpenMMLab packages share their import names, so neither can be a requirement of the
distribution: installing it would overwrite one with the other. So the check is made here, at import.
"""

import importlib
import warnings

# import name -> (distribution of the onedl forks, distribution of the originals)
REQUIRED = {
    'torch': ('torch', 'torch'),
    'mmengine': ('onedl-mmengine', 'mmengine>=0.8'),
    'mmcv': ('onedl-mmcv', 'mmcv>=2.0,<2.2'),
    'e2cnn': ('e2cnn', 'e2cnn'),
}


def check_dependencies(required: dict[str, tuple[str, str]] = REQUIRED) -> None:
    """Import each required package.

    Raises:
        ImportError: If packages are missing; the message names them all, with both ways to install them. If a package
            is installed but does not import, its own error is the cause.
    """
    missing = []
    for name in required:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', SyntaxWarning)  # on the source of others, where this run compiles it
                importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise _broken(name, error) from error
            missing.append(name)
        except ImportError as error:
            raise _broken(name, error) from error
    if missing:
        forks = ' '.join(f"'{required[name][0]}'" for name in missing)
        originals = ' '.join(f"'{required[name][1]}'" for name in missing)
        raise ImportError(
            f'mmrotate_plugin needs {", ".join(missing)}, which cannot be found. Install either the maintained forks '
            f'(pip install {forks}) or the original OpenMMLab packages (pip install {originals}), not both: they '
            'share import names. docs/install.md says how mmcv is compiled.',
            name=missing[0],
        )


def _broken(name: str, error: ImportError) -> ImportError:
    return ImportError(
        f'mmrotate_plugin needs {name}, which is installed but does not import: {error}. '
        f'Reinstall or update {name}; the error above this one is its own.',
        name=name,
    )
