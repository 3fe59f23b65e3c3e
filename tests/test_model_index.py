"""The model zoo's metadata: every config is in it, and it claims nothing that the pages do not show."""

import re
from pathlib import Path

import pytest
import yaml

import mmrotate_plugin

ROOT = Path(__file__).parents[1]
MIM = Path(mmrotate_plugin.__file__).parent / '.mim'
FOLDERS = sorted(p.name for p in (ROOT / 'configs').iterdir() if p.is_dir() and any(p.glob('*.py')))


def read(file):
    return yaml.safe_load(file.read_text(encoding='utf-8'))


def metafile(folder):
    return read(ROOT / 'configs' / folder / 'metafile.yml')


def without_evidence(models, pages):
    """The metrics whose numbers, as the pages write them, are in none of the pages."""
    values = [
        (model['Name'], value)
        for model in models
        for result in model.get('Results', [])
        for value in result['Metrics'].values()
    ]
    return [(name, value) for name, value in values if not re.search(rf'\b{value:.3f}\b', pages)]


def test_index_imports_the_metafile_of_every_folder_and_is_what_mmengine_reads():
    index = read(ROOT / 'model-index.yml')
    assert index == {'Import': [f'configs/{folder}/metafile.yml' for folder in FOLDERS]}
    assert read(MIM / 'model-index.yml') == index
    assert all((MIM / file).is_file() for file in index['Import'])


@pytest.mark.parametrize('folder', FOLDERS)
def test_metafile_lists_the_configs_of_its_folder(folder):
    meta = metafile(folder)
    collections = [collection['Name'] for collection in meta['Collections']]
    assert len(collections) == 1 and meta['Collections'][0]['Paper']['URL'].startswith('https://')
    assert [model['In Collection'] for model in meta['Models']] == collections * len(meta['Models'])
    configs = {file.relative_to(ROOT).as_posix(): file.stem for file in (ROOT / 'configs' / folder).glob('*.py')}
    assert {model['Config']: model['Name'] for model in meta['Models']} == configs
    assert all(model['Metadata']['Training Data'] for model in meta['Models'])


def test_names_of_collections_and_models_are_unique():
    metas = [metafile(folder) for folder in FOLDERS]
    for key in ('Collections', 'Models'):
        names = [entry['Name'] for meta in metas for entry in meta[key]]
        assert len(names) == len(set(names)) and names


def test_results_are_those_of_the_pages():
    pages = '\n'.join(file.read_text(encoding='utf-8') for file in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')))
    models = [model for folder in FOLDERS for model in metafile(folder)['Models']]
    assert any('Results' in model for model in models)
    assert without_evidence(models, pages) == []
    assert not any('Weights' in model for model in models), 'no weights are published'
    invented = [dict(Name='x', Results=[dict(Metrics={'mAP': 0.9871})])]
    assert without_evidence(invented, pages) == [('x', 0.9871)]


def test_parser_of_openmmlab_reads_it(monkeypatch):
    load = pytest.importorskip('modelindex.load_model_index').load
    monkeypatch.chdir(ROOT)
    index = load('model-index.yml')
    index.build_models_with_collections()
    assert {model.name for model in index.models} == {m['Name'] for f in FOLDERS for m in metafile(f)['Models']}
    assert not [error for model in index.models for error in model.check_errors]
    full = {model.name: model.full_model for model in index.models}
    assert 'arxiv.org/abs/2103.07733' in str(full['redet-le90_re50_refpn_1x_dota'].paper)
    assert full['rotated-fcos_re18_fpn_synthetic'].results[0].metrics == {'mAP@0.5': 0.879}


def test_config_is_found_through_the_metafile():
    from mmengine.hub import get_config

    name = 'imagenet/re-resnet18_8xb32_in1k.py'
    pytest.importorskip('mmpretrain')  # the config's base
    assert get_config(f'mmrotate_plugin::{name}').model.backbone.type == 'mmrotate_plugin.ReResNet'
