"""Broken files of a data set are named, counted and left out, or refused."""

import logging
import os

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from mmrotate_plugin.datasets import DOTADataset
from mmrotate_plugin.datasets.utils.broken_files import BrokenFileError, check_pixels, image_size
from mmrotate_plugin.utils import messages

SHIP = '10 10 30 10 30 20 10 20 ship 0\n'
COUNT = 200


@pytest.fixture
def folder(tmp_path):
    """Two hundred images, some of which, or their labels, are broken in every way; `bad` and `hidden` name them."""
    rng = np.random.default_rng(0)
    whole = cv2.imencode('.png', rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))[1].tobytes()
    for i in range(COUNT):
        (tmp_path / f'P{i:03}.png').write_bytes(whole)
        (tmp_path / f'P{i:03}.txt').write_text(SHIP)
    (tmp_path / 'P010.png').write_bytes(b'')
    (tmp_path / 'P020.png').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'P030.png').write_bytes(b'<html>not found</html>')
    (tmp_path / 'P040.txt').write_bytes(b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR')
    middle = bytearray(whole)
    middle[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)  # header and end are right
    (tmp_path / 'P050.png').write_bytes(middle)
    return tmp_path


BAD, HIDDEN = ('P010.png', 'P020.png', 'P030.png', 'P040.txt'), 'P050.png'


@pytest.fixture
def warned(monkeypatch, tmp_path):
    """Warnings, of worker processes too."""
    file = tmp_path / 'warnings.log'

    def record(text, logger=None, level=logging.INFO):  # noqa: ARG001
        if level >= logging.WARNING:
            with file.open('a') as stream:
                stream.write(text + '\n')

    monkeypatch.setattr(messages, 'print_log', record)
    return lambda: file.read_text().splitlines() if file.is_file() else []


def with_labels(folder, **options):
    return DOTADataset(
        ann_file='./', data_root=str(folder), data_prefix={'img_path': ''},
        pipeline=[dict(type='mmcv.LoadImageFromFile')], **options,
    )  # fmt: skip


def test_they_are_named_counted_and_left_out(folder, warned):
    dataset = with_labels(folder)
    assert len(dataset) == COUNT - len(BAD)
    *each, total = warned()
    assert len(each) == len(BAD)
    for name, text in zip(BAD, each, strict=True):
        assert name in text and 'left out' in text
    assert total.startswith(f'{len(BAD)} of {COUNT} images are left out')


def test_strict_refuses_the_first(folder, warned):
    with pytest.raises(BrokenFileError, match=r'P010\.png is an empty file'):
        with_labels(folder, strict=True)
    assert not warned()


@pytest.mark.parametrize('workers', [0, 2])
def test_damage_that_decoding_shows_is_replaced_in_a_training(folder, warned, workers):
    dataset = with_labels(folder)
    before = len(warned())
    for _ in range(2):
        samples = [s for batch in DataLoader(dataset, 4, num_workers=workers, collate_fn=list) for s in batch]
        assert len(samples) == COUNT - len(BAD)
        assert not any(HIDDEN in sample['img_path'] for sample in samples)
    (text,) = warned()[before:]  # once, whichever worker had it
    assert HIDDEN in text and '(1 such images so far)' in text


def test_a_test_does_not_leave_an_image_out_unasked(folder, warned):
    dataset = with_labels(folder, test_mode=True)
    index = next(i for i in range(len(dataset)) if dataset.get_data_info(i)['file_name'] == HIDDEN)
    with pytest.raises(BrokenFileError, match=rf'{HIDDEN}.*check_pixels=True'):
        dataset[index]
    checked = with_labels(folder, test_mode=True, check_pixels=True)
    assert len(checked) == len(dataset) - 1
    assert any(HIDDEN in text for text in warned())


def test_an_error_of_the_pipeline_is_no_broken_image(folder, warned):
    dataset = with_labels(folder)
    before = len(warned())

    def fail(_):
        raise RuntimeError('a bug')

    dataset.pipeline.transforms.append(fail)
    with pytest.raises(RuntimeError, match='a bug'):
        dataset[0]
    assert len(warned()) == before


def test_unreadable_labels_are_named(folder, warned):
    if os.geteuid() == 0:
        pytest.skip('root reads every file')
    (folder / 'P060.txt').chmod(0)
    with_labels(folder)
    assert any('P060.txt cannot be read' in text for text in warned())


def test_a_jpeg_that_was_cut_off(tmp_path):
    file = tmp_path / 'a.jpg'
    whole = cv2.imencode('.jpg', np.zeros((40, 60, 3), np.uint8))[1].tobytes()
    file.write_bytes(whole + b'\0' * 500)  # padding behind the end is common
    assert image_size(file) == (60, 40)
    check_pixels(file)
    file.write_bytes(whole[:-10])
    with pytest.raises(BrokenFileError, match=r'a\.jpg is broken: its end is missing'):
        image_size(file)


HRSC = """<HRSC_Image><Img_SizeWidth>60</Img_SizeWidth><HRSC_Objects><HRSC_Object><mbox_cx>30</mbox_cx>
<mbox_cy>20</mbox_cy><mbox_w>20</mbox_w><mbox_h>8</mbox_h><mbox_ang>0.3</mbox_ang><header_x>40</header_x><header_y>20</header_y></HRSC_Object>
</HRSC_Objects></HRSC_Image>"""
CORNERS = dict(x_left_top=10, y_left_top=10, x_right_top=30, y_right_top=10, x_right_bottom=30, y_right_bottom=20,
               x_left_bottom=10, y_left_bottom=20)  # fmt: skip
DIOR = (
    '<annotation><size><width>60</width><height>40</height></size><object><name>ship</name><robndbox>'
    + ''.join(f'<{key}>{value}</{key}>' for key, value in CORNERS.items())
    + '</robndbox></object></annotation>'
)


@pytest.mark.parametrize('name, suffix, xml', [('HRSCDataset', '.bmp', HRSC), ('DIORDataset', '.jpg', DIOR)])
def test_data_sets_with_xml_files(name, suffix, xml, tmp_path, warned):
    labels = tmp_path / 'xml'
    labels.mkdir()
    whole = cv2.imencode(suffix, np.full((40, 60, 3), 90, np.uint8))[1].tobytes()
    names = [f'{i:03}' for i in range(20)]
    for stem in names:
        (tmp_path / f'{stem}{suffix}').write_bytes(whole)
        (labels / f'{stem}.xml').write_text(xml)
    (labels / '003.xml').write_text(xml[: len(xml) // 2])
    (labels / '005.xml').write_text(xml.replace('mbox_w', 'box_w').replace('<name>ship', '<name>zeppelin'))
    (tmp_path / f'007{suffix}').write_bytes(b'')
    (tmp_path / f'009{suffix}').unlink()
    (tmp_path / 'list.txt').write_text('\n'.join(names))
    cfg = dict(type=f'mmrotate_plugin.{name}', data_root=f'{tmp_path}/', ann_file='list.txt', ann_subdir='xml/')
    cfg |= dict(img_subdir='', data_prefix=dict(sub_data_root='')) if name == 'HRSCDataset' else dict(
        data_prefix=dict(img_path=''))  # fmt: skip
    dataset = DATASETS.build(cfg)
    assert [dataset.get_data_info(i)['img_id'] for i in range(4)] == ['000', '001', '002', '004']
    assert len(dataset) == 17 and len(dataset.get_data_info(0)['instances']) == 1
    assert dataset.get_data_info(4)['img_id'] == '005' and dataset.get_data_info(4)['instances'] == []
    *each, total = [text for text in warned() if 'images' in text or 'the image' in text]
    for part, text in zip(('003.xml', f'007{suffix}', f'009{suffix}'), each, strict=True):
        assert part in text and 'left out' in text
    assert total.startswith('3 of 20 images are left out')
    what = '005.xml: left out 1 of 1 objects' if name == 'HRSCDataset' else "'zeppelin' (1)"
    assert any(what in text for text in warned())
    with pytest.raises(BrokenFileError, match=r'003\.xml cannot be used \(ParseError'):
        DATASETS.build({**cfg, 'strict': True})
    host = getattr(pytest.importorskip('mmrotate.datasets'), name)
    with pytest.raises(SyntaxError):  # what mmrotate does, without a name
        host(**{key: value for key, value in cfg.items() if key != 'type'})
