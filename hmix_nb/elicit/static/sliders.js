// Sliders that count as answered once somebody has touched them, also where they stay.
'use strict';
(() => {
  const acts = new Set(['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End', 'PageUp', 'PageDown', ' ']);
  for (const box of document.querySelectorAll('.slider')) {
    const input = box.querySelector('input[type=range]');
    const fill = {pa: () => 100 - input.value, pb: () => input.value, percent: () => input.value};
    const tell = () => input.setAttribute('aria-valuetext', box.dataset.says.replace(/\{(\w+)\}/g, (all, k) => fill[k]?.() ?? all));
    const touch = () => {
      hmix.touch(input.name);
      box.classList.add('moved');
      box.classList.remove('missing');
    };
    if (hmix.field('moved_' + input.name).value === '1') touch();
    tell();
    input.addEventListener('input', tell);
    for (const kind of ['input', 'change', 'pointerdown']) input.addEventListener(kind, touch);
    input.addEventListener('keydown', event => { if (acts.has(event.key)) touch(); });
    hmix.checks.push(() => box.classList.contains('moved') ? [] : [{text: box.dataset.missing, near: box}]);
  }
})();
