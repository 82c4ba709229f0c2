// Whoever works with the keyboard must not be thrown back to the top of the page because what had the
// focus is gone: a notice that was mended, a form that was sent, an item that another window removed.

import { afterEveryRender } from "@angular/core";

/** From now on, when a removal loses the focus, `goHome` is asked to put it somewhere, without scrolling. */
export function keepFocus(goHome: (options: FocusOptions) => void): void {
  let last: Node | null = null;
  document.addEventListener("focusin", ({ target }) => (last = target as Node));
  afterEveryRender(() => {
    if (!last || last.isConnected || document.activeElement !== document.body) return;
    last = null;
    goHome({ preventScroll: true });
  });
}
