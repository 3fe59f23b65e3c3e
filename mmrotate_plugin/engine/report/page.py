"""Lay out the page of a report from its numbers and figures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...visualization.html import png_uri, render_page
from ...visualization.plots.report_counts import UNITS, range_text

NAMES = {'test': 'Test', 'val': 'Validation'}
CAPTIONS = {
    'precision_recall': 'Precision over recall. Detections count from the best score down.',
    'f1': 'F1 over the lowest score that counts.',
    'confusion': 'Rows are objects, columns detections; the last column is missed, the last row false.',
    'scores': 'Bars on the line: a score is the probability of being right.',
    'boxes': 'Curves on the line: standard deviations are right. Above at the left and below at the right: too small.',
}
TRAINING = {
    'training_loss': 'Losses, averaged as in the log.',
    'training_lr': 'Learning rate.',
    'training_map': 'Metrics of the validations.',
    'training_equivariance': 'Relative error of maps under turns, as EquivarianceHook measured it.',
}

Values = Mapping[str, Any]


def make_page(report: Values, folder: Path) -> str:
    """Fill the template of the report.

    Args:
        report: The numbers as report.json has them; None stands for a number about nothing.
        folder: Where the figures are.

    Returns:
        A page that holds its figures itself.
    """
    facts, known = report['facts'], report['evaluations']
    sections = [_training(report['training'], folder)]
    for name in (name for name in NAMES if name in known):
        sections.append(_evaluation(name, known[name], folder))
    sections += [_turns(report['turns'], facts, folder), _run(report)]
    shown = known.get('test') or known.get('val')
    model = facts.get('model', 'detector')
    return render_page(
        'report.html',
        title=f'{facts.get("name") or model}: report',
        subtitle=', '.join(text for text in (model, facts.get('claim'), facts.get('written')) if text),
        notes=[note for one in known.values() for note in one.get('notes', ())] + list(facts.get('notes', ())),
        cards=list(_cards(facts, shown, next((name for name in NAMES if name in known), ''))),
        sections=[section for section in sections if section['parts'] or section['texts']],
        footer='Written by mmrotate_plugin. Figures and numbers are in the folder report beside this page.',
    )


def _cards(facts: Values, shown: Values | None, name: str) -> Iterator[tuple[str, str]]:
    if shown:
        for key, text in (('AP50', 'mAP at .5'), ('AP75', 'mAP at .75'), ('AP50_95', 'mAP at .5:.95')):
            yield _number(shown[key]), f'{text}, {NAMES[name].lower()}'
        yield _number(shown['best']['f1']), f'best F1, at a score of {_number(shown["best"]["threshold"])}'
        speed = shown['facts'].get('seconds_per_image')
        if speed:
            yield f'{1000 * speed:.0f} ms', f'per image, {shown["facts"].get("device", "")}'
    if facts.get('parameters'):
        yield _large(facts['parameters']), 'parameters'
    if facts.get('macs'):
        yield _large(facts['macs']), 'multiply-adds (half the FLOPs)'


def _training(training: Values, folder: Path) -> dict[str, Any]:
    figures = [_figure(folder / f'{name}.png', text) for name, text in TRAINING.items()]
    texts = [] if training.get('train') else ['No scalars of a training are in this directory.']
    return _section('training', 'Training', texts, [_part(figures=figures)])


def _evaluation(name: str, numbers: Values, folder: Path) -> dict[str, Any]:
    facts, thr = numbers['facts'], _number(numbers['score_thr'])
    mode = {'11points': '11 points (VOC 2007, DOTA)', 'area': 'area below the curve'}[numbers['eval_mode']]
    of = ', '.join(str(facts[key]) for key in ('checkpoint', 'data') if facts.get(key))
    best = numbers['best']
    intro = [
        f'{numbers["images"]:,} images, {numbers["objects"]:,} objects, {numbers["detections"]:,} detections'
        f'{f"; {of}" if of else ""}; measured {facts["written"]}. Average precision: {mode}.',
    ]
    if best['f1'] is not None:
        intro.append(
            f'The best threshold of the score is {_number(best["threshold"])}: F1 {_number(best["f1"])}, precision '
            f'{_number(best["precision"])}, recall {_number(best["recall"])}.'
        )
    head = ['class', 'objects', 'ignored', 'detections', 'AP .5', 'AP .75', 'AP .5:.95', 'best F1', 'at score']
    head += ['precision', 'recall']
    rows = [
        [
            row['name'],
            *(f'{row[key]:,}' for key in ('objects', 'ignored', 'detections')),
            *(_number(row[key]) for key in ('AP50', 'AP75', 'AP50_95')),
            *(_number(row['best'][key]) for key in ('f1', 'threshold', 'precision', 'recall')),
        ]
        for row in numbers['classes']
    ]

    def figures(*names: str) -> list[dict[str, str] | None]:
        return [_figure(folder / f'{name}_{one}.png', CAPTIONS.get(one, '')) for one in names]

    parts = [
        _part('Classes', table={'head': head, 'rows': rows}),
        _part(figures=figures('precision_recall', 'f1', 'confusion')),
        _part(
            'Errors by size, aspect ratio and angle',
            [
                f'Detections with a score of {thr} or more, an overlap of {numbers["iou_thr"]:g} or more and the right '
                'class find an object. Centre, size and angle are medians of absolute errors of those found.'
            ],
            figures=[_figure(folder / f'{name}_by_{group}.png', f'By {UNITS[group]}.') for group in UNITS],
        ),
        *(_part(table=_groups(group, numbers['groups'][group])) for group in UNITS),
        _part('Calibration', list(_calibration(numbers)), figures=figures('scores', 'boxes')),
    ]
    if numbers['boxes']:
        parts.append(_part(table=_boxes(numbers['boxes'])))
    worst = numbers['worst']
    pictures = [
        _figure(
            folder / row['picture'], f'{row["image"]}: {row["missed"]} of {row["objects"]} missed, {row["false"]} false'
        )
        for row in worst
    ]
    if worst:
        text = f'Those with the most missed objects and false detections, from a score of {thr} on.'
        table = {
            'head': ['image', 'objects', 'missed', 'false'],
            'rows': [[row[key] for key in ('image', 'objects', 'missed', 'false')] for row in worst],
        }
        parts.append(_part('The worst images', [text], figures=pictures, table=None if any(pictures) else table))
    return _section(name, NAMES[name], intro, parts)


def _groups(name: str, groups: Sequence[Values]) -> dict[str, Any]:
    head = [UNITS[name], 'objects', 'found', 'recall', 'false', 'mean overlap', 'centre (px)', 'size (%)', 'angle (°)']
    rows = [
        [
            range_text(group['low'], group['high']),
            *(f'{group[key]:,}' for key in ('objects', 'found')),
            _number(group['recall']),
            f'{group["false"]:,}',
            _number(group['iou']),
            _number(group['centre'], 2),
            _number(None if group['size'] is None else 100 * group['size'], 1),
            _number(group['angle'], 1),
        ]
        for group in groups
    ]
    return {'head': head, 'rows': rows}


def _boxes(boxes: Values) -> dict[str, Any]:
    head = ['coordinate', 'calibration error', *(f'within {k} standard deviations' for k in (1, 2, 3))]
    rows = [[row['name'], *map(_number, (row['error'], *row['coverage']))] for row in boxes['coordinates']]
    return {'head': head, 'rows': [*rows, ['a Gaussian', _number(0.0), *map(_number, boxes['expected'])]]}


def _calibration(numbers: Values) -> Iterator[str]:
    if numbers['scores'].get('error') is not None:
        yield f'Expected calibration error of the scores: {_number(numbers["scores"]["error"])}; 0 is best.'
    if not numbers['boxes']:
        yield 'The boxes have no standard deviations; UncertainDetector around the detector gives them.'


def _turns(turns: Values, facts: Values, folder: Path) -> dict[str, Any]:
    parts = []
    for kind, title in (('angles', 'mAP over the angle'), ('equivariance', 'Equivariance error')):
        if kind not in turns:
            continue
        found = turns[kind]
        figures = [
            _figure(folder / name, f'From {found["file"]} of {found.get("checkpoint")}.') for name in found['figures']
        ]
        table = None
        if kind == 'angles':
            keys = ('AP50', 'AP75', 'AP50_95')
            rows = [
                [f'{row["degrees"]:g}{" mirrored" if row["mirrored"] else ""}', *(_number(row[key]) for key in keys)]
                for row in found['angles']
            ]
            for name in ('mean', 'worst', 'spread', 'together'):
                rows.append([name, *(_number(found['summary'][key][name]) for key in keys)])
            table = {'head': ['angle (°)', 'mAP .5', 'mAP .75', 'mAP .5:.95'], 'rows': rows}
        else:
            head = ['map', 'group', 'at exact turns', 'at 45 degrees', 'mean over the circle']
            rows = [
                [name, row['group'] or '-', *(_error(row[key]) for key in ('exact', 'at_45', 'mean'))]
                for name, row in found['maps'].items()
            ]
            table = {'head': head, 'rows': rows}
        parts.append(_part(title, figures=figures, table=table))
    texts = []
    if facts.get('claim') and len(parts) < 2:
        texts.append(
            f'The model claims {facts["claim"]}. To have mAP over angles and equivariance errors here, run '
            'evaluate-angles and check-equivariance with --out WORK_DIR, then report WORK_DIR.'
        )
    return _section('turns', 'Turns', texts, parts)


def _run(report: Values) -> dict[str, Any]:
    facts, train = report['facts'], report['training'].get('train', {})
    rows = [[name, str(facts[name])] for name in ('model', 'claim', 'input', 'seed', 'device') if facts.get(name)]
    for key, name in (('parameters', 'parameters'), ('macs', 'multiply-adds of an image')):
        if facts.get(key) is not None:
            rows.append([name, f'{facts[key]:,}'])
    if facts.get('macs_of'):
        rows.append(['of them counted', facts['macs_of']])
    if facts.get('macs') is None and facts.get('macs_reason'):
        rows.append(['multiply-adds of an image', f'not counted: {facts["macs_reason"]}'])
    for key, name in (('time', 'seconds per iteration'), ('data_time', 'of them waiting for data')):
        if key in train:
            rows.append([name, _number(train[key]['value'][-1])])
    if 'memory' in train:
        rows.append(['GPU memory (MB)', f'{max(train["memory"]["value"]):,.0f}'])
    for name, one in report['evaluations'].items():
        for key, text in (('seconds_per_image', 'network and post-processing'), ('seconds_with_data', 'with data')):
            if one['facts'].get(key):
                rows.append([f'{NAMES[name].lower()}, seconds per image, {text}', _number(one['facts'][key], 4)])
    rows += [[f'version of {name}', text] for name, text in facts.get('versions', {}).items()]
    parts = (
        [_part('Speed, size and versions', table={'head': ['what', 'value'], 'rows': rows, 'text': True})]
        if rows
        else []
    )
    if facts.get('config'):
        parts.append(_part('Config', code=facts['config'], summary='the whole config of the run'))
    return _section('run', 'Run', [], parts)


def _section(name: str, title: str, texts: Sequence[str], parts: Sequence[Values]) -> dict[str, Any]:
    kept = [part for part in parts if any(part[key] for key in ('texts', 'table', 'figures', 'code'))]
    return {'id': name, 'title': title, 'texts': texts, 'parts': kept}


def _part(
    title: str = '',
    texts: Sequence[str] = (),
    *,
    figures: Sequence[Values | None] = (),
    table: Values | None = None,
    code: str = '',
    summary: str = '',
) -> dict[str, Any]:
    there = [figure for figure in figures if figure]
    if table is not None:
        table = {'text': False, **table}
    return {'title': title, 'texts': texts, 'figures': there, 'table': table, 'code': code, 'summary': summary}


def _figure(file: Path, caption: str) -> dict[str, str] | None:
    if not file.is_file():
        return None
    return {'uri': png_uri(file.read_bytes(), file.suffix), 'caption': caption}


def _number(value: float | None, digits: int = 3) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def _error(value: float | None) -> str:
    return '-' if value is None else f'{value:.1e}'


def _large(value: float) -> str:
    for size, name in ((1e12, ' T'), (1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if value >= size:
            return f'{value / size:.3g}{name}'
    return f'{value:g}'
