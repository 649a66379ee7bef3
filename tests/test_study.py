"Studies: rows survive an interrupt, do not depend on how many runs go side by side, and reports are self-contained."
import json, os, re, signal, subprocess, sys, time
from dataclasses import replace
import pandas as pd
import pytest
from hmix_nb.cli import main
from hmix_nb.study.recipe import LABELLINGS, demo, get_study, grid, recipe_hash
from hmix_nb.study.report import report_html, run_study
from hmix_nb.study.run import finished, run, run_rows, train, training_set, material

TINY = replace(demo().recipes[0], epochs=1, n_train=100, n_blends=45, pool=5)
SCORES = ['ce', 'fgsm', 'calib', 'calib_all', 'accuracy']

def test_rows_do_not_depend_on_the_number_of_jobs(tmp_path):
    recipes = grid(TINY, labelling=('mixup', 'relabel'))
    one = run_rows(recipes, tmp_path/'1', n_jobs=1, device='cpu', progress=False)
    two = run_rows(recipes, tmp_path/'2', n_jobs=2, device='cpu', progress=False)
    pd.testing.assert_frame_equal(one[SCORES], two[SCORES], check_exact=True)

def test_all_labellings_train_and_pairs_share_everything_else(tmp_path):
    rows = run_rows(grid(TINY, labelling=LABELLINGS), tmp_path, n_jobs=1, device='cpu', progress=False)
    assert rows.labelling.tolist() == list(LABELLINGS) and rows[SCORES].notna().all(axis=None)
    assert rows.ce.nunique() == 6
    assert rows.n_blended.tolist() == [0] + [45]*5

def test_held_out_pool_is_not_the_training_panel():
    m = material(TINY)
    assert (m.people.sum(1) - 1).abs().max() < 1e-5
    assert (m.people.argmax(1) == m.y_eval).float().mean() > .9
    assert not (material(replace(TINY, seed=1)).people[:50] == m.people[:50]).all()

def test_interrupt_keeps_finished_rows_and_the_next_start_goes_on(tmp_path):
    # a shell that runs the tests in the background has its children ignore SIGINT; somebody at a keyboard has not
    code = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from dataclasses import replace; from hmix_nb.study.recipe import *; from hmix_nb.study.run import run_rows; "
            f"run_rows(grid(replace(demo().recipes[0], epochs=3, n_train=100, n_blends=45, pool=5), seed=range(40)), {str(tmp_path)!r}, n_jobs=2, device='cpu')")
    p = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL, start_new_session=True)
    rows, limit = tmp_path/'rows', time.monotonic() + 120
    while len(list(rows.glob('*.json'))) < 2 and time.monotonic() < limit and p.poll() is None: time.sleep(.1)
    os.killpg(p.pid, signal.SIGINT)
    assert p.wait(timeout=60) != 0
    kept = {o.name: o.stat().st_mtime_ns for o in rows.glob('*.json')}
    assert 2 <= len(kept) < 40
    for o in kept: assert json.loads((rows/o).read_text())['recipe'] == o.removesuffix('.json')
    recipes = [r for r in grid(replace(TINY, epochs=3), seed=range(40)) if f'{recipe_hash(r)}.json' in kept]
    assert len(recipes) == len(kept)
    more = (*recipes, replace(TINY, seed=99))
    assert len(run_rows(more, tmp_path, n_jobs=1, device='cpu', progress=False)) == len(kept) + 1
    assert {k: (rows/k).stat().st_mtime_ns for k in kept} == kept # nothing was run again

def test_row_of_another_version_or_source_does_not_count(tmp_path):
    row = dict(version='another', source='x')
    (tmp_path/'rows').mkdir()
    path = tmp_path/'rows'/f'{recipe_hash(TINY)}.json'
    path.write_text(json.dumps(row))
    assert finished(tmp_path, TINY) is None
    from hmix_nb import __version__
    path.write_text(json.dumps(row | dict(version=__version__)))
    assert finished(tmp_path, TINY, 'x') and finished(tmp_path, TINY, 'y') is None

def test_report_is_self_contained(tmp_path):
    study = replace(demo(quick=True), recipes=grid(TINY, seed=range(2), labelling=('mixup', 'relabel+omega')))
    html = run_study(study, tmp_path, n_jobs=1, device='cpu', progress=False).read_text(encoding='utf-8')
    assert 'participants of this run are simulated' in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and '<script' not in html
    assert pd.read_csv(tmp_path/'rows.csv').labelling.tolist() == ['mixup', 'relabel+omega']*2

def test_cli_says_what_is_wrong(capsys, tmp_path):
    assert main(['run', 'uai-tabel2']) == 2
    assert "Did you mean 'uai-table2'" in capsys.readouterr().err
    assert main(['run', 'demo', '--labelling', 'relable']) == 2
    assert "Did you mean 'relabel'" in capsys.readouterr().err
    assert main(['run', 'demo', '--seeds', '0']) == 2
    assert 'seeds: found 0' in capsys.readouterr().err
    assert main(['run']) == 0
    assert 'uai-table2' in capsys.readouterr().out

def test_cli_lists_data(capsys, tmp_path):
    assert main(['data', '--root', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert 'h-mix/hmix_infer_mixing_factor.csv' in out and 'CC BY-NC-SA 4.0' in out

def test_real_path_trains_on_9070_images_and_names_a_stand_in(hub):
    recipe = replace(get_study('uai-table2', quick=True).recipes[-1], epochs=1)
    m = material(recipe)
    x, y = training_set(recipe, m)
    assert x.shape == (9070, 3, 32, 32) and y.shape == (9070, 10) and m.people.shape == (3000, 10)
    row = run(recipe, device='cpu')
    assert (row['n_clean'], row['n_blended'], row['n_eval']) == (7000, 2070, 3000)
    assert row['source'] == m.source and row['ce'] < 2.5
