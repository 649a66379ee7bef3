#!/usr/bin/env python3
"""Are the notebooks clean, and do the modules and README.md say what the notebooks say?

Works on a temporary copy: it changes nothing here, and it does not matter what is committed.
`--write-readme` writes README.md anew from nbs/index.ipynb instead."""
import argparse, difflib, filecmp, json, shutil, subprocess, sys, tempfile
from pathlib import Path

import pypandoc

ROOT = Path(__file__).resolve().parent.parent

def files(folder, pattern): return {p.relative_to(folder) for p in folder.rglob(pattern) if '.ipynb_checkpoints' not in p.parts}

def compare(here, there, pattern, extra, missing, differs):
    "One line for each file of `pattern` that is not the same in both folders."
    a, b = files(here, pattern), files(there, pattern)
    yield from (f'{here.name}/{p}: {extra}' for p in sorted(a-b))
    yield from (f'{here.name}/{p}: {missing}' for p in sorted(b-a))
    yield from (f'{here.name}/{p}: {differs}' for p in sorted(a&b) if not filecmp.cmp(here/p, there/p, shallow=False))

def check_notebooks(tmp):
    for name in ('nbs', 'hmix_nb'): shutil.copytree(ROOT/name, tmp/name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for name in ('settings.ini', 'setup.py', '_quarto.yml', 'README.md'): shutil.copy(ROOT/name, tmp/name)
    for p in files(tmp/'hmix_nb', '*.py'): (tmp/'hmix_nb'/p).unlink() # also each __init__.py, which nbdev writes anew
    for tool in ('nbdev_clean', 'nbdev_export'): subprocess.run([str(Path(sys.executable).parent/tool)], cwd=tmp, check=True)
    yield from compare(ROOT/'nbs', tmp/'nbs', '*.ipynb', 'not known to the copy', 'lost', 'not clean: run nbdev_clean')
    yield from compare(ROOT/'hmix_nb', tmp/'hmix_nb', '*.py', 'no notebook exports it', 'missing: run nbdev_export',
                       'differs from its notebook: run nbdev_export')

def readme():
    "README.md as index.ipynb says it: its prose, its visible code and the printed results."
    out = []
    for c in json.loads((ROOT/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']:
        src = ''.join(c['source']).strip()
        if c['cell_type'] == 'markdown': out.append(src)
        elif not src.startswith('#| hide'):
            out.append(f'```python\n{src}\n```')
            text = ''.join(''.join(o.get('text', o.get('data', {}).get('text/plain', ''))) for o in c['outputs'])
            if text: out.append(f'```\n{text.strip(chr(10))}\n```')
    return '\n\n'.join(out) + '\n'

def plain(md): # written anew by pandoc, so that another's way to mark a list or a code block does not matter; then words
    return pypandoc.convert_text(md, 'gfm', format='gfm', extra_args=['--wrap=none']).split()

def check_readme():
    a, b = plain((ROOT/'README.md').read_text(encoding='utf-8')), plain(readme())
    if a == b: return
    for op, i, j, k, l in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if op != 'equal': yield f"README.md: {' '.join(a[i:j])[:80]!r} where index.ipynb has {' '.join(b[k:l])[:80]!r}: run make readme"

def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--write-readme', action='store_true')
    if parser.parse_args().write_readme:
        (ROOT/'README.md').write_text(readme(), encoding='utf-8')
        return 0
    with tempfile.TemporaryDirectory() as tmp: faults = [*check_notebooks(Path(tmp)), *check_readme()]
    for f in faults: print(f)
    print(f"{len(faults)} faults" if faults else 'Notebooks are clean; modules and README.md agree with them.')
    return bool(faults)

if __name__ == '__main__': sys.exit(main())
