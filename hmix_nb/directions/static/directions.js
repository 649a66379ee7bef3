// Draw where a decision boundary should move. One module for two carriers: a page that the server sends, and a widget in JupyterLab.
// It knows nothing but what it is sent: points that may be seen, arrows, settings, and frames of the map while training runs.

const COLOURS = 6, DRAG = 4, DEG = 180 / Math.PI;
const KEYS = [['n / p', 'next, previous point'], ['← →', 'turn the direction (with Shift: finely)'], ['↑ ↓', 'longer, shorter'],
  ['Enter', 'commit'], ['Esc', 'cancel'], ['a', 'next arrow of the point'], ['e', 'edit that arrow'], ['Delete', 'delete it'],
  ['0 … 9', "the point's label"], ['t', 'next target class'], ['d', 'I don’t know'], ['u / r', 'undo, redo'], ['Space', 'play or pause'], ['s', 'one step']];

function el(tag, attrs = {}, ...kids) {
  const o = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) {
    if (k.startsWith('on')) o.addEventListener(k.slice(2), v);
    else if (v === true) o.setAttribute(k, '');
    else if (v !== false && v != null) o.setAttribute(k, v);
  }
  o.append(...kids.filter(k => k != null));
  return o;
}
const clamp = (x, lo, hi) => Math.min(Math.max(x, lo), hi);
const show = (x, n = 2) => Number(x).toFixed(n).replace('-', '−');
const percent = x => x == null ? 'no score' : `${show(100 * x, 1)} %`;
let ids = 0;

// A frame is a length, a head in JSON, and planes of bytes: the share of each class (of the second alone where there are two), and the spread.
export function unpack(buffer, at = 0) {
  const view = new DataView(buffer, at), n = view.getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, at + 4, n)));
  const size = head.grid * head.grid, planes = [];
  for (let k = 0; k <= head.planes; k++) planes.push(new Uint8Array(buffer, at + 4 + n + k * size, size));
  return { head, p: planes.slice(0, -1), spread: planes[head.planes] };
}

// The share of each class at a cell, and contours of "this class leads by 0"
function shares(frame, i) {
  if (frame.p.length > 1) return frame.p.map(p => p[i] / 255);
  const p = frame.p[0][i] / 255;
  return [1 - p, p];
}
function contours(frame) {
  const g = frame.head.grid, out = [], n = frame.p.length;
  for (let c = n > 1 ? 0 : 1; c < (n > 1 ? n : 2); c++) {
    const lead = new Float32Array(g * g);
    for (let i = 0; i < g * g; i++) {
      if (n === 1) { lead[i] = frame.p[0][i] - 127.5; continue; }
      let other = 0;
      for (let k = 0; k < n; k++) if (k !== c) other = Math.max(other, frame.p[k][i]);
      lead[i] = frame.p[c][i] - other + .01;
    }
    const cut = (a, b) => lead[a] / (lead[a] - lead[b]);
    for (let y = 0; y < g - 1; y++) for (let x = 0; x < g - 1; x++) {
      const a = y * g + x, b = a + 1, d = a + g, e = d + 1, s = [];
      if (lead[a] > 0 !== lead[b] > 0) s.push([x + cut(a, b), y]);
      if (lead[d] > 0 !== lead[e] > 0) s.push([x + cut(d, e), y + 1]);
      if (lead[a] > 0 !== lead[d] > 0) s.push([x, y + cut(a, d)]);
      if (lead[b] > 0 !== lead[e] > 0) s.push([x + 1, y + cut(b, e)]);
      for (let k = 0; k + 1 < s.length; k += 2) out.push([s[k], s[k + 1]]);
    }
  }
  return out;
}

export class Desk {
  constructor(root, link) {
    this.root = root; this.link = link; this.state = null; this.frame = null;
    this.selected = null; this.arrow = null; this.draft = null; this.target = null; this.omega = 1;
    this.since = performance.now(); this.drawn = 0; this.frames = []; this.waiting = Promise.resolve();
    this.build();
    this.gone = new AbortController();
    const look = () => { this.ink = null; this.paint(); };
    this.sight = new ResizeObserver(() => this.resize());
    this.sight.observe(this.canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', look, { signal: this.gone.signal });
    this.theme = new MutationObserver(look);
    this.theme.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-light'] });
    link.onframe(f => this.take(f));
    link.onlost?.(lost => this.say(lost ? `${this.link.who} does not answer; trying again. What was committed is kept.` : 'Connected again.', lost));
    this.send({ do: 'state' });
  }
  close() { this.gone.abort(); this.sight.disconnect(); this.theme.disconnect(); this.link.stop?.(); }

  // ---- the page -------------------------------------------------------------------------------------------------------------------
  button(text, act, attrs = {}) { return el('button', { type: 'button', onclick: act, ...attrs }, text); }
  build() {
    const id = `hd${ids++}`, b = (...a) => this.button(...a), label = (text, box, more) => el('label', { class: 'hd-field' }, el('span', {}, text), box, more);
    this.canvas = el('canvas', { tabindex: '0', role: 'application', 'aria-roledescription': 'map with points', 'aria-label': 'Map of points and arrows',
      'aria-describedby': `${id}k`, class: 'hd-map' });
    this.status = el('p', { class: 'hd-say', role: 'status', 'aria-live': 'polite' }, 'Loading…');
    this.play = b('Play', () => this.send({ do: this.frame?.head.running ? 'pause' : 'play' }), { class: 'hd-first' });
    this.undo = b('Undo', () => this.send({ do: 'undo' })); this.redo = b('Redo', () => this.send({ do: 'redo' }));
    this.bar = el('div', { class: 'hd-bar' }, this.play, b('Step', () => this.send({ do: 'step' })), this.undo, this.redo,
      this.unknown = b('I don’t know', () => this.skip()));
    this.legend = el('p', { class: 'hd-legend' });
    const keys = el('details', { class: 'hd-keys' }, el('summary', {}, 'Keyboard'),
      el('dl', { id: `${id}k` }, ...KEYS.flatMap(([k, v]) => [el('dt', {}, k), el('dd', {}, v)])));

    this.pick = el('select', { onchange: () => this.select(this.pick.value === '' ? null : +this.pick.value) });
    this.labels = el('fieldset', { class: 'hd-labels' });
    this.angle = el('input', { type: 'number', step: '1', min: '-180', max: '180', oninput: () => this.typed() });
    this.length = el('input', { type: 'number', step: '0.05', min: '0', oninput: () => this.typed() });
    this.commitDraft = b('Draw', () => this.commit(), { class: 'hd-first' }); this.cancelDraft = b('Cancel', () => this.cancel('Cancelled.'));
    this.towards = el('select', { onchange: () => this.retarget(+this.towards.value) });
    this.towardsBox = label('Class that should take over', this.towards);
    this.sure = el('input', { type: 'range', min: '0', max: '100', step: '5', value: '100', onchange: () => this.confide(), oninput: () => this.confide(true) });
    this.sureSaid = el('output', {}, '100 %');
    this.list = el('ul', { class: 'hd-list', 'aria-label': 'Arrows of this point' });
    this.clearPoint = b('Clear this point', () => this.send({ do: 'clear_point', point: this.selected }));
    this.clearAll = b('Clear all arrows', () => this.send({ do: 'clear_all' }));
    const point = this.section('Point', el('div', { class: 'hd-row' }, b('‹', () => this.next(-1), { 'aria-label': 'Previous point' }),
      el('label', { class: 'hd-grow' }, el('span', { class: 'hd-unseen' }, 'Point'), this.pick), b('›', () => this.next(1), { 'aria-label': 'Next point' })),
      this.labels, this.towardsBox, label('Confidence', this.sure, this.sureSaid),
      el('div', { class: 'hd-row' }, label('Angle, degrees', this.angle), label('Length', this.length)),
      el('div', { class: 'hd-row' }, this.commitDraft, this.cancelDraft), this.list, el('div', { class: 'hd-row' }, this.clearPoint, this.clearAll));

    this.facts = el('p', { class: 'hd-facts' });
    this.loss = el('select', { onchange: () => this.send({ do: 'set', loss: this.loss.value }) });
    const slider = (name, max, step) => el('input', { type: 'range', min: '0', max, step, oninput: e => { e.target.nextSibling.textContent = show(e.target.value); },
      onchange: e => this.send({ do: 'set', [name]: +e.target.value }) });
    this.alpha = slider('alpha', '0.95', '0.05'); this.gamma = slider('gamma', '8', '0.25'); this.pace = el('select',
      { onchange: () => this.send({ do: 'set', pace: +this.pace.value }) }, ...[[20, 'slow'], [100, 'medium'], [0, 'as fast as it goes']].map(([v, t]) => el('option', { value: v }, t)));
    const training = this.section('Training', this.facts, label('Loss of the arrows', this.loss), label('α, weight of the arrows', this.alpha, el('output')),
      label('γ, slope that is asked for', this.gamma, el('output')), label('Speed', this.pace),
      el('div', { class: 'hd-row' }, this.sureButton('Reset model', 'Forget what was learned?', () => this.send({ do: 'reset', what: 'model' })),
        this.sureButton('Reset data', 'Remove all labels and arrows of yours?', () => this.send({ do: 'reset', what: 'data' }))));

    this.shows = {};
    const tick = (name, text) => { const o = el('input', { type: 'checkbox', onchange: () => this.send({ do: 'show', what: name, on: o.checked }) }); this.shows[name] = o;
      return el('label', { class: 'hd-tick' }, o, el('span', {}, text)); };
    const shown = this.section('Show', tick('map', 'decision map'), tick('uncertainty', 'uncertainty (grey: the nets disagree)'),
      tick('field', 'gradient field −∇m'), tick('violated', 'violated arrows, in red'));

    this.chart = el('canvas', { class: 'hd-chart', role: 'img', 'aria-label': 'Practice accuracy of the runs' });
    this.runs = el('ul', { class: 'hd-list', 'aria-label': 'Saved runs' });
    const runs = this.section('Runs', this.chart, el('div', { class: 'hd-row' }, b('Keep this run', () => this.send({ do: 'run_save' }))), this.runs);

    this.file = el('input', { type: 'file', accept: '.jsonl,.txt', class: 'hd-unseen', tabindex: '-1', 'aria-label': 'Session file', onchange: () => this.load() });
    this.finish = this.sureButton('Finish', 'No more answers after this. Finish?', () => this.send({ do: 'commit' }));
    this.done = el('p', { class: 'hd-facts', hidden: true });
    const session = this.section('Session', this.done, el('div', { class: 'hd-row' }, b('Save', () => this.fetch('save')), b('Load', () => this.file.click()),
      b('Export table', () => this.fetch('export')), this.finish), this.file);
    this.side = el('div', { class: 'hd-side' }, point, training, shown, runs, session);
    this.root.classList.add('hd');
    this.root.replaceChildren(el('div', { class: 'hd-main' }, el('div', { class: 'hd-stage' }, this.canvas), this.status, this.bar, this.legend, keys), this.side);
    this.listen();
  }
  section(title, ...parts) { return el('section', {}, el('h2', {}, title), ...parts); }
  sureButton(text, ask, act) { // pressed twice, the second time knowing what it does
    let armed = 0;
    const calm = () => { clearTimeout(armed); armed = 0; o.textContent = text; o.classList.remove('hd-armed'); };
    const o = this.button(text, () => {
      if (armed) { calm(); act(); return; }
      o.textContent = ask; o.classList.add('hd-armed'); armed = setTimeout(calm, 5000);
    }, { onblur: () => armed && calm() });
    return o;
  }

  // ---- to and from Python ---------------------------------------------------------------------------------------------------------
  send(message) { // one after the other, so that the log has them in the order of the hands
    this.waiting = this.waiting.then(() => this.link.send(message)).then(r => this.reply(r, message), e => this.say(`${e.message ?? e}`, true));
    return this.waiting;
  }
  reply(r, message) {
    if (r.state) this.update(r.state);
    if (r.say) this.say(r.say, !r.ok);
    if (r.file) this.download(r.file);
    if (r.ok && ['label', 'skip', 'arrow_commit', 'arrow_edit', 'undo', 'redo', 'play', 'pause', 'step'].includes(message.do)) this.since = performance.now();
    if (r.ok && r.arrow != null) { this.arrow = r.arrow; this.refresh(); this.paint(); }
  }
  say(text, bad = false) { this.status.textContent = text; this.status.classList.toggle('hd-bad', bad); }
  spent() { return Math.round(performance.now() - this.since); } // since the last answer: the same clock for labels and arrows
  fetch(what) { return this.send({ do: what }); }
  download({ name, text, kind }) {
    const url = URL.createObjectURL(new Blob([text], { type: kind })), a = el('a', { href: url, download: name });
    this.root.append(a); a.click(); a.remove(); setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
  async load() {
    const file = this.file.files[0];
    this.file.value = '';
    if (file) this.send({ do: 'load', text: await file.text() });
  }
  take(f) {
    this.frame = f; this.lines = null;
    const t = performance.now(); this.frames.push(t); while (this.frames[0] < t - 2000) this.frames.shift();
    const h = f.head;
    this.play.textContent = h.running ? 'Pause' : 'Play';
    this.facts.textContent = `Epoch ${h.epoch}` + (h.practice == null ? '' : ` · practice accuracy ${percent(h.practice)}`) +
      (h.arrows === 1 ? ` · the arrow ${h.violated.length ? 'is violated' : 'holds'}` : h.violated.length ? ` · ${h.violated.length} of ${h.arrows} arrows violated` :
        h.arrows ? ` · all ${h.arrows} arrows hold` : '');
    if (h.trouble && h.trouble !== this.trouble) this.say(`Training stopped: ${h.trouble}`, true);
    this.trouble = h.trouble;
    if (h.curve) { this.curve = h.curve; this.plot(); }
    if (this.state && h.version !== this.state.version) this.send({ do: 'state' }); // somebody else, or another tab
    this.paint();
  }
  update(s) {
    const first = !this.state, grown = this.state && s.arrows.length > this.state.arrows.length;
    this.state = s;
    if (this.selected != null && this.selected >= s.points.length) this.selected = null;
    if (this.selected == null && s.selected != null) this.selected = s.selected;
    if (!s.arrows.some(a => a.id === this.arrow)) this.arrow = null;
    if (this.draft?.id != null && !s.arrows.some(a => a.id === this.draft.id)) this.draft = null;
    if (first) this.say(s.committed ? 'This session is finished.' : 'Press on a point, drag to where the other class should begin, release.');
    if (grown && !first) this.flash = performance.now();
    this.refresh(); this.plot(); this.paint();
  }

  // ---- what the hands do ----------------------------------------------------------------------------------------------------------
  px(p) { const [x0, x1, y0, y1] = this.state.extent; return [(p[0] - x0) / (x1 - x0) * this.size, (y1 - p[1]) / (y1 - y0) * this.size]; }
  data(q) { const [x0, x1, y0, y1] = this.state.extent; return [x0 + q[0] / this.size * (x1 - x0), y1 - q[1] / this.size * (y1 - y0)]; }
  vec(a) { const r = a.r ?? .12 * (this.state.extent[1] - this.state.extent[0]); return [r * a.d[0], r * a.d[1]]; } // a bare direction is drawn as long as this
  tip(a) { const p = this.state.points[a.point], v = this.vec(a); return [p[0] + v[0], p[1] + v[1]]; }
  idle(a) { return this.state.labels[a.point] !== a.y; } // its point was given another label since
  at(e) { const r = this.canvas.getBoundingClientRect(); return [(e.clientX - r.left) * this.size / r.width, (e.clientY - r.top) * this.size / r.height]; }
  near(q, fat = false) { // an arrow's tip, or a point, within reach of a finger
    if (!this.state || this.state.committed) return null;
    const far = p => { const [x, y] = this.px(p); return Math.hypot(x - q[0], y - q[1]); };
    const reach = Math.max(fat ? 26 : 18, this.state.snap * this.size);
    let best = null;
    this.state.points.forEach((p, i) => { const d = far(p); if (d < reach && (!best || d < best.d)) best = { d, point: i }; });
    for (const a of this.state.arrows) { const d = far(this.tip(a)); if (d < (fat ? 24 : 12) && (!best || d < best.d + (a.id === this.arrow ? 6 : 0))) best = { d, point: a.point, id: a.id }; }
    return best;
  }
  listen() {
    const c = this.canvas;
    c.addEventListener('touchstart', e => { if (e.touches.length === 1 && this.near(this.at(e.touches[0]), true)) e.preventDefault(); }, { passive: false });
    c.addEventListener('pointerdown', e => this.press(e));
    c.addEventListener('pointermove', e => this.move(e));
    c.addEventListener('pointerup', e => this.release(e));
    c.addEventListener('pointercancel', () => this.drag && (this.drag = null, this.cancel('Cancelled: the touch was interrupted.')));
    c.addEventListener('keydown', e => this.key(e));
    c.addEventListener('focus', () => this.paint()); c.addEventListener('blur', () => this.paint());
  }
  press(e) {
    if (e.button || !this.state || !e.isPrimary) return;
    if (this.draft) this.cancel('Cancelled.');
    const q = this.at(e), hit = this.near(q, e.pointerType === 'touch');
    if (!hit) { if (!this.state.committed) this.say(`No point is near. Press within ${Math.round(Math.max(18, this.state.snap * this.size))} pixels of one.`); this.refresh(); this.paint(); return; }
    e.preventDefault(); this.canvas.focus({ preventScroll: true }); this.canvas.setPointerCapture(e.pointerId);
    this.drag = { ...hit, from: q, moved: false };
    this.select(hit.point, hit.id ?? null);
  }
  move(e) {
    if (!this.drag) { if (e.pointerType === 'mouse') this.canvas.classList.toggle('hd-over', !!this.near(this.at(e))); return; }
    const q = this.at(e);
    if (!this.drag.moved) {
      if (Math.hypot(q[0] - this.drag.from[0], q[1] - this.drag.from[1]) < DRAG) return;
      this.drag.moved = true;
      if (!this.begin(this.drag.point, this.drag.id)) { this.drag = null; return; }
    }
    const p = this.state.points[this.drag.point], w = this.data([clamp(q[0], 0, this.size), clamp(q[1], 0, this.size)]);
    this.bend([w[0] - p[0], w[1] - p[1]]);
  }
  release(e) {
    if (!this.drag) return;
    if (this.drag.moved) { this.move(e); this.drag = null; this.commit(); } else this.drag = null;
  }
  begin(point, id = null) { // an arrow that is not yet one; only the log knows that it was begun
    if (this.state.labels[point] == null) { this.say('This point has no label yet: give it one first.', true); return false; }
    const a = this.state.arrows.find(o => o.id === id);
    this.draft = { point, id: id ?? null, v: a ? this.vec(a) : [0, 0] };
    this.send({ do: 'arrow_start', point, id: id ?? null });
    return true;
  }
  bend(v) {
    this.draft.v = v;
    const r = Math.hypot(...v);
    this.say(r < this.state.min_r ? 'Drag further: this is too short for an arrow.' : `Point ${this.draft.point + 1}: ${show(Math.atan2(v[1], v[0]) * DEG, 0)}°, length ${show(r)}.`);
    this.refresh(); this.paint();
  }
  cancel(why) {
    const d = this.draft;
    this.draft = null; this.drag = null;
    if (d) { this.send({ do: 'arrow_cancel', ms: this.spent() }); this.say(why); }
    this.refresh(); this.paint();
  }
  commit() {
    const d = this.draft;
    if (!d) { this.say('Choose a point and a direction first.', true); return; }
    if (Math.hypot(...d.v) < this.state.min_r) { this.cancel('Too short: cancelled. Drag to where the other class should begin.'); return; }
    this.draft = null;
    this.send(d.id == null ? { do: 'arrow_commit', point: d.point, v: d.v, target: this.aim(d.point), omega: this.omega, ms: this.spent() }
      : { do: 'arrow_edit', id: d.id, v: d.v, ms: this.spent() });
  }
  aim(point) { const y = this.state.labels[point], n = this.state.classes.length; return n === 2 ? 1 - y : this.target != null && this.target !== y ? this.target : (y + 1) % n; }
  select(i, arrow = null) {
    if (!this.state || (i === this.selected && arrow === this.arrow)) return;
    const same = i === this.selected;
    if (this.draft && this.draft.point !== i) this.cancel('Cancelled.');
    this.selected = i; this.arrow = arrow;
    const chosen = this.state.arrows.find(a => a.id === arrow);
    if (chosen) { this.omega = chosen.omega; this.target = chosen.target; }
    if (i != null) this.say(this.tell(i) + (chosen ? `. Chosen: ${this.name(chosen)}` : '') + '.');
    if (!same) this.send({ do: 'select', point: i });
    this.refresh(); this.paint();
  }
  tell(i) {
    const y = this.state.labels[i], n = this.state.arrows.filter(a => a.point === i).length;
    return `Point ${i + 1} of ${this.state.points.length}, ${y == null ? 'no label' : `class ${this.state.classes[y]}`}, ${n === 1 ? '1 arrow' : `${n} arrows`}` +
      (this.state.skipped.includes(i) ? ', “I don’t know”' : '');
  }
  name(a) {
    return `${show(Math.atan2(a.d[1], a.d[0]) * DEG, 0)}°, ${a.r == null ? 'no length' : `length ${show(a.r)}`}, towards ${this.state.classes[a.target]}, ${Math.round(100 * a.omega)} % sure` +
      (this.idle(a) ? `; no effect: drawn for class ${this.state.classes[a.y]}` : '');
  }
  next(step) {
    const n = this.state.points.length;
    this.select(this.selected == null ? (step > 0 ? 0 : n - 1) : (this.selected + step + n) % n);
  }
  nextArrow() {
    const own = this.state.arrows.filter(a => a.point === this.selected);
    if (!own.length) { this.say('This point has no arrow.'); return; }
    this.select(this.selected, own[(own.findIndex(a => a.id === this.arrow) + 1) % own.length].id);
  }
  polar(turn, grow) { // by keys: turn, lengthen
    if (this.selected == null) { this.say('Choose a point first: n or p.', true); return; }
    const span = this.state.extent[1] - this.state.extent[0];
    if (!this.draft) { if (!this.begin(this.selected)) return; this.bend([.1 * span, 0]); return; }
    const r = clamp(Math.hypot(...this.draft.v) + grow * span, .01 * span, span), t = Math.atan2(this.draft.v[1], this.draft.v[0]) + turn / DEG;
    this.bend([r * Math.cos(t), r * Math.sin(t)]);
  }
  typed() {
    if (this.selected == null) { this.say('Choose a point first.', true); return; }
    const t = +this.angle.value / DEG, r = +this.length.value || .1 * (this.state.extent[1] - this.state.extent[0]);
    if (!this.draft && !this.begin(this.selected, this.arrow)) return;
    this.typing = true; this.bend([r * Math.cos(t), r * Math.sin(t)]); this.typing = false;
  }
  label(y) {
    if (this.selected == null || this.state.committed) return;
    this.send({ do: 'label', point: this.selected, y, ms: this.spent() });
  }
  skip() {
    if (this.selected == null) { this.say('Choose a point first.', true); return; }
    this.draft = null;
    this.send({ do: 'skip', point: this.selected, ms: this.spent() });
  }
  nextTarget() {
    const n = this.state.classes.length, i = this.selected ?? 0, y = this.state.labels[i];
    if (n < 3) { this.say('There are two classes: an arrow leads from one to the other.'); return; }
    let t = (this.aim(i) + 1) % n;
    if (t === y) t = (t + 1) % n;
    this.say(`Towards ${this.state.classes[t]}.`); this.retarget(t);
  }
  retarget(t) {
    this.target = t;
    if (this.arrow != null && !this.draft) this.send({ do: 'arrow_target', id: this.arrow, target: t });
    this.refresh();
  }
  confide(preview = false) {
    this.omega = +this.sure.value / 100;
    this.sureSaid.textContent = `${this.sure.value} %`;
    if (!preview && this.arrow != null && !this.draft) this.send({ do: 'arrow_confidence', id: this.arrow, omega: this.omega });
  }
  edit(id) { this.select(this.state.arrows.find(a => a.id === id).point, id); if (this.begin(this.selected, id)) { this.bend(this.draft.v); this.canvas.focus(); } }
  erase(id) { if (id != null) this.send({ do: 'arrow_delete', id }); else this.say('Choose an arrow first: a.', true); }
  key(e) {
    if (!this.state || e.altKey) return;
    const k = e.key, low = k.toLowerCase(), fine = e.shiftKey ? 1 : 15;
    if ((e.ctrlKey || e.metaKey)) { if (low === 'z' || low === 'y') { e.preventDefault(); this.send({ do: low === 'y' || e.shiftKey ? 'redo' : 'undo' }); } return; }
    const acts = { n: () => this.next(1), p: () => this.next(-1), PageDown: () => this.next(1), PageUp: () => this.next(-1), a: () => this.nextArrow(),
      ArrowLeft: () => this.polar(fine, 0), ArrowRight: () => this.polar(-fine, 0), ArrowUp: () => this.polar(0, e.shiftKey ? .005 : .025), ArrowDown: () => this.polar(0, e.shiftKey ? -.005 : -.025),
      Enter: () => this.commit(), Escape: () => (this.draft ? this.cancel('Cancelled.') : this.select(null)), e: () => this.arrow != null ? this.edit(this.arrow) : this.say('Choose an arrow first: a.', true),
      Delete: () => this.erase(this.arrow), Backspace: () => this.erase(this.arrow), d: () => this.skip(), '?': () => this.skip(), u: () => this.send({ do: 'undo' }), r: () => this.send({ do: 'redo' }),
      ' ': () => this.play.click(), s: () => this.send({ do: 'step' }), t: () => this.nextTarget() };
    if (/^\d$/.test(k) && +k < this.state.classes.length) { e.preventDefault(); this.label(+k); return; }
    const act = acts[k] ?? acts[low];
    if (act) { e.preventDefault(); e.stopPropagation(); act(); }
  }

  // ---- what is seen ---------------------------------------------------------------------------------------------------------------
  refresh() {
    const s = this.state, i = this.selected, own = s.arrows.filter(a => a.point === i), shut = s.committed;
    const options = [el('option', { value: '' }, 'choose a point'), ...s.points.map((_, k) => el('option', { value: k }, this.tell(k).replace(/ of \d+/, '')))];
    if (options.map(o => o.textContent).join() !== this.told) { this.told = options.map(o => o.textContent).join(); this.pick.replaceChildren(...options); }
    this.pick.value = i ?? '';
    const y = i == null ? null : s.labels[i], had = this.labels.contains(document.activeElement) ? [...this.labels.querySelectorAll('button')].indexOf(document.activeElement) : -1;
    this.labels.replaceChildren(el('legend', {}, y == null && i != null ? 'Label: none yet' : 'Label'), ...s.classes.map((c, k) =>
      this.button(c, () => this.label(k), { 'aria-pressed': String(y === k), disabled: i == null || shut, class: `hd-class hd-c${k % COLOURS}` })));
    if (had >= 0) this.labels.querySelectorAll('button')[had]?.focus();
    this.towardsBox.hidden = s.classes.length < 3;
    if (i != null && s.classes.length > 2) {
      this.towards.replaceChildren(...s.classes.map((c, k) => el('option', { value: k, disabled: k === y }, c)));
      this.towards.value = this.aim(i);
    }
    this.sure.value = Math.round(100 * this.omega); this.sureSaid.textContent = `${this.sure.value} %`;
    if (!this.typing) {
      const a = s.arrows.find(o => o.id === this.arrow), v = this.draft?.v ?? (a ? this.vec(a) : null);
      this.angle.value = v ? Math.round(Math.atan2(v[1], v[0]) * DEG) : ''; this.length.value = v ? Math.hypot(...v).toFixed(2) : '';
    }
    for (const o of [this.angle, this.length, this.clearPoint, this.unknown]) o.disabled = i == null || shut;
    this.commitDraft.disabled = this.cancelDraft.disabled = !this.draft;
    this.commitDraft.textContent = this.draft?.id != null ? 'Change' : 'Draw';
    this.clearAll.disabled = !s.arrows.length || shut; this.clearPoint.disabled = !own.length || shut;
    this.undo.disabled = !s.can_undo || shut; this.redo.disabled = !s.can_redo || shut; this.finish.disabled = shut;
    const focus = this.list.contains(document.activeElement) ? document.activeElement.getAttribute('aria-label') : null;
    this.list.replaceChildren(...own.map(a => el('li', { class: a.id === this.arrow ? 'hd-on' : '' }, el('span', {}, this.name(a)),
      this.button('Edit', () => this.edit(a.id), { 'aria-label': `Edit arrow ${a.id}`, disabled: shut }),
      this.button('Delete', () => this.erase(a.id), { 'aria-label': `Delete arrow ${a.id}`, disabled: shut }))));
    if (focus) (this.list.querySelector(`[aria-label="${focus}"]`) ?? this.canvas).focus();
    if (this.loss.options.length !== s.losses.length) this.loss.replaceChildren(...s.losses.map(o => el('option', { value: o }, o)));
    this.loss.value = s.settings.loss; this.pace.value = s.settings.pace;
    for (const k of ['alpha', 'gamma']) if (document.activeElement !== this[k] || this[k].value === '') { this[k].value = s.settings[k]; this[k].nextSibling.textContent = show(s.settings[k]); }
    for (const [k, o] of Object.entries(this.shows)) o.checked = s.show.includes(k);
    this.done.hidden = !shut;
    if (shut) this.done.textContent = `Finished. Held-out accuracy ${percent(s.held_out)}, on points that nobody saw.`;
    const still = s.arrows.filter(a => this.idle(a)).length;
    this.legend.replaceChildren(...s.classes.map((c, k) => el('span', { class: `hd-key hd-c${k % COLOURS}` }, `${'●■▲◆▼★'[k % COLOURS]} ${c}`)),
      ...(s.labels.includes(null) ? [el('span', { class: 'hd-key' }, '○ no label')] : []), el('span', { class: 'hd-key' }, `${s.arrows.length} ${s.arrows.length === 1 ? 'arrow' : 'arrows'}` + (still ? `, ${still} without effect` : '')));
    const same = s.runs.map(r => `${r.id}${r.shown}`).join();
    if (same !== this.had) {
      this.had = same;
      this.runs.replaceChildren(...s.runs.map((r, k) => { const o = el('input', { type: 'checkbox', onchange: () => this.compare() }); o.checked = r.shown; o.value = r.id;
        return el('li', {}, el('label', { class: 'hd-tick' }, o, el('span', { class: `hd-c${(k + 2) % COLOURS}` }, '▬ '), el('span', {}, `${r.name} · ${percent(r.last)}`))); }));
    }
  }
  compare() { this.send({ do: 'compare', runs: [...this.runs.querySelectorAll('input:checked')].map(o => +o.value) }); }
  colours() {
    if (this.ink) return this.ink;
    const css = getComputedStyle(this.root), probe = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = name => { probe.fillStyle = css.getPropertyValue(name).trim(); probe.fillRect(0, 0, 1, 1); return [...probe.getImageData(0, 0, 1, 1).data.slice(0, 3)]; };
    const text = c => `rgb(${c.join(',')})`;
    const classes = [...Array(COLOURS).keys()].map(k => rgb(`--hd-c${k}`)), names = { paper: '--hd-paper', card: '--hd-card', ink: '--hd-ink', soft: '--hd-soft', bad: '--hd-bad', fog: '--hd-fog', hue: '--hd-hue' };
    this.ink = { classes, text: classes.map(text) };
    for (const [k, v] of Object.entries(names)) { this.ink[`${k}3`] = rgb(v); this.ink[k] = text(this.ink[`${k}3`]); }
    return this.ink;
  }
  resize() {
    const w = this.canvas.clientWidth, k = devicePixelRatio || 1;
    if (!w) return;
    this.size = w; this.canvas.width = this.canvas.height = Math.round(w * k); this.scale = k;
    this.paint(); this.plot();
  }
  paint() { if (!this.asked) { this.asked = true; requestAnimationFrame(() => { this.asked = false; this.draw(); }); } }
  image(f, c) { // the map as pixels: the leading class tints the paper, disagreement fogs it
    const g = f.head.grid, shows = this.state.show, made = new ImageData(g, g), n = this.state.classes.length;
    for (let i = 0; i < g * g; i++) {
      const p = shares(f, i);
      let top = 0;
      for (let k = 1; k < p.length; k++) if (p[k] > p[top]) top = k;
      const lead = shows.includes('map') ? .16 + .5 * (p[top] - 1 / n) / (1 - 1 / n) : 0, fog = shows.includes('uncertainty') ? Math.min(.85, f.spread[i] / 255 * 1.1) : 0;
      const hue = c.classes[top % COLOURS];
      for (let k = 0; k < 3; k++) made.data[4 * i + k] = (c.card3[k] * (1 - lead) + hue[k] * lead) * (1 - fog) + c.fog3[k] * fog;
      made.data[4 * i + 3] = 255;
    }
    this.tile ??= document.createElement('canvas');
    this.tile.width = this.tile.height = g;
    this.tile.getContext('2d').putImageData(made, 0, 0);
    return this.tile;
  }
  draw() {
    if (!this.size || !this.state || !this.root.isConnected) return;
    const ctx = this.canvas.getContext('2d'), c = this.colours(), s = this.state, f = this.frame, S = this.size;
    ctx.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    ctx.fillStyle = c.card; ctx.fillRect(0, 0, S, S); ctx.lineCap = ctx.lineJoin = 'round';
    if (f && (s.show.includes('map') || s.show.includes('uncertainty'))) {
      ctx.imageSmoothingEnabled = true; ctx.drawImage(this.image(f, c), 0, 0, S, S);
      if (s.show.includes('map')) {
        const k = S / f.head.grid;
        this.lines ??= contours(f);
        ctx.beginPath();
        for (const [a, b] of this.lines) { ctx.moveTo((a[0] + .5) * k, (a[1] + .5) * k); ctx.lineTo((b[0] + .5) * k, (b[1] + .5) * k); }
        ctx.strokeStyle = c.ink; ctx.lineWidth = 1.75; ctx.stroke();
      }
    }
    if (f?.head.field && s.show.includes('field')) for (const [x, y, u, v] of f.head.field) {
      const a = this.px([x, y]), k = S / 34;
      this.shaft(ctx, [a[0] - u * k / 2, a[1] + v * k / 2], [a[0] + u * k / 2, a[1] - v * k / 2], c.soft, 1.25, 3.5);
    }
    const bad = new Set(s.show.includes('violated') && f ? f.head.violated : []);
    for (const a of s.arrows) {
      if (this.draft?.id === a.id) continue;
      const from = this.px(s.points[a.point]), to = this.px(this.tip(a)), idle = this.idle(a), wide = idle ? 1.5 : a.id === this.arrow ? 4 : 2.5;
      this.shaft(ctx, from, to, c.card, wide + 3.5, 10);
      this.shaft(ctx, from, to, idle ? c.soft : bad.has(a.id) ? c.bad : c.ink, wide, 9, idle ? [2, 4] : bad.has(a.id) ? [7, 5] : []);
    }
    s.points.forEach((p, i) => this.dot(ctx, this.px(p), s.labels[i], i === this.selected, c, s.skipped.includes(i)));
    if (this.draft) {
      const p = s.points[this.draft.point], from = this.px(p), to = this.px([p[0] + this.draft.v[0], p[1] + this.draft.v[1]]);
      this.shaft(ctx, from, to, c.card, 6.5, 11); this.shaft(ctx, from, to, Math.hypot(...this.draft.v) < s.min_r ? c.soft : c.hue, 3, 10, [2, 5]);
    }
    this.drawn++; this.canvas.dataset.drawn = this.drawn;
  }
  shaft(ctx, a, b, colour, width, head, dash = []) {
    const t = Math.atan2(b[1] - a[1], b[0] - a[0]), n = Math.min(head, Math.hypot(b[0] - a[0], b[1] - a[1]));
    ctx.strokeStyle = colour; ctx.lineWidth = width;
    ctx.setLineDash(dash); ctx.beginPath(); ctx.moveTo(...a); ctx.lineTo(...b); ctx.stroke(); ctx.setLineDash([]);
    ctx.beginPath();
    for (const s of [-.5, .5]) { ctx.moveTo(...b); ctx.lineTo(b[0] - n * Math.cos(t + s), b[1] - n * Math.sin(t + s)); }
    ctx.stroke();
  }
  dot(ctx, [x, y], label, chosen, c, skipped) { // a shape for each class, so that colour is not all
    const r = 5.5;
    if (chosen) { ctx.beginPath(); ctx.arc(x, y, 12, 0, 7); ctx.strokeStyle = c.card; ctx.lineWidth = 5; ctx.stroke(); ctx.strokeStyle = c.hue; ctx.lineWidth = 2.5; ctx.stroke(); }
    ctx.beginPath();
    if (label == null || label % COLOURS === 0) ctx.arc(x, y, r, 0, 7);
    else if (label % COLOURS === 1) ctx.rect(x - r + .5, y - r + .5, 2 * r - 1, 2 * r - 1);
    else { const n = [3, 4, 3, 5][label % COLOURS - 2], turn = [-1, -1, 1, -1][label % COLOURS - 2];
      for (let k = 0; k < n; k++) ctx.lineTo(x + 1.25 * r * Math.cos(turn * Math.PI / 2 + 2 * Math.PI * k / n), y + 1.25 * r * Math.sin(turn * Math.PI / 2 + 2 * Math.PI * k / n));
      ctx.closePath(); }
    ctx.fillStyle = label == null ? c.card : c.text[label % COLOURS]; ctx.fill();
    ctx.strokeStyle = label == null ? c.ink : c.card; ctx.lineWidth = 1.5; ctx.stroke();
    if (skipped) { ctx.fillStyle = c.ink; ctx.font = '600 12px system-ui, sans-serif'; ctx.textAlign = 'left'; ctx.fillText('?', x + 8, y - 5); }
  }
  plot() { // practice accuracy by epoch: this run, and those that are ticked
    const w = this.chart.clientWidth, h = this.chart.clientHeight, k = devicePixelRatio || 1;
    if (!w || !this.state) return;
    this.chart.width = Math.round(w * k); this.chart.height = Math.round(h * k);
    const ctx = this.chart.getContext('2d'), c = this.colours(), runs = this.state.runs.map((r, i) => ({ ...r, i })).filter(r => r.shown);
    const all = [...runs.map(r => r.curve), this.curve ?? []].flat(), far = Math.max(10, ...all.map(o => o[0])), low = Math.min(.8, ...all.map(o => o[1])) - .03;
    const X = x => 30 + x / far * (w - 40), Y = y => 8 + (1 - y) / (1 - low) * (h - 28);
    ctx.setTransform(k, 0, 0, k, 0, 0); ctx.clearRect(0, 0, w, h); ctx.lineJoin = 'round';
    ctx.font = '11px system-ui, sans-serif'; ctx.fillStyle = c.soft; ctx.strokeStyle = c.soft; ctx.lineWidth = .5;
    for (const y of [.5, .6, .7, .8, .9, 1].filter(y => y >= low)) { ctx.textAlign = 'right'; ctx.fillText(Math.round(100 * y), 24, Y(y) + 4); ctx.beginPath(); ctx.moveTo(30, Y(y)); ctx.lineTo(w - 10, Y(y)); ctx.globalAlpha = .5; ctx.stroke(); ctx.globalAlpha = 1; }
    ctx.textAlign = 'right'; ctx.fillText(`epoch ${far}`, w - 10, h - 4); ctx.textAlign = 'left'; ctx.fillText('practice, %', 30, h - 4);
    const line = (curve, colour, width, dash) => { ctx.beginPath(); curve.forEach(([x, y]) => ctx.lineTo(X(x), Y(y))); ctx.setLineDash(dash); ctx.strokeStyle = colour; ctx.lineWidth = width; ctx.stroke(); ctx.setLineDash([]); };
    for (const r of runs) line(r.curve, c.text[(r.i + 2) % COLOURS], 2, [[], [6, 3], [2, 3]][r.i % 3]);
    line(this.curve ?? [], c.ink, 2.25, []);
    const last = this.curve?.at(-1);
    this.chart.setAttribute('aria-label', `Practice accuracy: this run ${last ? percent(last[1]) : 'not started'}` + runs.map(r => `; ${r.name} ${percent(r.last)}`).join(''));
  }
}

// ---- carriers -----------------------------------------------------------------------------------------------------------------------
class Http { // the page of the server: posts for what changes, a long poll for frames
  constructor(base, csrf) { this.who = 'The server'; this.base = base; this.csrf = csrf; this.on = true; this.last = ''; }
  async send(message) {
    const r = await fetch(`${this.base}/do`, { method: 'POST', body: new URLSearchParams({ csrf: this.csrf, say: JSON.stringify(message) }) });
    if (!r.headers.get('content-type')?.includes('json')) throw new Error({ 403: 'This page is out of date: load it again.', 413: 'That file is too large: 20 MB can be loaded here.',
      429: 'Too fast: wait a moment.' }[r.status] ?? `The server answered ${r.status}.`);
    return r.json();
  }
  onlost(f) { this.lost = f; }
  onframe(f) { this.poll(f); }
  async poll(f) {
    let lost = false;
    while (this.on) {
      if (document.hidden) { await new Promise(done => document.addEventListener('visibilitychange', done, { once: true })); continue; }
      try {
        const r = await fetch(`${this.base}/frame?after=${this.last}`);
        if (r.status === 200) { const frame = unpack(await r.arrayBuffer()); this.last = frame.head.frame; f(frame); }
        else if (r.status !== 204) throw new Error(r.status);
        if (lost) { lost = false; this.lost?.(false); }
      } catch (e) {
        if (!lost) { lost = true; this.lost?.(true); }
        await new Promise(done => setTimeout(done, 1000));
      }
    }
  }
  stop() { this.on = false; }
}
class Comm { // a widget: messages of the kernel, frames as buffers
  constructor(model) { this.who = 'The kernel'; this.model = model; this.n = 0; this.open = new Map(); model.on('msg:custom', this.got = (m, buffers) => this.hear(m, buffers)); this.me = Math.random().toString(36).slice(2); }
  hear(m, buffers) {
    if (m.kind === 'frame') { const b = buffers[0]; this.f?.(unpack(b.buffer ?? b, b.byteOffset ?? 0)); }
    else if (m.me === this.me && this.open.has(m.n)) { this.heard(); this.open.get(m.n)(m.reply); this.open.delete(m.n); }
  }
  heard() { clearTimeout(this.late); if (this.silent) { this.silent = false; this.lost?.(false); } }
  onlost(f) { this.lost = f; }
  send(message) { // a kernel may be busy with another cell, or gone: then this is said
    return new Promise(done => { const n = this.n++; this.open.set(n, done); this.model.send({ me: this.me, n, message });
      this.late = setTimeout(() => { this.silent = true; this.lost?.(true); }, 4000); });
  }
  onframe(f) { this.f = f; this.model.send({ me: this.me, n: -1, message: { do: 'frame' } }); }
  stop() { clearTimeout(this.late); this.model.off('msg:custom', this.got); }
}

export default { render({ model, el: root }) { const box = el('div', { 'data-lm-suppress-shortcuts': 'true', onkeydown: e => (e.ctrlKey || e.metaKey) || e.stopPropagation() }); root.append(box); // its keys are not JupyterLab's: x would cut the cell
  const desk = new Desk(box, new Comm(model)); return () => desk.close(); } };

const page = document.querySelector('[data-directions]');
if (page) page.desk = new Desk(page, new Http(page.dataset.directions, page.dataset.csrf));
