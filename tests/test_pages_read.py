"""README, CONTRIBUTING and the pages in docs/ read well: lines fit, and each page begins with what the reader gets."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('**/*.md'))]
LONGEST_CODE = 88  # what a page shows without scrolling sideways
LONGEST_PROSE = 120
WORDS = range(5, 46)  # of a first sentence: more than a label, less than a paragraph
FENCE = re.compile(r'\s*```')
TABLE_ROW = re.compile(r'\s*\|[ -]')
TARGET = re.compile(r'\]\([^)]*\)')  # of a link or picture, which cannot be wrapped
GENERATED = re.compile(r'^<!-- benchmark .*?^<!-- end of benchmark [^\n]*$', re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r'`[^`]*`')
BLOCK = re.compile(r'[-*>|!#<]|\d+\. |```|\$\$')  # a first character of what is no paragraph
TURNS = re.compile(
    r'\b(?:puts? out|from 0 on|amid|brings? along|one beside the other|a training(?= (?:was|is|that|which|goes|ends))'
    r'|so many of)\b',
    re.IGNORECASE,
)


def lines_of(text: str) -> list[tuple[int, str, bool]]:
    """Number, text, and whether it is code, of all lines but fences, directives and what a tool writes."""
    text = GENERATED.sub(lambda block: '\n' * block[0].count('\n'), text)
    lines, fence = [], ''
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            fence = '' if fence else line.strip()
        elif not fence.startswith('```{'):
            lines.append((number, line, bool(fence)))
    return lines


def too_long(text: str) -> list[int]:
    """Numbers of the lines that do not fit. Tables may be wider, and targets of links do not count."""
    found = []
    for number, line, code in lines_of(text):
        if code:
            fits = len(line) <= LONGEST_CODE
        else:
            fits = TABLE_ROW.match(line) or line.startswith('![') or len(TARGET.sub(']', line)) <= LONGEST_PROSE
        if not fits:
            found.append(number)
    return found


def first_paragraph(text: str) -> str:
    title, *blocks = (block.strip() for block in text.strip().split('\n\n'))
    assert re.fullmatch('# .+', title), f'a page begins with a title of one line, not with {title!r}'
    return ' '.join(blocks[0].split()) if blocks else ''


def says_what_the_reader_gets(text: str) -> bool:
    """Whether the page begins with a full sentence; that it has a verb, a test cannot tell."""
    paragraph = first_paragraph(text)
    sentence = re.split(r'(?<=[.!?]) ', paragraph)[0]
    begins = re.match(r'[A-Z`\[]|mmrotate_plugin ', sentence)
    return bool(not BLOCK.match(paragraph) and begins and paragraph.endswith('.') and len(sentence.split()) in WORDS)


def translated_turns(text: str) -> list[str]:
    """Phrases that grammar allows and nobody writes; messages are quoted as they are, in headings and as code."""
    prose = '\n'.join(line for _, line, code in lines_of(text) if not code and not line.startswith('#'))
    return TURNS.findall(CODE_SPAN.sub('', prose))


def read(page: Path) -> str:
    return page.read_text(encoding='utf-8')


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_lines_of_a_page_fit(page):
    assert too_long(read(page)) == []


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_page_begins_with_what_the_reader_gets(page):
    assert says_what_the_reader_gets(read(page)), first_paragraph(read(page))


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_page_has_no_translated_turns(page):
    assert translated_turns(read(page)) == []


def test_long_lines_are_found_and_tables_and_targets_are_not():
    wide = 'word ' * 30
    assert too_long(f'# T\n\n{wide}\n') == [3]
    assert too_long(f'# T\n\n```python\nx = 1  # {"x" * 81}\n```\n\n- {wide}\n') == [4, 7]
    assert too_long(f'```sh\n{"x" * 88}\n```\n{"x" * 120}\n') == []
    assert too_long(f'| {wide} |\n|---|\n\n[here](https://a.b/{"x" * 120})\n\n![{wide}](a.png)\n') == []
    assert too_long(f'<!-- benchmark cpu: written by a tool -->\n{wide}\n<!-- end of benchmark cpu -->\n{wide}') == [4]
    assert too_long(f'|G| is no table, {wide}') == [1]
    assert too_long(f'```{{eval-rst}}\n.. autoclass:: {"x" * 88}\n```\n```\n{"x" * 89}\n```\n') == [5]


@pytest.mark.parametrize(
    'start',
    [
        '',
        'Ways to get it:',
        'Too short.',
        'and this one begins in the middle of a sentence.',
        '- Get a backbone that turns with its image.',
        '## Get a backbone that turns with its image.',
        '```sh\nmake demo\n```',
        '| a page | begins | with | a | table. |',
        'Get this, ' + 'and that, ' * 25 + 'and more.',
    ],
)
def test_pages_that_begin_otherwise_are_found(start):
    assert not says_what_the_reader_gets(f'# Title\n\n{start}\n\nMore of it follows here.\n')


def test_a_good_start_passes_and_a_page_without_a_title_does_not():
    assert says_what_the_reader_gets('# Title\n\nGet a backbone that turns\nwith its image. It is fast.\n\n- a list\n')
    with pytest.raises(AssertionError, match='title of one line'):
        says_what_the_reader_gets('Get a backbone that turns with its image.\n')


def test_translated_turns_are_found_but_not_in_quoted_messages():
    assert translated_turns('# T\n\nWhat the head puts out, amid\na training that ends.') == [
        'puts out', 'amid', 'a training',
    ]  # fmt: skip
    assert translated_turns('### `must be from 0 on`\n\nSee `puts out`.\n\n```\namid\n```\nA training step.') == []
