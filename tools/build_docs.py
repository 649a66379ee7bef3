#!/usr/bin/env python3
"""Build the site. With `quarto` on the PATH: the real one, in `_docs`. Without: a preview of every page through pandoc.

Either way each local link and #anchor is then checked, because neither builder fails on a broken one."""
import json, re, shutil, subprocess, sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
SITE, PROC = ROOT/'_docs', ROOT/'_proc'
HOW_TO = 'Quarto is not installed, so this is a plain preview. For the real site get Quarto from https://quarto.org/docs/get-started/ and run this again.'
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>body{{font:16px/1.55 system-ui,sans-serif;margin:0;display:flex}}nav{{flex:0 0 15rem;padding:1.5rem 1rem;background:#f4f6f8;
height:100vh;overflow:auto;position:sticky;top:0;box-sizing:border-box;font-size:.9rem}}nav a{{display:block;color:#14507a;text-decoration:none;padding:.15rem 0}}
nav a.here{{font-weight:bold}}nav b{{display:block;margin-top:.8rem}}main{{padding:1.5rem 2rem;max-width:54rem;min-width:0}}pre{{background:#f4f6f8;padding:.6rem .9rem;overflow-x:auto;font-size:.85rem}}
.output pre{{background:none;border-left:3px solid #e39a26}}img{{max-width:100%}}table{{border-collapse:collapse;font-size:.85rem;display:block;overflow-x:auto}}
td,th{{padding:.2rem .6rem;border-bottom:1px solid #ddd}}blockquote{{font-style:italic;font-size:1.1rem;margin-left:0;color:#555}}</style></head>
<body><nav>{nav}</nav><main>{body}</main></body></html>"""

def process():
    "nbdev's own processing of the notebooks into `_proc`, without the attempt to install Quarto."
    from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
    from nbdev.serve import proc_nbs
    shutil.rmtree(PROC, ignore_errors=True)
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    proc_nbs(force=True, n_workers=0)

def as_markdown(cell): # what `show_doc` left, or nothing
    texts = [''.join(o['data']['text/markdown']) for o in cell.get('outputs', []) if 'text/markdown' in o.get('data', {})]
    return [dict(cell_type='markdown', metadata={}, source=t.removeprefix('---')) for t in texts]

def visible(nb):
    "Drop what the site hides: cells marked so, front matter and directive lines; put documentation into the text."
    keep = []
    for c in nb['cells']:
        src = ''.join(c['source'])
        d = ' '.join(re.findall(r'^#\|(.*)$', src, re.M))
        if c['cell_type'] == 'raw' or re.search(r'\bhide\b|include:\s*false', d): continue
        if 'echo: false' in d: keep += as_markdown(c)
        elif c['cell_type'] == 'code':
            # nbdev_clean empties execution counts, which pandoc wants as numbers in an execute_result
            outs = [{k: v for k, v in o.items() if k != 'execution_count'} | ({'output_type': 'display_data'} if o['output_type'] == 'execute_result' else {})
                    for o in c.get('outputs', [])]
            keep.append(c | dict(source=re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip(), outputs=outs))
        else: keep.append(c)
    return nb | dict(cells=keep)

def front_matter(nb): # nbdev makes it from the title and the quote below it
    src = ''.join(nb['cells'][0]['source']) if nb['cells'] and nb['cells'][0]['cell_type'] == 'raw' else ''
    return yaml.safe_load(src.strip().strip('-')) or {}

def preview():
    import pypandoc
    process()
    pages, heads = {}, {}
    for p in sorted(PROC.rglob('*.ipynb')):
        if any(o.startswith(('.', '_')) for o in p.relative_to(PROC).parts): continue
        nb = json.loads(p.read_text(encoding='utf-8'))
        head = front_matter(nb)
        out = p.relative_to(PROC).parent/head.get('output-file', f'{p.stem}.html')
        pages[p], heads[out] = (out, visible(nb)), (str(head.get('title', p.stem)), str(head.get('description', '')).strip())
    titles = {out: title for out, (title, _) in heads.items()}
    order = sorted(pages, key=lambda p: (p.name != 'index.ipynb', p.parent == PROC, p.relative_to(PROC))) # folders before rooms
    shutil.rmtree(SITE, ignore_errors=True)
    SITE.mkdir()
    for p, (out, nb) in pages.items():
        up = '../'*(len(out.parts)-1)
        nav, head = '', ''
        for q in order:
            if (new := 'Start' if q.name == 'index.ipynb' else 'Rooms' if q.parent == PROC else q.parent.name.capitalize()) != head:
                nav, head = nav + f'<b>{escape(new)}</b>', new
            nav += f'<a{" class=here" if pages[q][0] == out else ""} href="{up}{pages[q][0].as_posix()}">{escape(titles[pages[q][0]])}</a>'
        body = pypandoc.convert_text(json.dumps(nb), 'html', format='ipynb', cworkdir=str(SITE),
                                     extra_args=['--mathml', '--wrap=none', '--extract-media=media']).replace('src="media/', f'src="{up}media/')
        for q, (other, _) in pages.items(): # links to notebooks become links to pages
            body = body.replace(f'href="{q.name}', f'href="{up}{other.as_posix()}').replace(f'href="../{q.name}', f'href="{up}{other.as_posix()}')
        body = re.sub(r'href="/(?!/)', f'href="{up}', body)
        title, description = map(escape, heads[out])
        if title != 'hmix_nb': body = f'<h1>{title}</h1><blockquote>{description}</blockquote>{body}'
        dest = SITE/out
        dest.parent.mkdir(parents=True, exist_ok=True)
        dest.write_text(PAGE.format(title=title, nav=nav, body=body), encoding='utf-8')
    print(HOW_TO)

class Links(HTMLParser):
    "Collects the ids and the links of a page."
    def __init__(self): super().__init__(); self.ids, self.links = set(), []
    def handle_starttag(self, tag, attrs):
        d = dict(attrs)
        self.ids |= {d[k] for k in ('id', 'name') if d.get(k)}
        self.links += [d[k] for k in ('href', 'src') if d.get(k)]

def broken_links(site):
    "Each local link that leads to no file or no anchor, and how many were looked at."
    pages = {}
    for p in site.rglob('*.html'):
        pages[p.resolve()] = links = Links()
        links.feed(p.read_text(encoding='utf-8'))
    bad, n = [], 0
    for p, links in pages.items():
        for u in links.links:
            s = urlsplit(u)
            if s.scheme or s.netloc: continue
            n += 1
            target = (p if not s.path else site/unquote(s.path).lstrip('/') if s.path.startswith('/') else p.parent/unquote(s.path)).resolve()
            if target.is_dir(): target /= 'index.html'
            if not target.exists(): bad.append(f'{p.relative_to(site.resolve())}: {u}: no such page')
            elif s.fragment and target in pages and unquote(s.fragment) not in pages[target].ids: bad.append(f'{p.relative_to(site.resolve())}: {u}: no such anchor')
    return bad, n, len(pages)

def main():
    if shutil.which('quarto'): subprocess.run([str(Path(sys.executable).parent/'nbdev_docs')], cwd=ROOT, check=True)
    else: preview()
    bad, n, pages = broken_links(SITE)
    for o in bad: print(o)
    print(f'{pages} pages, {n} local links, {len(bad)} broken. Open {SITE.name}/index.html')
    return bool(bad) or not pages

if __name__ == '__main__': sys.exit(main())
