"""Save the rows of studies for the tutorials: `python tools/save_rows.py RUNS STUDY [STUDY ...] [--full]`.

RUNS/STUDY is a folder that `hmix run STUDY --quick --out RUNS/STUDY` has filled. What is written to nbs/tutorials/rows/STUDY
is its rows as one small table, the command that made them, without folders of that machine (--out, --root), and what the
study says now: its claims, departures and published rows. Where those have
changed, `python tools/save_rows.py nbs/tutorials/rows STUDY ...` writes them anew beside the rows that are there.

Studies of directions (direction-2d and so on) are saved in full, all seeds of an arm in a line, and with the machines and
commits that their jobs were done on."""
import argparse, json, shlex
from pathlib import Path
from hmix_nb.core import write_atomic
from hmix_nb.directions.command import DIRECTIONS, about_direction, made_on, pack, rows_of as rows_of_direction
from hmix_nb.study.page import as_csv, rows_of, study_json
from hmix_nb.study.recipe import get_study

def about(folder): # what the folder knows of itself
    file = folder/'study.json'
    return json.loads(file.read_text(encoding='utf-8')) if file.exists() else {}

def command_of(folder, name, full): # as it was typed, if the folder knows
    words = shlex.split(about(folder).get('command') or '')
    keep = [w for i, w in enumerate(words) if w not in ('--out', '--root') and (i == 0 or words[i-1] not in ('--out', '--root'))]
    return shlex.join(keep) or f'hmix run {name}{"" if full else " --quick"}'

def save(runs, name, full, to):
    study = get_study(name, quick=not full)
    rows = rows_of(study, runs/name)
    bad = int(rows.error.notna().sum()) if 'error' in rows else 0
    if len(rows) < len(study) or bad: return f'{name}: {len(rows)} of {len(study)} runs, {bad} failed; not saved'
    write_atomic(to/name/'rows.csv', as_csv(rows))
    write_atomic(to/name/'study.json', study_json(study, command_of(runs/name, name, full), starts=about(runs/name).get('starts') or ()))
    return f'{name}: {len(rows)} rows saved'

def save_direction(runs, name, to):
    about = about_direction(runs/name)
    if about is None: return f'{name}: no study of that name in {runs}; not saved'
    rows, notes = rows_of_direction(runs/name, about)
    made = made_on(runs/name, about)
    if not made or any(not o.get('commit') or 'dirty' in o['commit'] for o in made): notes = [*notes, 'made at no commit that can be had again']
    if notes or not len(rows): return f'{name}: {" ".join(notes) or "no rows"}; not saved'
    write_atomic(to/name/'rows.csv', pack(rows).to_csv(index=False, float_format='%.4g'))
    write_atomic(to/name/'study.json', json.dumps(about | dict(command=command_of(runs/name, name, True), made_on=made), indent=1) + '\n')
    return f'{name}: {len(rows)} rows saved'

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('runs', type=Path)
    p.add_argument('study', nargs='+')
    p.add_argument('--full', action='store_true', help='rows of the full studies, not of the quick ones')
    p.add_argument('--to', type=Path, default=Path(__file__).parent.parent/'nbs'/'tutorials'/'rows')
    a = p.parse_args()
    said = [save_direction(a.runs, o, a.to) if o in DIRECTIONS else save(a.runs, o, a.full, a.to) for o in a.study]
    print(*said, sep='\n')
    raise SystemExit(any('not saved' in o for o in said))
