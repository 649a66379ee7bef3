"The shape of the house: who imports whom, how long cells grow, what stays light, what each requirement is for."
import ast, importlib, inspect, json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
import pytest
from fastcore.docments import docments

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def cells(nb): return [(c['cell_type'], ''.join(c['source'])) for c in json.loads(nb.read_text(encoding='utf-8'))['cells']]
def exported(nb): return [s for t, s in cells(nb) if t == 'code' and re.search(r'^#\|\s*export', s, re.M)]
def module_of(nb): return next((m[1] for _, s in cells(nb) if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', s, re.M))), None)
ROOMS = {m: nb for nb in NOTEBOOKS if (m := module_of(nb))}
def number(module): return int(ROOMS[module].name.split('_')[0])

def rooms_imported(source):
    "Rooms that a piece of source imports, at module level or inside a function."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom): names = [node.module or '', *(f'{node.module}.{a.name}' for a in node.names)]
        elif isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith('import_module'): names = [ast.unparse(node.args[0]).strip("'")]
        else: continue
        yield from (n.removeprefix('hmix_nb.') for n in names if n.removeprefix('hmix_nb.') in ROOMS and n.startswith('hmix_nb.'))

def test_rooms_found(): assert {'core', 'labels', 'data.hub', 'mixing.pixels', 'study.run', 'cli'} <= set(ROOMS)

def test_import_order_check_sees_an_upward_import():
    assert list(rooms_imported('def f():\n    from hmix_nb.study.run import run')) == ['study.run']
    assert list(rooms_imported("def f(): return importlib.import_module('hmix_nb.study.run').run")) == ['study.run']
    assert list(rooms_imported('from hmix_nb.data import hub\nimport hmix_nb.cli')) == ['data.hub', 'cli']

# what a caller asks for by a method of a lower room, found by name when it is called
BY_NAME = {'elicit.web': {'elicit.owner'}, 'elicit.spec': {'elicit.server'}}

@pytest.mark.parametrize('module', ROOMS)
def test_a_room_imports_only_lower_rooms(module):
    upward = {o for s in exported(ROOMS[module]) for o in rooms_imported(s) if number(o) >= number(module)} - BY_NAME.get(module, set())
    assert not upward, f'{ROOMS[module].name} imports {upward}, which are not below it'

def body(source): return [l for l in source.splitlines() if l.strip() and not l.startswith('#|')]

@pytest.mark.parametrize('nb', NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_budget(nb):
    limit = 60 if module_of(nb) == 'train.models' else 40
    for s in exported(nb):
        assert len(body(s)) <= limit, f'{len(body(s))} lines in the exported cell that begins {body(s)[0]!r}'
        long = [l for l in s.splitlines() if len(l) > 135]
        assert not long, f'{len(long[0])} columns: {long[0][:60]!r}'
    assert sum(len(body(s)) for s in exported(nb)) <= 300, 'split the room'
    assert nb.stat().st_size < 700_000, 'a notebook aims at 300 KB'

@pytest.mark.parametrize('nb', NOTEBOOKS, ids=lambda p: p.name)
def test_outputs_hold_no_machine_paths_or_warnings(nb):
    outs = [o for c in json.loads(nb.read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', [])]
    assert not [o for o in outs if o.get('name') == 'stderr' or o['output_type'] == 'error']
    text = json.dumps([{k: v for k, v in o.get('data', {}).items() if k.startswith('text/')} or o.get('text', '') for o in outs])
    assert not re.search(r'(?<![\w.:/])/(?:[\w.-]+/){2,}|[A-Z]:\\\\|\.venv', text)

@pytest.mark.parametrize('module', [
    'core', 'figures', 'stats', 'batchfit', 'data.hub', 'data.judgments', 'data.simulated', 'mixing.fits', 'analysis.report',
    'analysis.prediction', 'analysis.recovery', 'softlabels.construct', 'engine', 'study.recipe', 'study.tables', 'study.folder',
    'study.page', 'elicit.spec', 'elicit.store', 'elicit.command', 'directions.sets', 'directions.events', 'directions.space', 'cli'])
def test_stays_without_torch(module):
    code = f"import sys, hmix_nb.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0

def test_each_requirement_has_a_reason():
    parser = ConfigParser(delimiters=['='])
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    cfg = parser['DEFAULT']
    needed = {re.split(r'[<>=!~\[]', r)[0] for k in ('requirements', 'dev_requirements') for r in cfg[k].split()}
    reasons = dict(l.split(' = ', 1) for l in cfg['requirement_reasons'].strip().splitlines())
    assert needed == set(reasons)
    assert all(len(o.split()) > 1 for o in reasons.values())

def test_one_site_configuration():
    assert (ROOT/'nbs'/'_quarto.yml').is_symlink() and (ROOT/'nbs'/'_quarto.yml').resolve() == ROOT/'_quarto.yml'

def mixes(source):
    "Does a cell import and do something else? The site's builder runs cells that import, alone."
    nodes = ast.parse('\n'.join('' if l.startswith(('%', '!')) else l for l in source.splitlines())).body
    imports = [isinstance(n, (ast.Import, ast.ImportFrom)) for n in nodes]
    return any(imports) and not all(imports) and 'nbdev_export()' not in source

def test_mixing_is_seen(): assert mixes('import os\nprint(os)') and not mixes('import os\nfrom re import sub') and not mixes('%time f()')

@pytest.mark.parametrize('nb', NOTEBOOKS, ids=lambda p: p.name)
def test_imports_have_cells_of_their_own(nb): assert not [s for t, s in cells(nb) if t == 'code' and mixes(s)]

def public(module):
    "The public functions, classes and methods that a room defines."
    room = importlib.import_module(f'hmix_nb.{module}')
    for name in [n for n in getattr(room, '__all__', []) if module != 'all']:
        obj = getattr(room, name)
        if not inspect.isfunction(obj) and not inspect.isclass(obj): continue
        yield name, obj
        for k, v in vars(obj).items() if inspect.isclass(obj) else ():
            if inspect.isfunction(v) and not k.startswith('_'): yield f'{name}.{k}', v

@pytest.mark.parametrize('module', ROOMS)
def test_the_site_can_show_every_signature(module):
    for name, obj in public(module):
        try: docments(obj, full=True)
        except Exception as e: pytest.fail(f'{name}: {e!r}')
