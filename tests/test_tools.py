"The maintenance scripts find what they are there to find."
import importlib.util, json, shutil, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent

def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT/'tools'/f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

@pytest.fixture
def copy(tmp_path):
    "A copy of what the sync check looks at."
    if not (Path(sys.executable).parent/'nbdev_export').exists(): pytest.skip('nbdev is not installed in this environment')
    for name in ('nbs', 'hmix_nb', 'tools'): shutil.copytree(ROOT/name, tmp_path/name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('settings.ini', 'setup.py', '_quarto.yml', 'README.md'): shutil.copy(ROOT/name, tmp_path/name)
    return tmp_path

def check(root):
    p = subprocess.run([sys.executable, str(root/'tools'/'check_sync.py')], capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr

def test_sync_check_finds_each_fault_and_changes_nothing(copy):
    labels, hub, core = copy/'hmix_nb/labels.py', copy/'nbs/10_data.hub.ipynb', copy/'nbs/00_core.ipynb'
    labels.write_text(labels.read_text() + '\nx = 1\n')
    (copy/'hmix_nb/data/orphan.py').write_text('y = 1\n')
    nb = json.loads(hub.read_text())
    next(c for c in nb['cells'] if c['cell_type'] == 'code')['execution_count'] = 7
    hub.write_text(json.dumps(nb, indent=1))
    core.write_text(core.read_text().replace("'airplane', 'automobile'", "'aeroplane', 'automobile'"))
    (copy/'README.md').write_text((copy/'README.md').read_text().replace('Two commands', 'Three commands'))
    (copy/'hmix_nb/data/__init__.py').write_text('z = 1\n')
    before = {p: p.read_bytes() for p in copy.rglob('*') if p.is_file() and '__pycache__' not in p.parts}
    rc, out = check(copy)
    assert rc == 1, out
    for line in ('hmix_nb/labels.py: differs', 'hmix_nb/data/orphan.py: no notebook', 'nbs/10_data.hub.ipynb: not clean',
                 'hmix_nb/core.py: differs', 'hmix_nb/data/__init__.py: differs', "'Three' where index.ipynb has 'Two'"): assert line in out, out
    assert '6 faults' in out
    assert {p: p.read_bytes() for p in before} == before

def test_sync_check_passes_on_what_is_in_sync(copy):
    text = (copy/'README.md').read_text()
    (copy/'README.md').write_text(text.replace('\n\n', '\n\n\n').replace('. ', '.\n')) # white space and line breaks aside
    rc, out = check(copy)
    assert rc == 0, out

@pytest.mark.parametrize('there, here', [('uai-table2 --quick', 'uai table2 quick'), ('m = mix', 'm == mix'), ('lam=.3', 'lam=-.3'),
                                         ('## Two commands', 'Two commands')])
def test_readme_check_sees_a_sign(there, here, monkeypatch, tmp_path):
    tool = load('check_sync')
    text = (ROOT/'README.md').read_text()
    assert there in text
    (tmp_path/'README.md').write_text(text.replace(there, here))
    (tmp_path/'nbs').symlink_to(ROOT/'nbs')
    monkeypatch.setattr(tool, 'ROOT', tmp_path)
    assert list(tool.check_readme())

def test_link_check_finds_missing_pages_and_anchors(tmp_path):
    (tmp_path/'sub').mkdir()
    (tmp_path/'index.html').write_text('<h1 id="top"></h1><a href="sub/a.html#x">1</a><a href="#top">2</a><a href="/sub/">3</a><a href="https://x.org">4</a>')
    (tmp_path/'sub/a.html').write_text('<p id="x"></p><a href="../index.html#nowhere">1</a><img src="gone.png"><a href="../index.html#top">2</a>')
    bad, n, pages = load('build_docs').broken_links(tmp_path)
    assert sorted(o.split(': ')[1:] for o in bad) == [['../index.html#nowhere', 'no such anchor'], ['/sub/', 'no such page'], ['gone.png', 'no such page']]
    assert (n, pages) == (6, 2)
