#!/usr/bin/env python3
"""Run notebooks and keep their outputs, the way `nbdev_test` would run them: `save_outputs.py [--flags data slow] nbs/*.ipynb`.

Cells that `nbdev_test` skips (`#| eval: false`, or a flag of `tst_flags` that was not given) keep the outputs they have.
Warnings and logs on stderr are dropped: they name machine paths. A failing cell stops the notebook and nothing is written."""
import argparse, os, re, sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import nbdev_clean
from nbdev.config import get_config

class Runner(NotebookClient):
    skip = frozenset()
    async def async_execute_cell(self, cell, *args, **kwargs):
        flags = {w for line in re.findall(r'^#\|(.*)$', cell.source, re.M) for w in line.split()}
        off = flags & self.skip or re.search(r'^#\|\s*eval:\s*false', cell.source, re.M) or 'nbdev_export(' in cell.source
        if cell.cell_type == 'code' and off: return cell
        return await super().async_execute_cell(cell, *args, **kwargs)

def save(path, flags):
    nb = nbformat.read(path, as_version=4)
    runner = Runner(nb, timeout=1800, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}},
                    store_widget_state=False) # it would hold the widget's whole script
    runner.skip = frozenset(get_config().tst_flags.split()) - set(flags)
    runner.execute()
    for cell in nb.cells:
        if cell.cell_type == 'code': cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
    nbformat.write(nb, path)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('notebooks', nargs='+', type=Path)
    p.add_argument('--flags', nargs='*', default=[], help='also run the cells with these flags')
    args = p.parse_args()
    known = get_config().tst_flags.split()
    if wrong := set(args.flags) - set(known): p.error(f'--flags: {", ".join(wrong)}; known are {", ".join(known)}')
    os.environ.setdefault('IN_TEST', '1')
    for path in args.notebooks:
        try: save(path, args.flags)
        except CellExecutionError as e: sys.exit(f'{path}: {e.ename}: {e.evalue[:500]}')
        print(f'{path}: outputs saved', flush=True)
    nbdev_clean()

if __name__ == '__main__': sys.exit(main())
