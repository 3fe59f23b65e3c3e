from mmrotate_plugin.utils.table import aligned, markdown, ruled

ROWS = [('class', 'ap'), ('ship', 0.5), ('storage-tank', 12)]


def test_columns_begin_or_end_below_each_other():
    assert aligned(ROWS) == 'class         ap\nship          0.5\nstorage-tank  12'
    assert aligned(ROWS, right=[1]) == 'class          ap\nship          0.5\nstorage-tank   12'


def test_short_rows_end_with_empty_cells():
    assert aligned([('a',), ('b', 1), ()]) == 'a\nb  1\n'
    assert aligned([]) == ''


def test_markdown():
    assert markdown(ROWS) == '| class | ap |\n| --- | --- |\n| ship | 0.5 |\n| storage-tank | 12 |'


def test_rules_around_head_body_and_last_row():
    lines = ['+-------+----+', '| class | ap |', '+-------+----+', '| ship  | 1  |', '+-------+----+', '| mAP   | 1  |']
    assert ruled([('class', 'ap'), ('ship', 1), ('mAP', 1)]) == '\n'.join([*lines, lines[0]])
