// Construct: one blend at a time; keys, buttons and swipes step through all of them, which are loaded beforehand.
'use strict';
(() => {
  const stage = document.getElementById('stage'), said = document.getElementById('said');
  const images = [...stage.querySelectorAll('img')], dots = [...stage.querySelectorAll('input[name=lam]')];
  const buttons = {'-1': document.getElementById('less'), '1': document.getElementById('more')};
  let at = dots.findIndex(o => o.checked), ready = false;

  const show = to => {
    at = to;
    images.forEach((o, i) => o.parentElement.classList.toggle('now', i === at));
    dots[at].checked = true;
    buttons[-1].classList.toggle('stop', at === 0);
    buttons[1].classList.toggle('stop', at === images.length - 1);
  };
  const step = by => { // ends clamp
    if (!ready) return;
    hmix.touch('lam');
    const to = Math.min(images.length - 1, Math.max(0, at + by));
    const words = stage.dataset[(to === at ? 'end' : 'step') + (by > 0 ? 'More' : 'Less')];
    said.textContent = said.textContent === words ? words + '\u00a0' : words; // said again where it is the same
    show(to);
  };
  const keys = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1}, letters = {g: -1, h: 1};
  const on = document.getElementById('keys'), kept = (...what) => { // a frame of another site may keep nothing
    try { return what.length ? sessionStorage.setItem('hmix-letters', what[0]) : sessionStorage.getItem('hmix-letters'); } catch { return null; }
  };
  const switched = () => {
    for (const [by, key] of [[-1, 'g'], [1, 'h']]) {
      if (on.checked) buttons[by].setAttribute('aria-keyshortcuts', key);
      else buttons[by].removeAttribute('aria-keyshortcuts');
    }
    document.documentElement.classList.toggle('no-letters', !on.checked);
  };
  on.checked = kept() !== 'off';
  on.addEventListener('change', () => {
    kept(on.checked ? 'on' : 'off');
    switched();
  });
  switched();

  buttons[-1].addEventListener('click', () => step(-1));
  buttons[1].addEventListener('click', () => step(1));
  addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = keys[event.key] ?? (on.checked ? letters[event.key.toLowerCase()] : undefined);
    if (by) {
      event.preventDefault();
      step(by);
    } else if (event.key === 'Enter' && !event.repeat && !event.target.closest('button, a')) {
      hmix.form.requestSubmit();
    }
  });
  let from = null;
  stage.addEventListener('pointerdown', event => {
    from = event.clientX;
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener('pointerup', event => {
    const by = from === null ? 0 : event.clientX - from;
    from = null;
    if (Math.abs(by) >= 24) step(Math.sign(by));
  });
  stage.addEventListener('pointercancel', () => { from = null; });
  let finger = null; // a swipe that the browser takes for scrolling would swallow the tap that follows it
  stage.addEventListener('touchstart', event => { finger = event.touches[0]; }, {passive: true});
  stage.addEventListener('touchmove', event => {
    const now = event.touches[0];
    if (event.cancelable && Math.abs(now.clientX - finger.clientX) > Math.abs(now.clientY - finger.clientY)) event.preventDefault();
  }, {passive: false});

  show(at);
  hmix.seen.then(() => { ready = true; }, () => {}); // elicit.js says what did not load
})();
